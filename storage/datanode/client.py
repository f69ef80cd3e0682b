"""A datanode seen from afar: a ChunkStore over HTTP, with a deadline on every hop.

Raises what the store behind it raises, and NodeUnreachable for everything that is about the way there: refused, reset,
a missed deadline, a token that is not accepted, an answer that is not of the protocol.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from storage.base.address import Address, parse_address
from storage.base.errors import ChunkError, Corrupt, NodeFull, NodeUnreachable, Unavailable
from storage.base.ids import ChunkId
from storage.base.internal_auth import ROLE_DATANODE, access_token, derive_node_key
from storage.base.internal_client import ERROR_BYTES_MAX, Answer, Deadlines, InternalClient
from storage.chunks.body import gather_body
from storage.chunks.near_drafts import NotLent
from storage.chunks.store import (
    BATCH_BYTES_MAX,
    DIGEST_BYTES,
    SPAN_BYTES_MAX,
    Buffer,
    ChunkReceipt,
    ChunkState,
    InventoryEntry,
    Judged,
    Space,
)
from storage.datanode import judged_wire, near_wire, wire
from storage.datanode.answers import read_answer, strange
from storage.datanode.range_client import RangeClient
from storage.model import Node

WHOLE_BODY_BYTES_MAX = 128 * 1024
"""a chunk up to this size is sent in one piece without asking first; asking costs a round trip"""
VERIFY_TIMEOUT_S = 60.0
PULL_TIMEOUT_S = 120.0
BATCH_TIMEOUT_S = 60.0

_T = TypeVar("_T")


class DatanodeClient:
    """ChunkStore of one remote datanode. token: access_token of the node's key. One per node: it pools connections."""

    def __init__(
        self,
        address: Address,
        token: str,
        *,
        tls_ca: str | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - immutable
    ) -> None:
        self._http = InternalClient(address, token, tls_ca=tls_ca, deadlines=deadlines)
        self.ranges = None if address.is_tls else RangeClient(address, token)
        """of its segments, to be borrowed by who can write into its directory; None where nobody can"""

    @property
    def address(self) -> Address:
        """Where the datanode is."""
        return self._http.address

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._http.close()

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        """As ChunkStore. A large body is not touched before the datanode agreed to take it: a full or unreachable node
        then leaves the body untouched, for another node."""
        _require_length(length)
        if length <= WHOLE_BODY_BYTES_MAX:
            return await self.put_whole(chunk_id, await gather_body(body, length))
        answer = await self._http.send("PUT", wire.chunk_target(chunk_id), body, length, expect_continue=True)
        return self._parsed(answer, 201, wire.parse_receipt)

    async def put_whole(self, chunk_id: ChunkId, blocks: Sequence[Buffer]) -> ChunkReceipt:
        """As ChunkStore: sent at once, without asking first."""
        length = sum(map(len, blocks))
        _require_length(length)
        answer = await self._http.send_whole("PUT", wire.chunk_target(chunk_id), blocks, length)
        return self._parsed(answer, 201, wire.parse_receipt)

    async def lend(self, chunk_id: ChunkId, loan: near_wire.Loan, account: AsyncIterator[Buffer]) -> ChunkReceipt:
        """Store a chunk whose bytes the caller writes into the datanode's directory. account: the body of near_wire; it
        is asked for once the draft is there. NotLent by a datanode that lends none; else as `put`."""
        _require_length(loan.length)
        target, headers = wire.chunk_target(chunk_id, near_wire.DRAFT), near_wire.format_headers(loan)
        length = near_wire.body_bytes(loan.length)
        answer = await self._http.send("PUT", target, account, length, expect_continue=True, headers=headers)
        if answer.status == 405:
            raise NotLent(f"{self.address} lends no drafts")
        return self._parsed(answer, 201, wire.parse_receipt)

    async def put_many(self, items: Sequence[tuple[ChunkId, Buffer]]) -> list[ChunkReceipt | ChunkError]:
        outcomes: list[ChunkReceipt | ChunkError] = []
        for run in wire.plan_batches([len(data) for _, data in items]):
            batch = items[run]
            if len(batch) == 1 and len(batch[0][1]) > wire.BATCH_BYTES_MAX:
                outcomes.append(await self._put_one(*batch[0]))
                continue
            outcomes += await self._put_batch(batch)
        return outcomes

    async def get(self, chunk_id: ChunkId, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """As ChunkStore. Close the iterator (contextlib.aclosing) when it is not read to its end."""
        if length == 0:
            await self.stat(chunk_id)
            return
        target = wire.chunk_target(chunk_id)
        headers = {"Range": wire.format_range(offset, length)} if offset or length is not None else None
        if length is not None and length <= SPAN_BYTES_MAX:
            answer = await self._http.call("GET", target, headers=headers, answer_bytes_max=SPAN_BYTES_MAX)
            if answer.status != 416:
                yield self._parsed(answer, 206, bytes)
            return
        async with self._http.open("GET", target, headers=headers) as response:
            if response.status == 416:
                return
            if response.status not in (200, 206):
                raise self._failure(Answer(response.status, response.headers, await response.read(ERROR_BYTES_MAX)))
            async for block in response.blocks():
                yield block

    async def get_many(self, spans: Sequence[tuple[ChunkId, int, int]]) -> list[bytes | ChunkError | Corrupt]:
        outcomes: list[bytes | ChunkError | Corrupt] = []
        within = _count_within(spans)
        for run in wire.plan_batches([length for _, _, length in spans[:within]]):
            batch = spans[run]
            if len(batch) == 1 and batch[0][2] > wire.BATCH_BYTES_MAX:
                outcomes.append(await self._get_one(*batch[0]))
                continue
            body = wire.encode_spans(batch)
            outcomes += await self._post(wire.BATCH_GET, body, _counting(wire.parse_get_outcomes, len(batch)))
        outcomes.extend(ChunkError("too many bytes in one call") for _ in spans[within:])
        return outcomes

    async def stat(self, chunk_id: ChunkId) -> ChunkReceipt:
        answer = await self._http.call("HEAD", wire.chunk_target(chunk_id))
        if answer.status != 200:
            raise self._failure(answer)
        try:
            length = wire.parse_content_length(answer.headers.get("content-length", ""))
            digest = bytes.fromhex(answer.headers.get(wire.DIGEST_HEADER, ""))
        except ValueError as error:
            raise strange(self.address, answer) from error
        if len(digest) != DIGEST_BYTES:
            raise strange(self.address, answer)
        return ChunkReceipt(length, digest)

    async def verify(self, chunk_id: ChunkId) -> ChunkReceipt:
        target = wire.chunk_target(chunk_id, wire.VERIFY)
        answer = await self._http.call("POST", target, timeout_s=VERIFY_TIMEOUT_S)
        return self._parsed(answer, 200, wire.parse_receipt)

    async def inspect_many(self, chunk_ids: Sequence[ChunkId]) -> list[ChunkState | None]:
        return await self._post_ids(wire.BATCH_INSPECT, chunk_ids, wire.parse_states)

    async def pull(self, chunk_id: ChunkId, request: wire.PullRequest) -> ChunkReceipt:
        """Have this datanode copy a chunk from another. ChunkNotFound when the source does not hold it, Corrupt when
        the bytes differ from what the request says, NodeUnreachable for the way to either, NodeFull, ChunkConflict."""
        target = wire.chunk_target(chunk_id, wire.PULL)
        answer = await self._http.call("POST", target, wire.encode(request), timeout_s=PULL_TIMEOUT_S)
        return self._parsed(answer, 201, wire.parse_receipt)

    async def pull_many(
        self, pulls: Sequence[tuple[ChunkId, wire.PullRequest]]
    ) -> list[ChunkReceipt | ChunkError | Corrupt]:
        """As `pull`, of many small chunks: one outcome for each. An error of all of them is raised."""
        outcomes: list[ChunkReceipt | ChunkError | Corrupt] = []
        for run in wire.plan_batches([request.length for _, request in pulls]):
            batch = pulls[run]
            answer = await self._http.call("POST", wire.BATCH_PULL, wire.encode_pulls(batch), timeout_s=PULL_TIMEOUT_S)
            outcomes += self._parsed(answer, 200, _counting(wire.parse_put_outcomes, len(batch)))
        return outcomes

    async def rebuild(self, chunk_id: ChunkId, request: wire.RebuildRequest) -> ChunkReceipt:
        """Have this datanode make a fragment out of those on others. Errors as of pull: ChunkNotFound, Corrupt and
        NodeUnreachable when fewer sources than are needed give what they should; Corrupt also when they do and another
        fragment comes out than the one asked for."""
        target = wire.chunk_target(chunk_id, wire.REBUILD)
        answer = await self._http.call("POST", target, wire.encode(request), timeout_s=PULL_TIMEOUT_S)
        return self._parsed(answer, 201, wire.parse_receipt)

    async def delete_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        return await self._post_ids(wire.BATCH_DELETE, chunk_ids, wire.parse_flags)

    async def quarantine_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        return await self._post_ids(wire.BATCH_QUARANTINE, chunk_ids, wire.parse_flags)

    async def quarantine_judged(self, judged: Sequence[Judged]) -> list[bool]:
        """As ChunkStore. A datanode of before this order sets aside whatever is there."""
        outcomes: list[bool] = []
        for start in range(0, len(judged), wire.BATCH_ITEMS_MAX):
            batch = judged[start : start + wire.BATCH_ITEMS_MAX]
            body = judged_wire.encode_judged(batch)
            target = judged_wire.BATCH_QUARANTINE_JUDGED
            answer = await self._http.call("POST", target, body, timeout_s=BATCH_TIMEOUT_S)
            if answer.status == 404:
                outcomes += await self.quarantine_many([chunk_id for chunk_id, _ in batch])
            else:
                outcomes += self._parsed(answer, 200, _counting(wire.parse_flags, len(batch)))
        return outcomes

    async def purge_quarantine(self, older_than_ms: int) -> int:
        return await self._post(wire.PURGE, wire.encode(older_than_ms), wire.parse_moment)

    async def inventory(self, after: ChunkId | None, limit: int) -> list[InventoryEntry]:
        """As ChunkStore, with at most INVENTORY_ENTRIES_MAX entries."""
        answer = await self._http.call("GET", wire.page_target(wire.INVENTORY, after, limit))
        return self._parsed(answer, 200, wire.parse_inventory)

    async def list_damaged(self, after: ChunkId | None, limit: int) -> list[wire.DamagedChunk]:
        """As OwnChunkStore."""
        answer = await self._http.call("GET", wire.page_target(wire.DAMAGED, after, limit))
        return self._parsed(answer, 200, wire.parse_damaged)

    async def forget_damaged(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        """As OwnChunkStore: the records do not count on these any more."""
        return await self._post_ids(wire.DAMAGED_FORGET, chunk_ids, wire.parse_flags)

    async def scrub_status(self) -> wire.ScrubStatus:
        """How far the scrub is."""
        return self._parsed(await self._http.call("GET", wire.SCRUB), 200, wire.parse_scrub_status)

    async def order_scrub(self, order: wire.ScrubOrder) -> wire.ScrubStatus:
        """Another pace, and a pass from the start if asked for; a pass that it began is in the answer."""
        return await self._post(wire.SCRUB, wire.encode(order), wire.parse_scrub_status)

    async def space(self) -> Space:
        return self._parsed(await self._http.call("GET", wire.SPACE), 200, wire.parse_space)

    async def _post(self, target: str, body: bytes, parse: Callable[[bytes], _T]) -> _T:
        answer = await self._http.call("POST", target, body, timeout_s=BATCH_TIMEOUT_S)
        return self._parsed(answer, 200, parse)

    async def _post_ids(
        self, target: str, chunk_ids: Sequence[ChunkId], parse: Callable[[bytes, int], list[_T]]
    ) -> list[_T]:
        """One outcome per chunk."""
        outcomes: list[_T] = []
        for start in range(0, len(chunk_ids), wire.BATCH_ITEMS_MAX):
            batch = chunk_ids[start : start + wire.BATCH_ITEMS_MAX]
            outcomes += await self._post(target, wire.encode_chunk_ids(batch), _counting(parse, len(batch)))
        return outcomes

    async def _put_batch(self, batch: Sequence[tuple[ChunkId, Buffer]]) -> list[ChunkReceipt | ChunkError]:
        parse = _counting(wire.parse_put_outcomes, len(batch))
        try:
            return await self._post(wire.BATCH_PUT, wire.encode_put_items(batch), parse)
        except NodeFull as error:  # a node that takes no new chunks refuses the whole batch unread
            return [error] * len(batch)

    async def _put_one(self, chunk_id: ChunkId, data: Buffer) -> ChunkReceipt | ChunkError:
        try:
            return await self.put(chunk_id, len(data), _once(data))
        except NodeUnreachable:
            raise
        except ChunkError as error:
            return error

    async def _get_one(self, chunk_id: ChunkId, offset: int, length: int) -> bytes | ChunkError | Corrupt:
        try:
            return b"".join([block async for block in self.get(chunk_id, offset, length)])
        except NodeUnreachable:
            raise
        except (ChunkError, Corrupt) as error:
            return error

    def _parsed(self, answer: Answer, status: int, parse: Callable[[bytes], _T]) -> _T:
        if answer.status != status:
            raise self._failure(answer)
        return read_answer(self.address, answer, parse)

    def _failure(self, answer: Answer) -> Exception:
        error = wire.parse_failure(answer.headers.get(wire.ERROR_HEADER, ""), answer.body)
        if isinstance(error, Unavailable):
            # A node whose medium does not answer is as good as away, for whoever chooses among nodes.
            return NodeUnreachable(f"{self.address}: {error}")
        return error if error is not None else strange(self.address, answer)


def _require_length(length: int) -> None:
    if not 0 < length <= wire.CHUNK_BYTES_MAX:
        raise ChunkError(f"a chunk has 1 to {wire.CHUNK_BYTES_MAX} bytes, not {length}")


def _count_within(spans: Sequence[tuple[ChunkId, int, int]]) -> int:
    """How many of the spans fit what one get_many gives."""
    room = BATCH_BYTES_MAX
    for count, (_, _, length) in enumerate(spans):
        room -= length
        if room < 0:
            return count
    return len(spans)


async def _once(data: Buffer) -> AsyncIterator[Buffer]:
    yield data


def _counting(parse: Callable[[bytes, int], _T], count: int) -> Callable[[bytes], _T]:
    return lambda body: parse(body, count)


def make_connect(internal_key: bytes, tls_ca: str | None) -> Callable[[Node], DatanodeClient]:
    """For who holds the internal key (gateways, the master): a client for any node of the cluster map."""

    def connect(node: Node) -> DatanodeClient:
        token = access_token(derive_node_key(internal_key, ROLE_DATANODE, node.report.node_id))
        return DatanodeClient(parse_address(node.report.address), token, tls_ca=tls_ca)

    return connect
