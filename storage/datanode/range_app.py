"""`PUT /v1/ranges/{group}`: a range of a segment, lent for as long as the request is under way (range_wire.py)."""

from __future__ import annotations

from storage.base.errors import ChunkTruncated, Unavailable
from storage.chunks.disk import BorrowedRange, DiskChunkStore
from storage.datanode import range_wire
from storage.datanode.exchange import BadRequest, Exchange
from storage.datanode.intake import Intake

LOANS_MAX = 64
"""at once: each holds an open segment, and the room of its range"""


class RangeRoutes:
    """Of one datanode."""

    def __init__(self, store: DiskChunkStore | None, intake: Intake) -> None:
        """store: None where nothing is lent."""
        self._store = store
        self._intake = intake
        self._loans = 0

    async def lend(self, exchange: Exchange) -> None:
        """The whole of one loan. NodeFull, ChunkError, Unavailable, BadRequest: nothing is lent."""
        if self._store is None or exchange.method != "PUT":
            raise BadRequest(405, "no ranges are lent here")
        self._intake.require()
        try:
            group, length = range_wire.parse_group(exchange.path), range_wire.parse_headers(exchange.headers)
        except ValueError as error:
            raise BadRequest(400, str(error)) from error
        if self._loans >= LOANS_MAX:
            raise Unavailable("too many ranges are lent")
        self._loans += 1
        try:
            async with self._store.lend_range(group, length) as borrowed:
                await _wait_for_end(exchange, borrowed)
        finally:
            self._loans -= 1


async def _wait_for_end(exchange: Exchange, borrowed: BorrowedRange) -> None:
    """The last byte goes out, or the connection is closed, before anything happens to the range: see range_wire."""
    lent = borrowed.lent
    await exchange.start(200, range_wire.ANSWER_BYTES, ())
    await exchange.send_block(range_wire.format_grant(range_wire.Grant(lent.begin, lent.end, lent.inode)))
    try:
        borrowed.ending = await exchange.read_parsed(range_wire.parse_ending, range_wire.ENDING_BYTES)
    except ChunkTruncated:  # the borrower is gone, or nothing was heard of it for too long
        return
    finally:
        await exchange.send_last(range_wire.OVER)
