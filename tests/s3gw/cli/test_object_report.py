"""What is said of one object."""

from __future__ import annotations

import json

import pytest

from cluster.chunk_health import ChunkHealth, HealthTally, PieceHealth, PieceState, assess_chunk, inline_chunk
from cluster.maintenance.survey import Health
from s3gw.cli.health import Verdict
from s3gw.cli.object import parse_name
from s3gw.cli.object_report import VERDICTS, ObjectReport, as_document, describe_object, make_rows
from s3gw.config import ConfigError
from storage.metadata.interface import ChunkPlace

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def piece(position: int, node: int, state: PieceState = PieceState.GOOD, verified_ms: int = 0) -> PieceHealth:
    """On a host of its own."""
    return PieceHealth(position, node, f"z/h{node}/d" if node else "", state, verified_ms)


def chunk(index: int, *pieces: PieceHealth, redundancy: str = "replica:2") -> ChunkHealth:
    """8 MiB."""
    nodes = tuple(it.node for it in pieces)
    place = ChunkPlace(b"b" * 16, index, 8 << 20, b"d" * 8 * len(pieces), nodes, redundancy, 0, False)
    return assess_chunk(place, index * (8 << 20), pieces)


def report(*chunks: ChunkHealth, unlisted: int = 0, recorded_map: bool = False) -> ObjectReport:
    """All of them shown."""
    tally = HealthTally("null", sum(it.length for it in chunks))
    for it in chunks:
        tally.add(it)
    return ObjectReport("s3://b/k", tally.health, chunks, unlisted, recorded_map)


def test_a_healthy_object() -> None:
    """With when its pieces were read, and what it survives."""
    healthy = report(
        chunk(0, piece(0, 1, verified_ms=NOW_MS - 3 * DAY_MS), piece(0, 2)), chunk(1, piece(0, 2), piece(0, 3))
    )
    assert describe_object(healthy, NOW_MS) == [
        "s3://b/k, version null, 16.0 MiB: healthy",
        "2 chunks: 2 healthy (1 blob as replica:2).",
        "The weakest chunk survives the loss of 1 datanode or of 1 disk or of 1 host, whichever it is.",
        "4 pieces: 4 good.",
        "Not read from the disk since they were written: 3 of 4 good ones.",
        "Verified: the piece that was read from its disk longest ago was read 3 days ago.",
    ]


def test_an_object_that_is_not_whole() -> None:
    """Every state by its number; what is not shown is said."""
    broken = report(
        chunk(0, piece(0, 1), piece(0, 2, PieceState.DAMAGED)),
        chunk(1, piece(0, 1, PieceState.MISSING), piece(0, 2, PieceState.MISSING)),
        chunk(2, piece(0, 1, PieceState.MISSING), piece(0, 3, PieceState.UNREACHABLE)),
        unlisted=7,
        recorded_map=True,
    )
    said = describe_object(broken, NOW_MS)
    assert said[0] == "s3://b/k, version null, 24.0 MiB: lost"
    assert said[1] == "3 chunks: 1 lost, 1 unavailable, 1 endangered (1 blob as replica:2)."
    assert said[2] == "The weakest chunk cannot be read now."
    assert said[3] == "6 pieces: 1 good, 3 missing, 1 damaged, 1 unreachable."
    assert said[-2] == "The master does not answer: nodes are those that were recorded last."
    assert said[-1] == "7 chunks more: not shown."


def test_objects_in_the_metadata_and_of_no_bytes() -> None:
    """They have no pieces, and nothing is claimed of disks."""
    assert describe_object(report(inline_chunk(b"b" * 16, 0, 100)), NOW_MS) == [
        "s3://b/k, version null, 100 B: healthy",
        "1 blob in the metadata, as durable as that.",
    ]
    assert describe_object(report(), NOW_MS) == ["s3://b/k, version null, 0 B: healthy", "It has no bytes to keep."]


def test_rows_of_a_chunk() -> None:
    """One for each piece; fragments by their number."""
    good, lost = piece(0, 1, verified_ms=NOW_MS), piece(1, 0, PieceState.MISSING)
    rows = make_rows(chunk(3, good, lost, piece(2, 4), redundancy="ec:2+1"))
    assert rows == [
        ("3", "24.0 MiB", "endangered (ec:2+1)", "fragment 0", "1", "z/h1/d", "good", "2023-11-14 22:13:20Z"),
        ("", "", "", "fragment 1", "nowhere", "-", "missing", "-"),
        ("", "", "", "fragment 2", "4", "z/h4/d", "good", "never"),
    ]
    assert make_rows(inline_chunk(b"b" * 16, 0, 100)) == [
        ("0", "0 B", "healthy (inline)", "-", "metadata", "-", "-", "-")
    ]


def test_the_shape_for_programs() -> None:
    """All of it is JSON, by name."""
    document = json.loads(json.dumps(as_document(report(chunk(0, piece(0, 1), piece(0, 2))))))
    assert list(document) == [
        "object",
        "version_id",
        "size",
        "health",
        "blobs",
        "chunks",
        "pieces",
        "losses",
        "unverified",
        "oldest_verified_ms",
        "recorded_map",
        "shown_chunks",
        "unlisted_chunks",
    ]
    (shown,) = document["shown_chunks"]
    assert list(shown) == [
        "blob_id",
        "chunk_index",
        "offset",
        "length",
        "redundancy",
        "pieces",
        "losses",
        "health",
    ]
    assert shown["pieces"][0] == {
        "position": 0,
        "node": 1,
        "failure_domain": "z/h1/d",
        "state": "good",
        "verified_ms": 0,
    }
    assert (document["health"], document["losses"]["nodes"], shown["blob_id"]) == ("healthy", 1, "62" * 16)


def test_every_health_has_a_verdict() -> None:
    """For monitoring."""
    assert set(VERDICTS) == set(Health)
    assert [VERDICTS[it] for it in (Health.HEALTHY, Health.ENDANGERED, Health.UNAVAILABLE)] == [
        Verdict.WELL,
        Verdict.DEGRADED,
        Verdict.LOST,
    ]


def test_names_of_objects() -> None:
    """A key is any bytes, slashes among them."""
    assert parse_name("s3://b/k") == ("b", b"k")
    assert parse_name("s3://b//a/ä/") == ("b", "/a/ä/".encode())
    assert parse_name("s3://b/\udcff") == ("b", b"\xff")
    for name in ("", "b/k", "s3://", "s3://b", "s3://b/", "s3:///k", "S3://b/k"):
        with pytest.raises(ConfigError, match="s3://BUCKET/KEY"):
            parse_name(name)
