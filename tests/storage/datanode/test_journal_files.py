"""The journal's files on a datanode: what is refused, and what the power may take before every single step."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from storage.base.errors import JournalConflict, JournalError, JournalFenced, JournalFileNotFound, NodeFull
from storage.base.files import store_file
from storage.datanode.journal_files import JournalFiles, list_journal
from storage.datanode.journal_wire import NO_OWNER, JournalFile, segment_name, snapshot_name
from tests.storage.crash_files import CrashFiles, PowerCut

DIRECTORY = "/data/node"
ROOT = f"{DIRECTORY}/journal"
SEEDS = range(6)


def owner(number: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(8)


FIRST, SECOND, THIRD = owner(1), owner(2), owner(3)
SEGMENT, OTHER = segment_name(FIRST), segment_name(SECOND)
PIECE, MANIFEST = snapshot_name(FIRST, 0), snapshot_name(FIRST)


@pytest.fixture
def files() -> CrashFiles:
    return CrashFiles()


@pytest.fixture
def journal(files: CrashFiles) -> Iterator[JournalFiles]:
    journal = JournalFiles(files, DIRECTORY, 0)
    yield journal
    journal.close()


def test_what_was_put_and_appended_is_read_again(journal: JournalFiles) -> None:
    """By ranges, and listed with its length."""
    assert journal.list() == (NO_OWNER, [])
    assert journal.put(FIRST, SEGMENT, b"header") == 6
    assert journal.append(FIRST, SEGMENT, 6, b"record") == 12
    assert journal.append(FIRST, SEGMENT, 12, b"!") == 13
    assert journal.put(FIRST, MANIFEST, b"m") == 1
    assert journal.list() == (FIRST, [JournalFile(SEGMENT, 13), JournalFile(MANIFEST, 1)])
    assert journal.read(SEGMENT, 0, 100) == b"headerrecord!"
    assert journal.read(SEGMENT, 6, 6) == b"record"
    assert journal.read(SEGMENT, 13, 6) == b""
    assert journal.delete(FIRST, SEGMENT) is True
    assert journal.delete(FIRST, SEGMENT) is False
    with pytest.raises(JournalFileNotFound):
        journal.read(SEGMENT, 0, 1)
    with pytest.raises(JournalFileNotFound):
        journal.append(FIRST, SEGMENT, 13, b"x")


def test_an_append_goes_to_the_end_that_its_writer_knows(journal: JournalFiles) -> None:
    """Or is refused; one that was sent again finds its bytes there."""
    journal.put(FIRST, SEGMENT, b"header")
    journal.append(FIRST, SEGMENT, 6, b"record")
    assert journal.append(FIRST, SEGMENT, 6, b"record") == 12
    for offset, data in ((6, b"others"), (5, b"x"), (13, b"x"), (0, b"headerrecord?")):
        with pytest.raises(JournalConflict):
            journal.append(FIRST, SEGMENT, offset, data)
    assert journal.read(SEGMENT, 0, 100) == b"headerrecord"


def test_a_file_is_put_once(journal: JournalFiles) -> None:
    """Sent again it is no conflict; other bytes are, and longer ones as well."""
    journal.put(FIRST, PIECE, b"piece")
    assert journal.put(FIRST, PIECE, b"piece") == 5
    for data in (b"other", b"piece!", b"piec"):
        with pytest.raises(JournalConflict):
            journal.put(FIRST, PIECE, data)
    assert journal.read(PIECE, 0, 100) == b"piece"


def test_who_is_below_the_fence_changes_nothing(files: CrashFiles, journal: JournalFiles) -> None:
    """Not now and not after a restart; reading is free."""
    journal.put(FIRST, SEGMENT, b"header")
    journal.admit(SECOND)
    refused: list[Callable[[], object]] = [
        lambda: journal.admit(FIRST),
        lambda: journal.append(FIRST, SEGMENT, 6, b"late"),
        lambda: journal.put(FIRST, PIECE, b"late"),
        lambda: journal.delete(FIRST, SEGMENT),
    ]
    for late in refused:
        with pytest.raises(JournalFenced):
            late()
    again = JournalFiles(files, DIRECTORY, 0)
    assert again.list() == (SECOND, [JournalFile(SEGMENT, 6)])
    with pytest.raises(JournalFenced):
        again.append(FIRST, SEGMENT, 6, b"late")
    assert again.append(THIRD, SEGMENT, 6, b"!") == 7
    assert again.fence == THIRD


def test_a_fence_that_cannot_be_read_is_not_taken_for_none(files: CrashFiles, journal: JournalFiles) -> None:
    """An owner that is over would be let in again."""
    store_file(files, f"{ROOT}/fence", b"damaged")
    with pytest.raises(JournalError, match="damaged"):
        JournalFiles(files, DIRECTORY, 0)


@pytest.mark.parametrize("name", ["fence", "../fence", "segment-", f"{SEGMENT}x", f"{PIECE}0", "segment-" + "G" * 32])
def test_no_other_name_is_touched(journal: JournalFiles, name: str) -> None:
    """Whatever is asked of it."""
    for call in (
        lambda: journal.read(name, 0, 1),
        lambda: journal.put(FIRST, name, b"x"),
        lambda: journal.append(FIRST, name, 0, b"x"),
        lambda: journal.delete(FIRST, name),
    ):
        with pytest.raises(JournalError):
            call()


@pytest.mark.parametrize("step", ["write", "fdatasync"])
def test_a_file_takes_nothing_after_a_failed_write_or_sync(files: CrashFiles, journal: JournalFiles, step: str) -> None:
    """It is not known what a later sync would make durable."""
    journal.put(FIRST, SEGMENT, b"header")
    ahead = 0 if step == "write" else 1
    files.fail_before(files.steps + ahead, OSError(errno.EIO, "broken"))
    with pytest.raises(JournalError):
        journal.append(FIRST, SEGMENT, 6, b"record")
    with pytest.raises(JournalError):
        journal.append(FIRST, SEGMENT, 6, b"record")
    journal.put(FIRST, OTHER, b"header")
    assert journal.append(FIRST, OTHER, 6, b"record") == 12


def test_the_journal_uses_half_of_the_reserve(files: CrashFiles) -> None:
    """When chunks are refused already; a full medium is told as such."""
    files.capacity_bytes = 10_000
    journal = JournalFiles(files, DIRECTORY, reserve_bytes=4_000)
    journal.put(FIRST, PIECE, bytes(7_900))
    with pytest.raises(NodeFull):
        journal.put(FIRST, SEGMENT, bytes(200))
    journal.put(FIRST, SEGMENT, bytes(50))
    with pytest.raises(NodeFull):
        journal.append(FIRST, SEGMENT, 50, bytes(200))
    assert journal.delete(FIRST, PIECE)
    assert journal.append(FIRST, SEGMENT, 50, bytes(200)) == 250


class Ledger:
    """What was answered for. What was only begun is in none of these."""

    def __init__(self) -> None:
        self.fence = NO_OWNER
        self.whole: dict[str, bytes] = {}
        self.appended: dict[str, bytes] = {}
        self.gone: set[str] = set()


def _script(ledger: Ledger) -> list[Callable[[JournalFiles], None]]:
    def put(name: str, data: bytes, by: bytes = FIRST) -> Callable[[JournalFiles], None]:
        def step(journal: JournalFiles) -> None:
            ledger.gone.discard(name)
            journal.put(by, name, data)
            ledger.fence = max(ledger.fence, by)
            if name.startswith("segment"):
                ledger.appended[name] = data
            else:
                ledger.whole[name] = data

        return step

    def append(name: str, data: bytes, by: bytes = FIRST) -> Callable[[JournalFiles], None]:
        def step(journal: JournalFiles) -> None:
            journal.append(by, name, len(ledger.appended[name]), data)
            ledger.appended[name] += data

        return step

    def delete(name: str, by: bytes) -> Callable[[JournalFiles], None]:
        def step(journal: JournalFiles) -> None:
            ledger.whole.pop(name, None)
            ledger.appended.pop(name, None)
            journal.delete(by, name)
            ledger.gone.add(name)

        return step

    def fence(by: bytes) -> Callable[[JournalFiles], None]:
        def step(journal: JournalFiles) -> None:
            journal.admit(by)
            ledger.fence = by

        return step

    return [
        put(SEGMENT, b"header" * 100),
        append(SEGMENT, b"first record" * 200),
        put(PIECE, b"piece" * 1000),
        put(MANIFEST, b"manifest"),
        append(SEGMENT, b"second record" * 90),
        fence(SECOND),
        put(OTHER, b"other header", SECOND),
        append(OTHER, b"other record", SECOND),
        delete(SEGMENT, SECOND),
        delete(PIECE, SECOND),
        put(PIECE, b"again", SECOND),
        append(OTHER, b"last record", SECOND),
    ]


def _check(files: CrashFiles, ledger: Ledger, every_put: dict[str, set[bytes]]) -> None:
    journal = JournalFiles(files, DIRECTORY, 0)
    assert journal.fence >= ledger.fence
    held = {name: journal.read(name, 0, length) if length else b"" for name, length in journal.list().files}
    for name, data in ledger.whole.items():
        assert held[name] == data
    for name, data in ledger.appended.items():
        assert held[name].startswith(data)
    for name, data in held.items():
        assert name not in ledger.gone
        if name.startswith("snapshot"):
            assert data in every_put[name], "a part of a file that was put"
    assert all(not name.endswith(".tmp") for name in files.list_directory(ROOT))
    assert len(list(files.list_directory(ROOT))) == len(list_journal(files, ROOT)) + (journal.fence != NO_OWNER)


@pytest.mark.parametrize("kind", ["durable", "names", *SEEDS])
def test_the_power_goes_before_every_step(kind: str | int) -> None:
    """What was answered for is there; what was put is whole; the fence never falls."""
    every_put = {PIECE: {b"piece" * 1000, b"again"}, MANIFEST: {b"manifest"}}
    complete = CrashFiles()
    whole_run = Ledger()
    journal = JournalFiles(complete, DIRECTORY, 0)
    for step in _script(whole_run):
        step(journal)
    for cut in range(complete.steps + 1):
        files, ledger = CrashFiles(), Ledger()
        files.cut_before(cut)
        try:
            journal = JournalFiles(files, DIRECTORY, 0)
            for step in _script(ledger):
                step(journal)
        except PowerCut:
            pass
        if kind == "durable":
            left = files.survivors()
        elif kind == "names":
            left = files.survivors(names=True)
        else:
            left = files.survivors(seed=int(kind) * 1000 + cut)
        _check(left, ledger, every_put)
