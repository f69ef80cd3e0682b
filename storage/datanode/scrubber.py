"""The scrub at work on a datanode's own store: a pass over all chunks every so often, at a set pace.

The place of a pass is kept in a small file, stored whole now and then, so a restart goes on near it. What is lost with
the file's last moments is found by the times in the chunks' own files (storage.chunks.scrub). A damaged chunk is set
aside by the store, one rename; a process that dies before finds it again.

Chunks that a request found damaged are looked at first. Between two chunks others get their turn; a chunk that was
deleted meanwhile is passed over.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import NamedTuple

from storage.base.background import BackgroundLoop
from storage.base.clock import Clock
from storage.base.errors import ChunkError, ChunkNotFound, Corrupt
from storage.base.files import AnyPath, FileSystem, fetch_file, store_file
from storage.base.ids import ChunkId, chunk_id_from_bytes, parse_chunk_id
from storage.chunks.scrub import (
    PASS_BYTES_MAX,
    Pacer,
    ScrubPass,
    advance,
    begin_pass,
    encode_pass,
    end_pass,
    is_due,
    needs_check,
    parse_pass,
    with_totals,
)
from storage.chunks.store import InventoryEntry, OwnChunkStore
from storage.datanode.wire import ScrubOrder, ScrubStatus

SCRUB_FILE = "scrub.json"
PACE_DEFAULT = 16 << 20
INTERVAL_DEFAULT_S = 7 * 86400.0
SAVE_INTERVAL_S = 30.0
LOOK_INTERVAL_S = 60.0
"""how often it is asked whether a pass is due"""
ENTRIES_AT_ONCE = 256
SUSPECTS_MAX = 1024
PAUSE_MIN_S = 0.005
"""shorter ones are saved up"""

_log = logging.getLogger(__name__)


class ScrubFile:
    """Where the place of a pass is kept. Blocking."""

    def __init__(self, files: FileSystem, path: AnyPath) -> None:
        self._files = files
        self._path = path

    def load(self) -> ScrubPass:
        """As stored last; a file that is not there or damaged says that there was no pass. OSError."""
        try:
            return parse_pass(fetch_file(self._files, self._path, PASS_BYTES_MAX))
        except (FileNotFoundError, ValueError):
            return ScrubPass()

    def save(self, scrub: ScrubPass) -> None:
        """Durably. OSError."""
        store_file(self._files, self._path, encode_pass(scrub))


class ScrubSettings(NamedTuple):
    """pace: bytes per second. interval_s: between the begins of two passes."""

    pace: int = PACE_DEFAULT
    interval_s: float = INTERVAL_DEFAULT_S


class Scrubber:
    """One per store. Without a file a restart begins with a new pass. Used on one event loop."""

    def __init__(
        self,
        store: OwnChunkStore,
        clock: Clock,
        settings: ScrubSettings = ScrubSettings(),  # noqa: B008 - immutable
        file: ScrubFile | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._file = file
        self._pacer = Pacer(settings.pace)
        self._pass = ScrubPass()
        self._begun = 0
        """passes of this process; whoever waited looks whether it is still the same one"""
        self._saved_s = 0.0
        self._suspects: dict[ChunkId, None] = {}
        self._nudge = asyncio.Event()
        self._is_loaded = self._is_counted = False
        self._loop = BackgroundLoop("scrub", min(LOOK_INTERVAL_S, settings.interval_s), self.run, clock=clock)

    def start(self) -> None:
        """Begin on the running event loop."""
        self._loop.start()

    async def close(self) -> None:
        """Stop, and keep the place."""
        await self._loop.stop()
        if self._is_loaded:
            await self._save()

    @property
    def status(self) -> ScrubStatus:
        """Now."""
        now = self._pass
        return ScrubStatus(
            pass_started_ms=now.started_ms,
            pass_ended_ms=now.ended_ms,
            is_running=now.is_running,
            checked_chunks=now.checked_chunks,
            checked_bytes=now.checked_bytes,
            total_chunks=now.total_chunks,
            total_bytes=now.total_bytes,
            damaged=now.damaged,
            pace_bytes_per_s=self._pacer.pace,
        )

    async def order(self, order: ScrubOrder) -> ScrubStatus:
        """Another pace, and a pass from the start if asked for."""
        await self._load()
        self._pacer.change(order.pace_bytes_per_s or self._settings.pace)
        if order.begin:
            self._begin()
        self._wake()
        return self.status

    def suspect(self, chunk_id: ChunkId) -> None:
        """Somebody found this chunk damaged: look at it soon. Beyond SUSPECTS_MAX the next pass will find it."""
        if len(self._suspects) < SUSPECTS_MAX:
            self._suspects[chunk_id] = None
            self._wake()

    async def run(self) -> None:
        """Everything that is due, until nothing is."""
        await self._load()
        while True:
            await self._check_suspects()
            if not self._pass.is_running and not self._begin_if_due():
                break
            if not self._is_counted:
                await self._count()
            await self._check_page()
        if not self._is_counted:
            await self._count()

    def _wake(self) -> None:
        self._nudge.set()
        self._loop.wake()

    async def _load(self) -> None:
        if not self._is_loaded and self._file is not None:
            found = await asyncio.to_thread(self._file.load)
            self._pass = self._pass if self._is_loaded else found  # another call was quicker
        self._is_loaded = True

    def _begin_if_due(self) -> bool:
        due = is_due(self._pass, round(self._settings.interval_s * 1000), self._clock.now_ms())
        if due:
            self._begin()
        return due

    def _begin(self) -> None:
        self._pass = begin_pass(self._pass, self._clock.now_ms())
        self._begun += 1
        self._is_counted = False

    async def _count(self) -> None:
        """At a start, at the begin of a pass, and at its end."""
        self._is_counted = True
        begun = self._begun
        figures = await self._store.count()
        if self._begun == begun and not self._pass.position:
            self._pass = with_totals(self._pass, figures)
            await self._save()

    async def _check_page(self) -> None:
        begun = self._begun
        after = parse_chunk_id(self._pass.position) if self._pass.position else None
        page = await self._store.inventory(after, ENTRIES_AT_ONCE)
        if not page and self._begun == begun:
            await self._end()
        for entry in page:
            if self._begun != begun:
                return
            await self._check_entry(entry, begun)
            await self._check_suspects()

    async def _check_entry(self, entry: InventoryEntry, begun: int) -> None:
        """ChunkError, Corrupt: nothing can be said of it. The pass goes on behind it all the same."""
        if not needs_check(self._pass, entry, self._clock.now_ms()):
            self._advance(entry, begun)
            return
        began_s = self._clock.monotonic_s()
        try:
            is_right = await self._check(chunk_id_from_bytes(entry.chunk_id))
        except (ChunkError, Corrupt):
            self._advance(entry, begun)
            raise
        self._advance(entry, begun, is_damaged=not is_right)
        if self._clock.monotonic_s() - self._saved_s >= SAVE_INTERVAL_S:
            await self._save()
        await self._pause(entry.length, began_s)

    def _advance(self, entry: InventoryEntry, begun: int, *, is_damaged: bool = False) -> None:
        if self._begun == begun:
            self._pass = advance(self._pass, entry, is_damaged=is_damaged)

    async def _check_suspects(self) -> None:
        while self._suspects:
            chunk_id = next(iter(self._suspects))
            del self._suspects[chunk_id]
            began_s = self._clock.monotonic_s()
            [state] = await self._store.inspect_many([chunk_id])
            await self._check(chunk_id)
            await self._pause(state.length if state else 0, began_s)

    async def _check(self, chunk_id: ChunkId) -> bool:
        """False when it was damaged. One that is not there any more was not."""
        try:
            return await self._store.check(chunk_id)
        except ChunkNotFound:
            return True

    async def _pause(self, length: int, began_s: float) -> None:
        """After a read; an order or a suspect ends it."""
        pause_s = self._pacer.charge(length, began_s, self._clock.monotonic_s())
        if pause_s < PAUSE_MIN_S:
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._nudge.wait()
        self._nudge.clear()

    async def _end(self) -> None:
        self._pass = end_pass(self._pass, self._clock.now_ms())
        self._is_counted = False
        await self._save()
        _log.info("scrubbed %d chunks, %d damaged", self._pass.checked_chunks, self._pass.damaged)

    async def _save(self) -> None:
        self._saved_s = self._clock.monotonic_s()
        if self._file is not None:
            try:
                await asyncio.to_thread(self._file.save, self._pass)
            except OSError as error:  # of no consequence but that a restart reads more again
                _log.warning("the scrub's place cannot be kept: %s", error)
