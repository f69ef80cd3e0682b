"""What a read may see, by what clients were told before."""

from __future__ import annotations

from tests.sim.ledger import Fate, Ledger, Place

PLACE = Place("b", b"k")


def _ledger(*writes: tuple[bytes | None, float, float, Fate]) -> Ledger:
    ledger = Ledger()
    for content, begun_s, ended_s, fate in writes:
        write = ledger.begin(PLACE, "put", content, begun_s, "" if content is None else f"etag {content.decode()}")
        ledger.end(write, fate, ended_s)
    return ledger


def _sees(ledger: Ledger, content: bytes | None, begun_s: float, ended_s: float) -> bool:
    found, etag = (None, "") if content is None else (b"", f"etag {content.decode()}")
    return not ledger.find_flaw(PLACE, found, etag, begun_s, ended_s)


def test_a_read_after_a_write_sees_it() -> None:
    """And nothing older."""
    ledger = _ledger((b"a", 1, 2, Fate.DONE), (b"b", 3, 4, Fate.DONE))
    assert _sees(ledger, b"b", 5, 6)
    assert not _sees(ledger, b"a", 5, 6)
    assert not _sees(ledger, None, 5, 6)


def test_a_read_beside_a_write_sees_either() -> None:
    """What was there, or what comes."""
    ledger = _ledger((b"a", 1, 2, Fate.DONE), (b"b", 3, 5, Fate.DONE))
    assert _sees(ledger, b"a", 4, 6)
    assert _sees(ledger, b"b", 4, 6)
    assert not _sees(ledger, b"b", 2.2, 2.8), "before it was begun"


def test_an_unknown_write_may_come_at_any_later_time() -> None:
    """After others too; one that was refused never does."""
    ledger = _ledger((b"a", 1, 2, Fate.UNKNOWN), (b"b", 3, 4, Fate.DONE), (b"c", 3, 4, Fate.REFUSED))
    assert _sees(ledger, b"a", 5, 6)
    assert _sees(ledger, b"b", 5, 6)
    assert not _sees(ledger, b"c", 5, 6)


def test_a_deleted_object_does_not_come_back() -> None:
    """Unless it was put again."""
    ledger = _ledger((b"a", 1, 2, Fate.DONE), (None, 3, 4, Fate.DONE))
    assert _sees(ledger, None, 5, 6)
    assert not _sees(ledger, b"a", 5, 6)
    ledger = _ledger((b"a", 1, 2, Fate.DONE), (None, 3, 4, Fate.UNKNOWN))
    assert _sees(ledger, None, 5, 6)
    assert _sees(ledger, b"a", 5, 6)


def test_what_nobody_wrote_is_told() -> None:
    """An ETag of no write."""
    assert not _sees(_ledger((b"a", 1, 2, Fate.DONE)), b"x", 5, 6)


def test_versions_are_those_that_were_told() -> None:
    """By id; one of an unknown outcome may have any."""
    ledger = Ledger()
    told = ledger.begin(PLACE, "put", b"a", 1, "etag a")
    ledger.end(told, Fate.DONE, 2, "v1")
    lost = ledger.begin(PLACE, "put", b"b", 1, "etag b")
    ledger.end(lost, Fate.UNKNOWN, 2)
    assert not ledger.find_version_flaw(PLACE, "v1", "etag a", is_marker=False)
    assert not ledger.find_version_flaw(PLACE, "v2", "etag b", is_marker=False)
    assert ledger.find_version_flaw(PLACE, "v3", "etag a", is_marker=False)
    assert ledger.find_version_flaw(PLACE, "v4", "etag c", is_marker=False)
    assert ledger.find_version_flaw(PLACE, "v5", "", is_marker=True)
    assert list(ledger.expected_versions(PLACE)) == ["v1"]
    ledger.removed[PLACE, "v1"] = Fate.DONE
    assert ledger.find_version_flaw(PLACE, "v1", "etag a", is_marker=False)
    assert not ledger.expected_versions(PLACE)
