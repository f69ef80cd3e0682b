"""A chunk written into somebody else's directory: what is written is what the receipt says, whatever way it comes."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from storage.base.direct_file import BUFFER_BYTES, AlignedBuffers, DirectFile
from storage.base.errors import ChunkError, ChunkTruncated, NodeFull
from storage.base.files import DiskFiles
from storage.chunks.disk import DiskChunkStore
from storage.chunks.footer import digest_of
from storage.chunks.layout import TEMPORARY
from storage.chunks.near_drafts import WRITE_BYTES, NearDrafts, NotLent
from storage.chunks.store import Buffer
from tests.storage.chunks.conformance import chunk_id, cut, pieces, read, some_bytes

TOKEN = "ab" * 16
OF = chunk_id(7)


class Subject:
    """An owner and a writer of one directory."""

    def __init__(self, directory: Path) -> None:
        self.store = DiskChunkStore(DiskFiles(), directory, reserve_bytes=0)
        self.buffers = AlignedBuffers()
        self.drafts = NearDrafts(directory, self.buffers)
        self.temporary = directory / TEMPORARY

    async def put(self, data: bytes, body: AsyncIterator[Buffer]) -> None:
        """All the steps of both, in one process."""
        async with self.store.lend(OF, TOKEN, len(data)) as draft:
            receipt = await self.drafts.fill(OF, TOKEN, len(data), body)
            assert receipt == digest_of(data)
            assert await self.store.accept(draft, receipt) == receipt

    def leftovers(self) -> list[str]:
        """In tmp/."""
        return os.listdir(self.temporary)


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    """Over an empty directory."""
    made = Subject(tmp_path)
    yield made
    made.drafts.close()
    made.store.close()


def open_paths() -> list[str]:
    """Of this process."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return found


@pytest.mark.parametrize("size", [1, 4095, 4096, 65_616, WRITE_BYTES, BUFFER_BYTES + 1, 8 * 65_552 * 16 + 64])
@pytest.mark.parametrize("block_bytes", [1000, 65_552, BUFFER_BYTES * 3])
async def test_what_is_written_is_stored(subject: Subject, size: int, block_bytes: int) -> None:
    """Whole, verified from the medium, with nothing left in tmp/."""
    data = some_bytes(size)
    await subject.put(data, cut(data, block_bytes))
    assert await subject.store.verify(OF) == digest_of(data)
    assert await read(subject.store, OF) == data
    assert subject.leftovers() == []


async def test_through_the_page_cache(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no other way."""
    opened = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no O_DIRECT")
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    data = some_bytes(3_000_001)
    await subject.put(data, cut(data, 65_552))
    assert await subject.store.verify(OF) == digest_of(data)


async def test_without_a_draft_the_body_is_not_touched(subject: Subject) -> None:
    """Whoever has it can send it."""
    asked: list[bool] = []

    async def body() -> AsyncIterator[Buffer]:
        asked.append(True)
        yield b""

    with pytest.raises(NotLent):
        await subject.drafts.fill(OF, TOKEN, 5, body())
    assert not asked
    assert subject.leftovers() == []


@pytest.mark.parametrize("came", [0, 5, 2_000_000, 4_000_000])
async def test_another_length_is_noticed(subject: Subject, came: int) -> None:
    """By the writer; the owner's context removes the draft."""
    with pytest.raises(ChunkTruncated):
        await subject.put(bytes(3_000_000), cut(bytes(came), 65_552))
    assert subject.leftovers() == []


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, NodeFull), (errno.EIO, ChunkError)])
async def test_a_medium_that_fails(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[ChunkError]
) -> None:
    """Nothing is stored."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(DirectFile, "pwrite", fail)
    with pytest.raises(kind):
        await subject.put(bytes(3_000_000), cut(bytes(3_000_000), 65_552))
    assert subject.leftovers() == []
    assert await subject.store.inventory(None, 10) == []


async def test_given_up_while_a_thread_writes(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the thread, nothing is stored, and what it writes late lands in no other file."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    write = DirectFile.pwrite

    def hang(file: DirectFile, data: memoryview, offset: int) -> None:
        begun.set()
        assert go_on.wait(60)
        write(file, data, offset)
        ended.set()

    monkeypatch.setattr(DirectFile, "pwrite", hang)
    data = some_bytes(2_000_000)
    putting = asyncio.create_task(subject.put(data, cut(data, 65_552)))
    assert await asyncio.to_thread(begun.wait, 60)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert subject.leftovers() == []
    monkeypatch.setattr(DirectFile, "pwrite", write)
    other = some_bytes(2_000_000, seed=2)
    await subject.put(other, cut(other, 65_552))
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 60)
    assert await subject.store.verify(OF) == digest_of(other)


async def test_given_up_while_a_block_is_waited_for(subject: Subject) -> None:
    """The file is closed without a collection of garbage, whatever still refers to the call: its room is free."""
    waiting = asyncio.Event()

    async def body() -> AsyncIterator[Buffer]:
        yield bytes(100_000)
        waiting.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(subject.put(bytes(2_000_000), body()))
    await waiting.wait()
    gc.disable()
    try:
        putting.cancel()
        await asyncio.wait((putting,))
        async with asyncio.timeout(60):
            while any(path.startswith(str(subject.temporary)) for path in open_paths()):
                await asyncio.sleep(0.001)  # the thread that opened it may still hold it
    finally:
        gc.enable()
    assert putting.cancelled()


async def test_slow_blocks_hold_little(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a batch gathered and one being written: the next block is not asked for before there is room."""
    data = some_bytes(20 * 65_552)
    held: list[int] = []
    running = threading.Semaphore(0)

    async def body() -> AsyncIterator[Buffer]:
        for at in range(0, len(data), 65_552):
            held.append(at)
            yield data[at : at + 65_552]

    write = DirectFile.pwrite

    def wait(file: DirectFile, block: memoryview, offset: int) -> None:
        assert running.acquire(timeout=60)
        write(file, block, offset)

    monkeypatch.setattr(DirectFile, "pwrite", wait)
    putting = asyncio.create_task(subject.put(data, body()))
    for _ in range(50):
        await asyncio.sleep(0.005)
    assert held[-1] <= 2 * (WRITE_BYTES + 65_552)
    running.release(1000)
    await putting


async def test_the_owner_removes_what_was_not_accepted(subject: Subject) -> None:
    """The context is what keeps a draft."""
    async with subject.store.lend(OF, TOKEN, 2_000_000):
        assert subject.leftovers() == [f"{OF}.{TOKEN}"]
    assert subject.leftovers() == []


async def test_two_drafts_of_one_token(subject: Subject) -> None:
    """The second is refused, and the first stays whole."""
    data = some_bytes(100_000)
    async with subject.store.lend(OF, TOKEN, len(data)) as draft:
        with pytest.raises(ChunkError):
            async with subject.store.lend(OF, TOKEN, len(data)):
                pass
        receipt = await subject.drafts.fill(OF, TOKEN, len(data), pieces([data]))
        await subject.store.accept(draft, receipt)
    assert await read(subject.store, OF) == data


async def test_an_account_of_another_length(subject: Subject) -> None:
    """What the writer says it wrote is not what was lent for."""
    async with subject.store.lend(OF, TOKEN, 1000) as draft:
        with pytest.raises(ChunkTruncated):
            await subject.store.accept(draft, digest_of(bytes(999)))
    assert subject.leftovers() == []
    assert await subject.store.inventory(None, 10) == []
