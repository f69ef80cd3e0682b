"""Plaintext of one chunk in, in blocks of any size; sealed frames out into the chunk's log, as many at once as a block
completes. Only a frame that straddles blocks is copied together; memory is reserved before a frame is sealed."""

from __future__ import annotations

from typing import Protocol

from storage.crypto.envelope import FRAME_BYTES, HEADER_BYTES, TAG_BYTES, Buffer, Sealer, frame_count


class SealedLog(Protocol):
    """What takes the sealed bytes of one chunk, in order: a FrameLog or a StripeLog."""

    run_frames_max: int
    """how many frames may come in one buffer"""

    async def reserve(self, size_bytes: int) -> None:
        """Wait until a block of this size may be made. Unavailable when it is of no use any more."""
        ...

    def append(self, block: Buffer) -> None:
        """Add a block that was reserved: the header, frames, or the header and frames."""
        ...

    def close(self) -> None:
        """No more blocks will come."""
        ...


class ChunkSealer:
    """For a chunk of exactly plain_length bytes, one or more. `take` until `complete`."""

    def __init__(self, sealer: Sealer, plain_length: int, log: SealedLog) -> None:
        self._sealer = sealer
        self._plain_length = plain_length
        self._log = log
        self._pending = bytearray()
        self._fed = 0
        self._next_frame = 0

    @property
    def complete(self) -> bool:
        """Whether the whole chunk was taken; the log is closed then."""
        return self._fed == self._plain_length

    async def take(self, block: memoryview) -> int:
        """Seal what there is up to the end of the chunk; how many bytes were taken. Errors as SealedLog.reserve."""
        run = block[: self._plain_length - self._fed]
        taken = len(run)
        self._fed += taken
        if self._pending:
            missing = FRAME_BYTES - len(self._pending)
            self._pending += run[:missing]
            run = run[missing:]
            last = self.complete and not run
            if len(self._pending) < FRAME_BYTES and not last:
                return taken
            frame, self._pending = self._pending, bytearray()
            await self._seal(frame, last)
        whole = len(run) if self.complete else len(run) - len(run) % FRAME_BYTES
        if whole:
            await self._seal(run[:whole], self.complete)
        self._pending += run[whole:]
        if self.complete:
            self._log.close()
        return taken

    async def _seal(self, frames: Buffer, final: bool) -> None:
        step = self._log.run_frames_max * FRAME_BYTES
        for at in range(0, len(frames), step):
            await self._seal_run(memoryview(frames)[at : at + step], final and at + step >= len(frames))

    async def _seal_run(self, run: memoryview, final: bool) -> None:
        count = frame_count(len(run))
        sealed_length = len(run) + count * TAG_BYTES
        if self._next_frame == 0:
            await self._log.reserve(HEADER_BYTES + sealed_length)
            if final:
                self._log.append(self._sealer.seal_whole(run))
                return
            self._log.append(self._sealer.header())
        else:
            await self._log.reserve(sealed_length)
        self._log.append(self._sealer.seal_frames(self._next_frame, run, final))
        self._next_frame += count
