"""What a borrower writes at once, and that it passes by the page cache."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.files import DiskFile, DiskFiles
from storage.chunks.disk import DiskChunkStore
from storage.chunks.layout import group_name, segment_name
from storage.chunks.near_drafts import NotLent
from storage.chunks.near_range import NewBody, gather_bodies
from storage.chunks.segment_format import BLOCK_BYTES, padded
from tests.storage.chunks.borrowers import borrowing, open_near
from tests.storage.chunks.conformance import chunk_id, some_bytes

ONE = chunk_id(1)

blocks_of_a_body = st.lists(st.integers(1, 3 * BLOCK_BYTES), min_size=1, max_size=3)


@given(st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 5]), blocks_of_a_body), max_size=12), st.integers(1, 5))
def test_gathered_bodies(pieces: list[tuple[int, list[int]]], memory_blocks: int) -> None:
    """Each is written once, whole, at its place, with zeros behind it; in as few writes as the memory allows, and no
    part of it is filled twice where it is enough."""
    memory = memoryview(bytearray(os.urandom(memory_blocks * BLOCK_BYTES)))
    expected: dict[int, bytes] = {}
    bodies: list[NewBody] = []
    position, runs = BLOCK_BYTES, [0]
    for gap, sizes in pieces:
        if gap:
            runs.append(0)
        position += gap * BLOCK_BYTES
        blocks = [some_bytes(size) for size in sizes]
        bodies.append(NewBody(ONE, position, blocks))
        whole = b"".join(blocks).ljust(padded(sum(sizes)), b"\0")
        expected |= {position + at: whole[at : at + BLOCK_BYTES] for at in range(0, len(whole), BLOCK_BYTES)}
        position += len(whole)
        runs[-1] += len(whole) // BLOCK_BYTES
    written: dict[int, bytes] = {}
    seen: list[tuple[memoryview, bytes]] = []
    for offset, filled in gather_bodies(bodies, memory):
        assert filled and not offset % BLOCK_BYTES and not len(filled) % BLOCK_BYTES
        for at in range(0, len(filled), BLOCK_BYTES):
            assert offset + at not in written
            written[offset + at] = bytes(filled[at : at + BLOCK_BYTES])
        seen.append((filled, bytes(filled)))
    assert written == expected
    assert len(seen) <= len([run for run in runs if run]) + sum(runs) // memory_blocks
    if sum(runs) <= memory_blocks:
        assert all(filled == then for filled, then in seen)


async def test_bodies_pass_by_the_page_cache(tmp_path: Path) -> None:
    """The first read comes from the medium."""
    store = DiskChunkStore(DiskFiles(), tmp_path, reserve_bytes=0)
    async with borrowing(store, tmp_path, ONE) as borrower:
        if not getattr(borrower.near._bodies, "is_direct", False):
            pytest.skip("the file system of the temporary directory has no O_DIRECT")
        borrower.put((ONE, some_bytes(50_000)))
        fd = os.open(tmp_path / "chunks" / segment_name(group_name(str(ONE))), os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                os.preadv(fd, [bytearray(BLOCK_BYTES)], borrower.lent.begin, os.RWF_NOWAIT)
        finally:
            os.close(fd)
    store.close()


async def test_a_segment_that_cannot_be_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lent then, and no file stays open."""
    store = DiskChunkStore(DiskFiles(), tmp_path, reserve_bytes=0)
    closed: list[DiskFile] = []
    async with store.lend_range(group_name(str(ONE)), BLOCK_BYTES) as borrowed:

        def fail(file: DiskFile) -> None:
            closed.append(file)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(DiskFile, "reopen_direct", fail)
        with pytest.raises(NotLent):
            open_near(DiskFiles(), tmp_path, group_name(str(ONE)), borrowed.lent.inode, lambda: True)
        assert closed[0].fileno() == -1
    store.close()


@pytest.mark.parametrize("is_left", [False, True])
async def test_files_that_the_kernel_may_yet_write_into(tmp_path: Path, is_left: bool) -> None:
    """Keep their numbers when the range is closed; others are let go of."""
    store = DiskChunkStore(DiskFiles(), tmp_path, reserve_bytes=0)
    async with borrowing(store, tmp_path, ONE) as borrower:
        near = borrower.near
        assert near._bodies is not None
        numbers = [near._file.fileno(), near._bodies.fileno()]
        path = os.readlink(f"/proc/self/fd/{numbers[0]}")
        if is_left:
            near.leave_open()
            near.leave_open()
    gc.collect()
    for number in numbers:
        if is_left:
            assert os.readlink(f"/proc/self/fd/{number}") == path
        else:
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(number)
    store.close()
