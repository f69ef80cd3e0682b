"""The datanode's HTTP application: a ChunkStore behind the protocol of wire.py. Bare ASGI, as it is the hottest path.

Every request is authenticated before anything else of it is looked at. Chunk bodies are streamed both ways; what a
request may hold in memory is bounded by the constants here and in wire.py.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from storage.base.clock import Clock
from storage.base.errors import Corrupt
from storage.base.ids import ChunkId, parse_chunk_id
from storage.base.internal_auth import access_token, bearer, verify_pull_ticket
from storage.chunks.disk import DiskChunkStore
from storage.chunks.store import SPAN_BYTES_MAX, OwnChunkStore
from storage.datanode import journal_wire, judged_wire, near_wire, range_wire, wire
from storage.datanode.exchange import BadRequest, Exchange, Handler, Receive, Send
from storage.datanode.failures import name_failure
from storage.datanode.intake import Intake
from storage.datanode.journal_app import JournalRoutes
from storage.datanode.lean_appends import LeanAppends
from storage.datanode.lean_calls import DatanodeLeanCalls, LeanHandler
from storage.datanode.lean_puts import LeanPuts
from storage.datanode.peers import Peers
from storage.datanode.pull import ChunkPuller
from storage.datanode.range_app import RangeRoutes
from storage.datanode.rebuild import FragmentRebuilder
from storage.datanode.scrub_app import ScrubRoutes
from storage.datanode.scrubber import Scrubber

BATCHES_AT_ONCE_MAX = 8
PULLS_AT_ONCE_MAX = 8
REBUILDS_AT_ONCE_MAX = 4
"""each holds about a MiB for every fragment that it needs"""

UNAUTHORIZED = "Unauthorized"

_TICKET = b"Ticket "

_log = logging.getLogger(__name__)


class DatanodeApp:
    """ASGI application. node_key: of this datanode; peers: the way to others, for pulls and rebuilds; journal: the
    files of the metadata, where there are any; realm: `<cluster id>/<node id>`, told to whoever brings no token, so
    that who has the internal key and only the address can derive it. scrubber: of this store; intake: whether it takes
    new chunks; lending: the same store, if its drafts are files that others may write."""

    def __init__(
        self,
        store: OwnChunkStore,
        node_key: bytes,
        clock: Clock,
        peers: Peers,
        *,
        journal: JournalRoutes | None = None,
        realm: str = "",
        scrubber: Scrubber | None = None,
        intake: Intake | None = None,
        lending: DiskChunkStore | None = None,
    ) -> None:
        self._requests = 0
        self._store = store
        self._scrubber = scrubber or Scrubber(store, clock)
        self._intake = intake or Intake()
        self._lending = lending
        self._ranges = RangeRoutes(lending, self._intake)
        self._journal = journal
        self._challenge = f'Bearer realm="{realm}"'.encode()
        self._node_key = node_key
        self._clock = clock
        self._puller = ChunkPuller(store, peers)
        self._rebuilder = FragmentRebuilder(store, peers)
        self._authorization = bearer(access_token(node_key)).encode()
        lean: list[tuple[str, LeanHandler]] = [(wire.CHUNKS, LeanPuts(store, self._intake, self._scrubber))]
        if journal is not None:
            lean.append((f"{journal_wire.JOURNAL}/", LeanAppends(journal.append)))
        self.lean_calls = DatanodeLeanCalls(self._authorization, lean)
        """for a server that takes them past the parser"""
        self._batches = asyncio.Semaphore(BATCHES_AT_ONCE_MAX)
        self._pulls = asyncio.Semaphore(PULLS_AT_ONCE_MAX)
        self._rebuilds = asyncio.Semaphore(REBUILDS_AT_ONCE_MAX)
        self._chunk_handlers: dict[tuple[str, str], Callable[[Exchange, ChunkId], Awaitable[None]]] = {
            ("PUT", ""): self._put_chunk,
            ("GET", ""): self._get_chunk,
            ("HEAD", ""): self._stat_chunk,
            ("POST", wire.VERIFY): self._verify_chunk,
            ("POST", wire.PULL): self._pull_chunk,
            ("POST", wire.REBUILD): self._rebuild_chunk,
            ("PUT", near_wire.DRAFT): self._lend_draft,
        }
        self._handlers: dict[tuple[str, str], Handler] = {
            ("POST", wire.BATCH_PUT): self._put_batch,
            ("POST", wire.BATCH_GET): self._get_batch,
            ("POST", wire.BATCH_PULL): self._pull_batch,
            ("POST", wire.BATCH_INSPECT): self._inspect_batch,
            ("POST", wire.BATCH_DELETE): self._delete_batch,
            ("POST", wire.BATCH_QUARANTINE): self._quarantine_batch,
            ("POST", judged_wire.BATCH_QUARANTINE_JUDGED): self._quarantine_judged,
            ("POST", wire.PURGE): self._purge,
            ("GET", wire.INVENTORY): self._inventory,
            ("GET", wire.SPACE): self._space,
            **ScrubRoutes(store, self._scrubber).handlers,
        }

    @property
    def requests(self) -> int:
        """Under way."""
        return self._requests + self.lean_calls.requests

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        self._requests += 1
        try:
            await self._dispatch(exchange)
        except Exception as error:  # noqa: BLE001 - the process's edge: a defect or a failing disk costs one request
            await self._fail(exchange, *name_failure(error, f"{exchange.method} {exchange.path}"))
        finally:
            self._requests -= 1

    async def _fail(self, exchange: Exchange, status: int, name: str, message: str) -> None:
        if not exchange.started:
            await exchange.answer_failure(status, name, message)
            return
        # Returning without the rest of the body makes the server cut the connection: a short answer never looks whole.
        _log.warning("%s %s: cut off after the head: %s: %s", exchange.method, exchange.path, name, message)

    async def _dispatch(self, exchange: Exchange) -> None:
        path = exchange.path
        if path.startswith(wire.CHUNKS):
            await self._dispatch_chunk(exchange, path[len(wire.CHUNKS) :])
            return
        if not self._is_caller(exchange):
            await self._refuse(exchange)
            return
        if self._journal is not None and path.startswith(journal_wire.JOURNAL):
            await self._journal.answer(exchange)
            return
        if path.startswith(range_wire.RANGES):
            await self._ranges.lend(exchange)
            return
        handler = self._handlers.get((exchange.method, path))
        if handler is None:
            raise BadRequest(404, "no such target")
        await handler(exchange)

    async def _dispatch_chunk(self, exchange: Exchange, rest: str) -> None:
        authorized = self._is_caller(exchange)
        if not authorized and not (exchange.method == "GET" and self._has_ticket(exchange, rest)):
            await self._refuse(exchange)
            return
        text, slash, action = rest.partition("/")
        handler = self._chunk_handlers.get((exchange.method, slash + action))
        if handler is None:
            raise BadRequest(405, "no such action on a chunk")
        chunk_id = _chunk_id(text)
        try:
            await handler(exchange, chunk_id)
        except Corrupt:
            self._scrubber.suspect(chunk_id)
            raise

    def _is_caller(self, exchange: Exchange) -> bool:
        return hmac.compare_digest(exchange.headers.get(b"authorization", b""), self._authorization)

    def _has_ticket(self, exchange: Exchange, text: str) -> bool:
        """A ticket opens the reading of exactly one chunk, and nothing else."""
        header = exchange.headers.get(b"authorization", b"")
        if not header.startswith(_TICKET):
            return False
        try:
            chunk_id = parse_chunk_id(text)
        except ValueError:
            return False
        ticket = header[len(_TICKET) :].decode("latin-1")
        return verify_pull_ticket(self._node_key, chunk_id, ticket, self._clock.now_ms())

    async def _refuse(self, exchange: Exchange) -> None:
        _log.warning("%s %s: refused, no valid token", exchange.method, exchange.path[:200])
        await exchange.answer_failure(401, UNAUTHORIZED, "no valid token", ((b"www-authenticate", self._challenge),))

    # --- one chunk

    async def _put_chunk(self, exchange: Exchange, chunk_id: ChunkId) -> None:
        self._intake.require()
        try:
            length = wire.parse_content_length(exchange.header(b"content-length"))
        except ValueError as error:
            raise BadRequest(413 if b"content-length" in exchange.headers else 411, str(error)) from error
        receipt = await self._store.put(chunk_id, length, exchange.blocks())
        await exchange.answer(201, wire.encode(receipt))

    async def _lend_draft(self, exchange: Exchange, chunk_id: ChunkId) -> None:
        if self._lending is None:
            raise BadRequest(405, "no drafts are lent here")
        self._intake.require()
        try:
            loan = near_wire.parse_headers(exchange.headers)
        except ValueError as error:
            raise BadRequest(400, str(error)) from error
        async with self._lending.lend(chunk_id, *loan) as draft:
            # Reading on is what tells the other side that the draft is there.
            account = await exchange.read_parsed(near_wire.parse_account, near_wire.body_bytes(loan.length))
            receipt = await self._lending.accept(draft, account)
        await exchange.answer(201, wire.encode(receipt))

    async def _get_chunk(self, exchange: Exchange, chunk_id: ChunkId) -> None:
        asked = exchange.header(b"range")
        try:
            span = wire.parse_range(asked) if asked else None
        except ValueError as error:
            raise BadRequest(400, str(error)) from error
        wants_digest = wire.DIGEST_WANTED_HEADER.encode() in exchange.headers
        if span is not None and span.length is not None and span.length <= SPAN_BYTES_MAX and not wants_digest:
            await self._get_span(exchange, chunk_id, span.offset, span.length)
            return
        receipt = await self._store.stat(chunk_id)
        offset = span.offset if span is not None else 0
        end = receipt.length
        if span is not None and span.length is not None:
            end = min(end, offset + span.length)
        if offset >= end:
            raise BadRequest(416, f"the chunk has {receipt.length} bytes")
        headers = [(wire.DIGEST_HEADER.encode(), receipt.digest.hex().encode())]
        if span is not None:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (offset, end - 1, receipt.length)))
        blocks = self._store.get(chunk_id, offset, end - offset)
        # The first block before the head: what is wrong with the chunk is then still answered by name.
        first = await anext(blocks)
        await exchange.start(206 if span is not None else 200, end - offset, headers)
        await exchange.send_block(first)
        async for block in blocks:
            await exchange.send_block(block)
        await exchange.finish()

    async def _get_span(self, exchange: Exchange, chunk_id: ChunkId, offset: int, length: int) -> None:
        blocks = [block async for block in self._store.get(chunk_id, offset, length)]
        found = sum(map(len, blocks))
        if not found:
            raise BadRequest(416, "the range begins beyond the end of the chunk")
        await exchange.answer_bytes(206, blocks, ((b"content-range", b"bytes %d-%d/*" % (offset, offset + found - 1)),))

    async def _stat_chunk(self, exchange: Exchange, chunk_id: ChunkId) -> None:
        receipt = await self._store.stat(chunk_id)
        await exchange.start(200, receipt.length, ((wire.DIGEST_HEADER.encode(), receipt.digest.hex().encode()),))
        await exchange.finish()

    async def _verify_chunk(self, exchange: Exchange, chunk_id: ChunkId) -> None:
        await exchange.answer(200, wire.encode(await self._store.verify(chunk_id)))

    async def _pull_chunk(self, exchange: Exchange, chunk_id: ChunkId) -> None:
        self._intake.require()
        request = await exchange.read_parsed(wire.parse_pull_request, wire.SMALL_BODY_BYTES_MAX)
        async with self._pulls:
            receipt = await self._puller.pull(chunk_id, request)
        await exchange.answer(201, wire.encode(receipt))

    async def _rebuild_chunk(self, exchange: Exchange, chunk_id: ChunkId) -> None:
        self._intake.require()
        request = await exchange.read_parsed(wire.parse_rebuild_request, wire.SMALL_BODY_BYTES_MAX)
        async with self._rebuilds:
            receipt = await self._rebuilder.rebuild(chunk_id, request)
        await exchange.answer(201, wire.encode(receipt))

    # --- many chunks

    async def _put_batch(self, exchange: Exchange) -> None:
        self._intake.require()
        async with self._batches:
            items = await exchange.read_parsed(wire.parse_put_items, wire.BATCH_BODY_BYTES_MAX)
            await exchange.answer(200, wire.encode_outcomes(await self._store.put_many(items)))

    async def _get_batch(self, exchange: Exchange) -> None:
        async with self._batches:
            spans = await exchange.read_parsed(wire.parse_spans, wire.BATCH_BODY_BYTES_MAX)
            outcomes = await self._store.get_many(spans)
            for (chunk_id, _, _), outcome in zip(spans, outcomes, strict=True):
                if isinstance(outcome, Corrupt):
                    self._scrubber.suspect(chunk_id)
            await exchange.answer(200, wire.encode_outcomes(outcomes))

    async def _pull_batch(self, exchange: Exchange) -> None:
        self._intake.require()
        async with self._batches:
            pulls = await exchange.read_parsed(wire.parse_pulls, wire.BATCH_BODY_BYTES_MAX)
            await exchange.answer(200, wire.encode_outcomes(await self._puller.pull_many(pulls)))

    async def _inspect_batch(self, exchange: Exchange) -> None:
        chunk_ids = await exchange.read_parsed(wire.parse_chunk_ids, wire.BATCH_BODY_BYTES_MAX)
        await exchange.answer(200, wire.encode(await self._store.inspect_many(chunk_ids)))

    async def _delete_batch(self, exchange: Exchange) -> None:
        chunk_ids = await exchange.read_parsed(wire.parse_chunk_ids, wire.BATCH_BODY_BYTES_MAX)
        await exchange.answer(200, wire.encode(await self._store.delete_many(chunk_ids)))

    async def _quarantine_batch(self, exchange: Exchange) -> None:
        chunk_ids = await exchange.read_parsed(wire.parse_chunk_ids, wire.BATCH_BODY_BYTES_MAX)
        await exchange.answer(200, wire.encode(await self._store.quarantine_many(chunk_ids)))

    async def _quarantine_judged(self, exchange: Exchange) -> None:
        judged = await exchange.read_parsed(judged_wire.parse_judged, wire.BATCH_BODY_BYTES_MAX)
        await exchange.answer(200, wire.encode(await self._store.quarantine_judged(judged)))

    async def _purge(self, exchange: Exchange) -> None:
        older_than_ms = await exchange.read_parsed(wire.parse_moment, wire.SMALL_BODY_BYTES_MAX)
        await exchange.answer(200, wire.encode(await self._store.purge_quarantine(older_than_ms)))

    async def _inventory(self, exchange: Exchange) -> None:
        after, limit = exchange.read_query(wire.parse_page)
        await exchange.answer(200, wire.encode(await self._store.inventory(after, limit)))

    async def _space(self, exchange: Exchange) -> None:
        await exchange.answer(200, wire.encode(await self._store.space()))


def _chunk_id(text: str) -> ChunkId:
    try:
        return parse_chunk_id(text)
    except ValueError as error:
        raise BadRequest(400, str(error)) from error
