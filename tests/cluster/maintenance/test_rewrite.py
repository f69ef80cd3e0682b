"""What is laid out anew, under which generation, from which pieces; and when a bucket is looked through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.rewrite import (
    LOOK_AGAIN_S,
    TERM_CLASSES,
    TRY_AGAIN_S,
    Attempts,
    Looks,
    choose_sources,
    is_exhausted,
)
from cluster.redundancy import Redundancy, choose_for_size, parse_redundancy
from storage.base.errors import Corrupt
from storage.base.ids import BLOB_CHUNKS_MAX, GENERATION_MAX, split_stored_index, stored_chunk_id
from storage.metadata.commands import REDUNDANCY_SETTING, REWRITE_SETTING
from storage.metadata.interface import ChunkPlace
from storage.model import Blob, Bucket

CODED, COPIED = parse_redundancy("ec:4+2"), parse_redundancy("replica:2")
MIB = 1 << 20


def blob_in(redundancy: str, size: int = MIB, generation: int = 0, number: int = 1) -> Blob:
    """Without rows, as a bucket's blobs are listed."""
    return Blob(number.to_bytes(16, "big"), size, "bk", 1, redundancy, generation=generation)


def bucket_with(**settings: bytes) -> Bucket:
    """Number 7."""
    return Bucket(7, "films", "o" * 64, "us-east-1", 0, "bk", settings=settings)


@given(
    size=st.integers(1, 64 * MIB),
    policy=st.sampled_from(["replica:1", "replica:3", "ec:2+1", "ec:4+2", "ec:24+8"]).map(parse_redundancy),
    redundancy=st.sampled_from(["replica:1", "replica:2", "replica:3", "ec:2+1", "ec:4+2", "replica:9"]),
)
def test_a_blob_is_laid_out_as_it_would_be_written(size: int, policy: Redundancy, redundancy: str) -> None:
    """And left alone when it is so already."""
    plan = Attempts().plan(blob_in(redundancy, size), policy, term=3)
    wanted = choose_for_size(policy, size)
    if plan is None:
        assert str(wanted) == redundancy
    else:
        assert plan.redundancy == wanted != parse_redundancy(redundancy)


def test_what_lives_in_the_metadata_stays_there() -> None:
    """It has no pieces."""
    inline = Blob(bytes(16), 100, "bk", 1, "inline", (), b"sealed")
    assert Attempts().plan(inline, COPIED, term=1) is None


@given(generation=st.integers(0, 30_000), terms=st.lists(st.integers(0, 10**12), min_size=1, max_size=6))
def test_no_two_attempts_have_the_same_generation(generation: int, terms: list[int]) -> None:
    """Of one master, nor of masters with different terms, as long as they are not very far apart."""
    terms = list({term % TERM_CLASSES: term for term in terms}.values())
    used: set[int] = set()
    blob = blob_in("replica:2", generation=generation)
    for term in terms:
        attempts = Attempts()
        for _ in range(5):
            plan = attempts.plan(blob, CODED, term)
            assert plan is not None
            assert plan.generation > generation
            assert plan.generation not in used
            assert plan.generation % TERM_CLASSES == term % TERM_CLASSES
            used.add(plan.generation)
            attempts.note(plan)
    assert max(used) <= generation + 5 * TERM_CLASSES + TERM_CLASSES


def test_generations_come_to_an_end() -> None:
    """Some 500 layouts later, and then the blob stays as it is."""
    plan = Attempts().plan(blob_in("replica:2", generation=GENERATION_MAX), CODED, term=5)
    assert plan is not None
    assert is_exhausted(plan)
    last = Attempts().plan(blob_in("replica:2", generation=GENERATION_MAX - 1), CODED, term=TERM_CLASSES - 1)
    assert last is not None
    assert (last.generation, is_exhausted(last)) == (GENERATION_MAX, False)
    stored = stored_chunk_id(bytes(16), BLOB_CHUNKS_MAX - 1, GENERATION_MAX)
    assert split_stored_index(stored.chunk_index) == (GENERATION_MAX, BLOB_CHUNKS_MAX - 1)
    assert len(stored.to_bytes()) == 20


def test_attempts_are_remembered_within_a_bound() -> None:
    """The oldest go first."""
    attempts = Attempts(tried_max=2)
    plans = [attempts.plan(blob_in("replica:2", number=number), CODED, term=0) for number in (1, 2, 3)]
    for plan in plans:
        assert plan is not None
        attempts.note(plan)
    again = [attempts.plan(blob_in("replica:2", number=number), CODED, term=0) for number in (1, 2, 3)]
    assert [plan.generation for plan in again if plan] == [64, 128, 128]


# ------------------------------------------------------------------ sources


def place_on(redundancy: str, *nodes: int) -> ChunkPlace:
    """A chunk's row."""
    return ChunkPlace(bytes(16), 0, MIB, bytes(8 * len(nodes)), nodes, redundancy, 0, False)


def test_one_replica_is_read() -> None:
    """One that is in no doubt, if there is one."""
    place = place_on("replica:3", 4, 5, 6)
    assert choose_sources(place, (), ()) == {0: 4}
    assert choose_sources(place, (), (4,)) == {0: 5}
    assert choose_sources(place, (5, 6), (4,)) == {0: 4}
    assert choose_sources(place, (4, 5, 6), ()) is None


def test_fragments_with_frames_are_read_before_parity() -> None:
    """Doubtful ones last, failed and missing ones never."""
    place = place_on("ec:2+2", 4, 5, 6, 7)
    assert choose_sources(place, (), ()) == {0: 4, 1: 5}
    assert choose_sources(place, (), (4,)) == {1: 5, 2: 6}
    assert choose_sources(place, (5,), (4, 6)) == {3: 7, 0: 4}
    assert choose_sources(place, (5, 6), (4, 7)) == {0: 4, 3: 7}
    assert choose_sources(place_on("ec:2+2", 0, 5, 0, 7), (), ()) == {1: 5, 3: 7}
    assert choose_sources(place_on("ec:2+2", 0, 5, 0, 7), (7,), ()) is None


# ------------------------------------------------------------------ looks


def test_a_bucket_is_looked_through_when_its_redundancy_changes() -> None:
    """Its own, or the cluster's where it has none; and each now and then."""
    looks = Looks()
    plain = bucket_with()
    assert looks.is_due(plain, COPIED, 0)
    looks.note(plain, COPIED, 100, failed=0, rewritten=0)
    assert not looks.is_due(plain, COPIED, 100)
    assert looks.is_due(plain, CODED, 100)
    assert looks.is_due(bucket_with(**{REDUNDANCY_SETTING: b"ec:4+2"}), COPIED, 100)
    assert not looks.is_due(bucket_with(**{REDUNDANCY_SETTING: b"replica:2"}), CODED, 100)
    assert not looks.is_due(plain, COPIED, 100 + LOOK_AGAIN_S - 1)
    assert looks.is_due(plain, COPIED, 100 + LOOK_AGAIN_S)
    looks.note(plain, COPIED, 100, failed=0, rewritten=9)
    assert looks.is_due(plain, COPIED, 100 + TRY_AGAIN_S), "until nothing more is found"
    assert not looks.is_due(plain, COPIED, 100)
    looks.forget()
    assert looks.is_due(plain, COPIED, 100)


def test_a_look_with_failures_is_repeated_sooner() -> None:
    """Not at once, and less and less often while nothing comes of it."""
    looks = Looks()
    now_s, rests = 100.0, []
    for rewritten in (5, 0, 0, 0, 1, *(0 for _ in range(20))):
        looks.note(bucket_with(), COPIED, now_s, failed=3, rewritten=rewritten)
        rest_s = next(it for it in range(1, 10_000) if looks.is_due(bucket_with(), COPIED, now_s + it))
        rests.append(rest_s)
        now_s += rest_s
    assert rests[:7] == [TRY_AGAIN_S * times for times in (1, 2, 4, 8, 1, 2, 4)]
    assert rests[-1] == LOOK_AGAIN_S
    looks.note(bucket_with(), CODED, now_s, failed=3, rewritten=0)
    assert looks.is_due(bucket_with(), CODED, now_s + TRY_AGAIN_S), "another redundancy is another matter"


def test_a_stopped_bucket_is_left_alone() -> None:
    """Until it is resumed."""
    looks = Looks()
    assert not looks.is_due(bucket_with(**{REWRITE_SETTING: b"stopped"}), COPIED, 0)
    assert looks.is_due(bucket_with(), COPIED, 0)


def test_buckets_that_are_gone_are_forgotten() -> None:
    """A number is never used again, but memory is."""
    looks = Looks()
    looks.note(bucket_with(), COPIED, 100, failed=0, rewritten=0)
    looks.keep_only([])
    assert looks.is_due(bucket_with(), COPIED, 100)


def test_a_setting_that_says_nothing_is_told() -> None:
    """It was not written by us."""
    with pytest.raises(Corrupt, match="films"):
        Looks().is_due(bucket_with(redundancy=b"\xff"), COPIED, 0)
