"""`PUT /v1/chunks/{id}` of a small chunk, past the parser: what a gateway sends most."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from storage.base.errors import Corrupt, FrostbyteError
from storage.base.ids import ChunkId, parse_chunk_id
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.chunks.store import Buffer, ChunkReceipt, OwnChunkStore, WholePut
from storage.datanode import wire
from storage.datanode.intake import Intake
from storage.datanode.scrubber import Scrubber


class LeanPuts:
    """LeanHandler of a store."""

    def __init__(self, store: OwnChunkStore, intake: Intake, scrubber: Scrubber) -> None:
        self._store = store
        self._intake = intake
        self._scrubber = scrubber

    def begin(self, target: str, length: int) -> LeanPut | None:
        """target: the id of a chunk. None for one that is streamed, and for one that is not taken."""
        if length > RECORD_BYTES_MAX:
            return None
        try:
            chunk_id = parse_chunk_id(target)
            self._intake.require()
            return LeanPut(chunk_id, self._store.begin_whole(chunk_id, length), self._scrubber)
        except (ValueError, FrostbyteError):
            return None


class LeanPut:
    """LeanWork of one chunk."""

    __slots__ = ("_chunk_id", "_put", "_scrubber")

    def __init__(self, chunk_id: ChunkId, put: WholePut, scrubber: Scrubber) -> None:
        self._chunk_id = chunk_id
        self._put = put
        self._scrubber = scrubber

    def start(self, blocks: Sequence[Buffer]) -> asyncio.Future[ChunkReceipt]:
        return self._put.store(blocks)

    def encode(self, done: asyncio.Future[ChunkReceipt]) -> tuple[int, bytes]:
        try:
            return 201, wire.encode(done.result())
        except Corrupt:
            self._scrubber.suspect(self._chunk_id)
            raise

    def close(self) -> None:
        self._put.close()
