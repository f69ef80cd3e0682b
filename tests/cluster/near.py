"""A datanode in memory whose chunks lie in a directory as well, where a gateway on the same machine may read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.base.files import DiskFiles
from storage.base.ids import ChunkId
from storage.chunks.footer import Footer, digest_of, format_footer
from storage.chunks.layout import CHUNKS, group_name
from storage.datanode.identity import store_identity
from tests.cluster.faulty import FaultyDatanode

WIRE, NEAR = "wire", "near"
AWAY = "away"
ROT_EVERY_BYTES = 1000


only_by_wire = pytest.mark.parametrize("is_near", [WIRE], indirect=True)
"""for tests of what is asked of datanodes"""


class MirroredChunks(dict[ChunkId, bytes]):
    """Each also a file. Other bytes under an id that is there are rot: the footer stays as it was."""

    def __init__(self, chunks: Path) -> None:
        super().__init__()
        self._chunks = chunks
        self._footers: dict[ChunkId, bytes] = {}

    def path(self, chunk_id: ChunkId) -> Path:
        """Its file."""
        name = str(chunk_id)
        return self._chunks / group_name(name) / name

    def write(self, chunk_id: ChunkId, data: bytes) -> None:
        """Let the file hold this before its footer, whatever the dictionary says."""
        path = self.path(chunk_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + self._footers[chunk_id])

    def __setitem__(self, chunk_id: ChunkId, data: bytes) -> None:
        super().__setitem__(chunk_id, data)
        receipt = digest_of(data)
        self._footers.setdefault(chunk_id, format_footer(Footer(receipt.length, receipt.digest, 1)))
        self.write(chunk_id, data)

    def __delitem__(self, chunk_id: ChunkId) -> None:
        super().__delitem__(chunk_id)
        self._remove(chunk_id)

    def pop(self, chunk_id: ChunkId, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
        """As of a dict."""
        if chunk_id in self:
            self._remove(chunk_id)
        return super().pop(chunk_id, default)

    def _remove(self, chunk_id: ChunkId) -> None:
        del self._footers[chunk_id]
        self.path(chunk_id).unlink()


class NearDatanode(FaultyDatanode):
    """What is wrong with it is wrong with its files."""

    _directory: Path | None = None

    def __init__(self, number: int, peers: dict[str, FaultyDatanode], failure_domain: str, directory: Path) -> None:
        super().__init__(number, peers, failure_domain)
        directory.mkdir()
        (directory / CHUNKS).mkdir()
        self._directory = directory
        self.mirrored = MirroredChunks(directory / CHUNKS)
        self.inner.chunks = self.mirrored
        report = self.node().report
        store_identity(DiskFiles(), directory, report.cluster_id, report.node_id)

    @property
    def down(self) -> bool:  # type: ignore[override]
        """The whole machine, with its disk."""
        return self._is_down

    @down.setter
    def down(self, is_down: bool) -> None:
        self._is_down = is_down
        self._move(is_away=is_down)

    @property
    def get_stalls(self) -> bool:  # type: ignore[override]
        """The same, for the process waits; and the disk gives nothing."""
        return self._is_stalled

    @get_stalls.setter
    def get_stalls(self, is_stalled: bool) -> None:
        self._is_stalled = is_stalled
        self._move(is_away=is_stalled)

    def _move(self, *, is_away: bool) -> None:
        source, target = (CHUNKS, AWAY) if is_away else (AWAY, CHUNKS)
        if self._directory is not None and (self._directory / source).exists():
            (self._directory / source).rename(self._directory / target)

    @property
    def get_corrupts(self) -> bool:  # type: ignore[override]
        """Every frame is rotten."""
        return self._is_rotten

    @get_corrupts.setter
    def get_corrupts(self, is_rotten: bool) -> None:
        self._is_rotten = is_rotten
        for chunk_id, data in self._mirror():
            rotten = bytearray(data)
            rotten[::ROT_EVERY_BYTES] = bytes(byte ^ 1 for byte in rotten[::ROT_EVERY_BYTES])
            self.mirrored.write(chunk_id, bytes(rotten) if is_rotten else data)

    @property
    def get_ends_early(self) -> bool:  # type: ignore[override]
        """The second half of every file is gone."""
        return self._is_cut

    @get_ends_early.setter
    def get_ends_early(self, is_cut: bool) -> None:
        self._is_cut = is_cut
        for chunk_id, data in self._mirror():
            self.mirrored.write(chunk_id, data)
            if is_cut:
                path = self.mirrored.path(chunk_id)
                path.write_bytes(path.read_bytes()[: len(data) // 2])

    def _mirror(self) -> list[tuple[ChunkId, bytes]]:
        return [] if self._directory is None else list(self.mirrored.items())
