"""Blobs told from chunk headers: what is whole, what lacks something, and what is no chunk at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.ids import ChunkId, make_blob_id, stored_chunk_id
from storage.chunks.erasure import Striping
from storage.chunks.layout import group_name
from storage.chunks.salvage import INCOMPLETE, OPEN_ENDED, WHOLE, SalvagedBlob, plain_length, salvage_blobs
from storage.crypto.envelope import Sealer, sealed_length

CLUSTER_ID = b"c" * 16
FOOTER_BYTES = 32


def seal(blob_id: bytes, index: int, length: int) -> bytes:
    return bytes(Sealer(CLUSTER_ID, ChunkId(blob_id, index), bytes(32)).seal_whole(bytes(length)))


def store(directory: Path, blob_id: bytes, index: int, content: bytes, generation: int = 0) -> Path:
    name = str(stored_chunk_id(blob_id, index, generation))
    path = directory / "chunks" / group_name(name) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content + bytes(FOOTER_BYTES))
    return path


def salvage(directories: Iterable[Path]) -> list[SalvagedBlob]:
    found = salvage_blobs(list(directories))
    blobs = list(found.blobs)
    assert found.damaged == []
    return blobs


def blob(number: int) -> bytes:
    return make_blob_id(b"sessions", number)


@given(length=st.integers(1, 400_000))
def test_plain_lengths_come_back(length: int) -> None:
    assert plain_length(sealed_length(length)) == length


def test_replicas_are_put_together(tmp_path: Path) -> None:
    """In the order of ids, with the fewest copies of any chunk."""
    nodes = [tmp_path / name for name in ("a", "b", "c")]
    for node, lengths in zip(nodes, [(5000, 5000, 7), (5000, None, 7), (None, 5000, None)], strict=True):
        for index, length in enumerate(lengths):
            if length is not None:
                store(node, blob(1), index, seal(blob(1), index, length))
    store(nodes[2], blob(2), 0, seal(blob(2), 0, 9))
    first, second = salvage(nodes)
    assert (first.chunks, first.size_bytes, first.state, first.layout, first.copies) == (
        3,
        10_007,
        WHOLE,
        "replicas",
        2,
    )
    assert (second.blob_id, second.size_bytes, second.copies) == (blob(2), 9, 1)


def test_a_hole_and_an_open_end_are_told(tmp_path: Path) -> None:
    for index in (0, 2):
        store(tmp_path, blob(1), index, seal(blob(1), index, 500))
    for index in (0, 1):
        store(tmp_path, blob(2), index, seal(blob(2), index, 500))
    assert [it.state for it in salvage([tmp_path])] == [INCOMPLETE, OPEN_ENDED]


def test_fragments_count_by_what_they_need(tmp_path: Path) -> None:
    """Three of four bring a chunk back, two do not; another layout of the same blob is told apart."""
    nodes = [tmp_path / str(number) for number in range(4)]
    chunk = seal(blob(1), 0, 300_000)
    striping = Striping(3, 4, len(chunk))
    for number, node in enumerate(nodes):
        fragment = striping.header(chunk[:64], number) + os.urandom(100)
        store(node, blob(1), 0, fragment, generation=1)
    store(nodes[0], blob(1), 0, chunk)
    old, present = salvage(nodes)
    assert (old.generation, old.layout, old.state) == (0, "replicas", WHOLE)
    assert (present.generation, present.size_bytes, present.state, present.copies) == (1, 300_000, WHOLE, 2)
    left = salvage(nodes[1:3])
    assert [(it.state, it.size_bytes, it.copies) for it in left] == [(INCOMPLETE, 0, 0)]


@pytest.mark.parametrize("content", [b"", b"x" * 50, b"x" * 200, seal(blob(7), 0, 100)])
def test_what_is_no_such_chunk_is_told_by_its_file(tmp_path: Path, content: bytes) -> None:
    """And the others are listed all the same."""
    path = store(tmp_path, blob(1), 0, content)
    store(tmp_path, blob(2), 0, seal(blob(2), 0, 100))
    found = salvage_blobs([tmp_path])
    assert [it.blob_id for it in found.blobs] == [blob(2)]
    assert len(found.damaged) == 1
    assert path.name in found.damaged[0]
    assert str(tmp_path) in found.damaged[0]


def test_nothing_is_found_in_nothing(tmp_path: Path) -> None:
    assert salvage([tmp_path / "empty"]) == []
