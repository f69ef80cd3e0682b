"""Directories of chunks: one that is not there is remembered, and never for longer than it is so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from storage.base.files import AnyPath, DiskFiles, FileStat
from storage.chunks import groups
from storage.chunks.groups import Groups
from storage.chunks.layout import group_name
from tests.storage.chunks.conformance import chunk_id

GROUP = group_name(str(chunk_id(1)))


class CountedFiles(DiskFiles):
    """Notes what is looked for; `meanwhile` happens right behind a look for a directory."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def stat(self, path: AnyPath) -> FileStat:
        self.looks.append(str(path))
        try:
            return super().stat(path)
        finally:
            if str(path).endswith(GROUP):
                self.meanwhile()


@pytest.fixture
def files() -> CountedFiles:
    return CountedFiles()


@pytest.fixture
def found(files: CountedFiles, tmp_path: Path) -> Groups:
    return Groups(files, str(tmp_path))


def test_a_directory_that_is_not_there_is_looked_for_once(files: CountedFiles, found: Groups) -> None:
    """Until one is made."""
    assert [found.find(chunk_id(n)) for n in (1, 2, 1)] == [None] * 3
    assert len(files.looks) == 2
    found.prepare(GROUP)
    Path(found.path(str(chunk_id(2)))).write_bytes(b"sealed")
    assert found.find(chunk_id(1)) is None
    stat = found.find(chunk_id(2))
    assert stat is not None and stat.size == 6


def test_a_directory_that_is_made_meanwhile_is_not_missed(files: CountedFiles, found: Groups) -> None:
    """Between the look and the memory of it."""
    files.meanwhile = lambda: found.prepare(GROUP)
    assert found.find(chunk_id(1)) is None
    Path(found.path(str(chunk_id(1)))).write_bytes(b"sealed")
    assert found.find(chunk_id(1)) is not None


def test_a_directory_that_was_removed_is_made_again(files: CountedFiles, found: Groups, tmp_path: Path) -> None:
    """Once whoever needs it has noticed."""
    found.prepare(GROUP)
    (tmp_path / GROUP).rmdir()
    assert found.find(chunk_id(1)) is None
    found.prepare(GROUP)
    assert not (tmp_path / GROUP).exists(), "it was durable once, and is not looked for each time"
    found.forget(GROUP)
    found.prepare(GROUP)
    Path(found.path(str(chunk_id(1)))).write_bytes(b"sealed")
    assert found.find(chunk_id(1)) is not None
    found.sync([chunk_id(1), chunk_id(4096)])


def test_what_is_remembered_is_bounded(found: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of either kind."""
    monkeypatch.setattr(groups, "GROUPS_REMEMBERED_MAX", 3)
    for n in range(8):
        found.find(chunk_id(4096 * n))
        found.prepare(group_name(str(chunk_id(4096 * (n + 100)))))
    assert len(found._absent) == len(found._durable) == 3
