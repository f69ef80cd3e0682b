"""What the pieces of a chunk make of it, and what chunks make of an object."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cluster.chunk_health import HealthTally, PieceHealth, PieceState, assess_chunk, inline_chunk
from cluster.domains import parse_levels
from cluster.maintenance.survey import Health
from cluster.redundancy import parse_redundancy
from storage.metadata.interface import ChunkPlace

GOOD, MISSING, DAMAGED, AWAY = PieceState.GOOD, PieceState.MISSING, PieceState.DAMAGED, PieceState.UNREACHABLE
REDUNDANCIES = st.sampled_from(["replica:1", "replica:2", "replica:3", "ec:1+1", "ec:2+1", "ec:4+2", "ec:3+3"])
DOMAINS = st.builds("{}/{}/{}".format, st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))


def place_of(redundancy: str, index: int = 0) -> ChunkPlace:
    """A row."""
    width = parse_redundancy(redundancy).width
    return ChunkPlace(b"b" * 16, index, 100, b"", tuple(range(1, width + 1)), redundancy, 0, False)


def pieces_of(*states: PieceState, domains: list[str] | None = None, verified_ms: int = 5) -> list[PieceHealth]:
    """One a node."""
    return [
        PieceHealth(at, at + 1, domains[at] if domains else f"z/h{at}/d", state, verified_ms if state is GOOD else 0)
        for at, state in enumerate(states)
    ]


@given(REDUNDANCIES, st.data())
def test_a_chunk_is_as_its_pieces_are(redundancy: str, data: st.DataObject) -> None:
    """Against trying every way to lose domains, and every way for silent nodes to come back."""
    needed, width, _ = parse_redundancy(redundancy)
    states = data.draw(st.lists(st.sampled_from(list(PieceState)), min_size=width, max_size=width))
    domains = data.draw(st.lists(DOMAINS, min_size=width, max_size=width))
    chunk = assess_chunk(place_of(redundancy), 0, pieces_of(*states, domains=domains))
    good = [domain for domain, state in zip(domains, states, strict=True) if state is GOOD]
    silent = states.count(AWAY)
    assert chunk.losses is not None
    is_readable = len(good) >= needed
    assert (chunk.losses.nodes >= 0) == is_readable
    assert (chunk.health in (Health.UNAVAILABLE, Health.LOST)) == (not is_readable)
    assert (chunk.health is Health.LOST) == (len(good) + silent < needed)
    assert (chunk.health is Health.HEALTHY) == (states == [GOOD] * width)
    if chunk.health is Health.DEGRADED:
        assert chunk.losses.nodes > 0
    if chunk.health is Health.ENDANGERED:
        assert chunk.losses.nodes == 0
    for depth, survived in enumerate((chunk.losses.zones, chunk.losses.hosts, chunk.losses.disks)):
        names = [parse_levels(domain)[depth] for domain in good]
        for lost in range(len(set(names)) + 1):
            ways = itertools.combinations(sorted(set(names)), lost)
            survives = all(sum(name not in way for name in names) >= needed for way in ways)
            assert survives == (lost <= survived)


def test_an_object_is_as_bad_as_its_worst_chunk() -> None:
    """Counts by what they are, the least losses, and how old the oldest look is."""
    tally = HealthTally("v1", 500)
    assert tally.health.health is Health.HEALTHY, "an object of no bytes"
    tally.add(inline_chunk(b"i" * 16, 0, 100))
    assert tally.health.blobs == {"inline": 1}
    assert tally.health.losses is None
    tally.add(assess_chunk(place_of("replica:2"), 100, pieces_of(GOOD, GOOD, verified_ms=0)))
    tally.add(assess_chunk(place_of("ec:2+1"), 200, pieces_of(GOOD, GOOD, GOOD, verified_ms=70)))
    assert tally.health.health is Health.HEALTHY
    tally.add(assess_chunk(place_of("ec:2+1", 1), 300, pieces_of(GOOD, MISSING, GOOD, verified_ms=60)))
    tally.add(assess_chunk(place_of("ec:2+1", 2), 400, pieces_of(DAMAGED, GOOD, AWAY, verified_ms=80)))
    health = tally.health
    assert (health.version_id, health.size, health.health) == ("v1", 500, Health.UNAVAILABLE)
    assert health.blobs == {"inline": 1, "replica:2": 1, "ec:2+1": 1}
    assert health.chunks == {Health.UNAVAILABLE: 1, Health.ENDANGERED: 1, Health.HEALTHY: 3}
    assert health.pieces == {GOOD: 8, MISSING: 1, DAMAGED: 1, AWAY: 1}
    assert health.losses is not None
    assert health.losses.nodes == -1
    assert (health.unverified, health.oldest_verified_ms) == (2, 60)
    tally.add(assess_chunk(place_of("replica:1"), 0, pieces_of(MISSING)))
    assert tally.health.health is Health.LOST


def test_it_can_be_told_as_json() -> None:
    """As a command that is asked for it does."""
    tally = HealthTally("v1", 100)
    tally.add(assess_chunk(place_of("replica:2"), 0, pieces_of(GOOD, DAMAGED)))
    told = msgspec.json.decode(msgspec.json.encode(tally.health._asdict()))
    assert told["health"] == "endangered"
    assert told["pieces"] == {"good": 1, "damaged": 1}
