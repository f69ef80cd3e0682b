"""Plaintext of one chunk in, in blocks of any size; sealed frames out into the chunk's log, as many at once as a block
completes. Only a frame that straddles blocks is copied together; memory is reserved before a frame is sealed."""

from __future__ import annotations

from cluster.frame_log import FrameLog
from storage.crypto.envelope import FRAME_BYTES, HEADER_BYTES, TAG_BYTES, Buffer, Sealer, frame_count


class ChunkSealer:
    """For a chunk of exactly plain_length bytes, one or more. `take` until `complete`."""

    def __init__(self, sealer: Sealer, plain_length: int, log: FrameLog) -> None:
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
        """Seal what there is up to the end of the chunk; how many bytes were taken. Errors as FrameLog.reserve."""
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

    async def _seal(self, run: Buffer, final: bool) -> None:
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
