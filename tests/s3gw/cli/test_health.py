"""What status says about the data: never more than is known, and one verdict for monitoring."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.survey_status import AffectedObject, DrainProgress, SurveyStatus
from cluster.registry.maintenance import NodeScrub
from s3gw.cli.health import (
    AFFECTED_SHOWN_MAX,
    Verdict,
    describe_data,
    describe_drains,
    describe_repairs,
    describe_scrub,
    describe_verification,
    is_safe,
    judge,
    name_affected,
)
from storage.datanode.wire import ScrubStatus
from storage.model import Node, NodeState
from tests.s3gw.cli.test_report import HEALTHY, NOW_MS, THREE_HOSTS, node

NODES = THREE_HOSTS.nodes


def survey(**changes: object) -> SurveyStatus:
    """A healthy one, but for the changes."""
    return msgspec.structs.replace(HEALTHY, **changes)


# ------------------------------------------------------------------ the verdict


def test_all_is_well_only_after_a_walk() -> None:
    """What was not looked at is not called well."""
    assert judge(HEALTHY, NODES, writes_succeed=True, metadata_answers=True) == (Verdict.WELL, ())
    unknown = judge(SurveyStatus(is_walking=True), NODES, writes_succeed=True, metadata_answers=True)
    assert unknown == (Verdict.DEGRADED, ("the data has not been looked through yet",))


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({"lost": 2}, Verdict.LOST, "2 chunks lost"),
        ({"unavailable": 1_000}, Verdict.LOST, "1,000 chunks not readable now"),
        ({"endangered": 1}, Verdict.DEGRADED, "1 chunk endangered"),
        ({"degraded": 5}, Verdict.DEGRADED, "5 chunks degraded"),
        ({"damaged_pieces": 5}, Verdict.DEGRADED, "5 pieces damaged"),
        ({"missing_pieces": 5}, Verdict.DEGRADED, "5 pieces missing"),
    ],
)
def test_what_a_walk_found(changes: dict[str, int], verdict: Verdict, reason: str) -> None:
    """Each by its number."""
    assert judge(survey(**changes), NODES, writes_succeed=True, metadata_answers=True) == (verdict, (reason,))


@pytest.mark.parametrize(
    ("changed", "writes_succeed", "metadata_answers", "failing_jobs", "verdict", "reason"),
    [
        (node(3, "z/h3/d", NodeState.DEAD), True, True, 0, Verdict.DEGRADED, "1 node not answering"),
        (node(3, "z/h3/d", NodeState.DRAINING), True, True, 0, Verdict.WELL, ""),
        (node(3, "z/h3/d", NodeState.GONE, damaged_count=3), True, True, 0, Verdict.WELL, ""),
        (node(3, "z/h3/d", damaged_count=3), True, True, 0, Verdict.DEGRADED, "3 pieces damaged"),
        (node(3, "z/h3/d", free_bytes=0), True, True, 0, Verdict.WELL, ""),
        (node(3, "z/h3/d"), False, True, 0, Verdict.DEGRADED, "writes fail"),
        (node(3, "z/h3/d"), True, False, 0, Verdict.LOST, "the metadata does not answer"),
        (node(3, "z/h3/d"), True, True, 2, Verdict.DEGRADED, "2 jobs failing"),
    ],
)
def test_what_else_counts(
    changed: Node, writes_succeed: bool, metadata_answers: bool, failing_jobs: int, verdict: Verdict, reason: str
) -> None:
    """A full node alone is no fault: writes go to others, and a drain is wanted."""
    found = judge(
        HEALTHY,
        (*NODES[:2], changed),
        writes_succeed=writes_succeed,
        metadata_answers=metadata_answers,
        failing_jobs=failing_jobs,
    )
    assert found == (verdict, (reason,) if reason else ())


# ------------------------------------------------------------------ the data


def test_before_the_first_walk_nothing_is_claimed() -> None:
    """No figure, and no word of health."""
    for before in (SurveyStatus(), SurveyStatus(is_walking=True, chunks_walked=1_234, healthy=9, chunks=9)):
        (sentence,) = describe_data(before, NOW_MS)
        assert "not known yet" in sentence
        assert "healthy" not in sentence
    assert "1,234 chunks so far" in sentence


def test_a_whole_cluster() -> None:
    """With the time of the walk that it is known by."""
    assert describe_data(HEALTHY, NOW_MS) == [
        "All pieces of 40 chunks (5.0 GiB) are there, as of 2023-11-14 22:22:20Z, 60 seconds ago.",
        "The weakest chunk survives the loss of 1 datanode, whichever it is.",
    ]
    assert describe_data(survey(chunks=0, bytes=0, healthy=0, losses={}), NOW_MS) == [
        "Datanodes keep no data, as of 2023-11-14 22:22:20Z, 60 seconds ago."
    ]


def test_chunks_that_are_not_whole() -> None:
    """The worst first; what was not looked through is named."""
    found = describe_data(
        survey(
            healthy=30,
            degraded=4,
            endangered=3,
            unavailable=2,
            lost=1,
            silent_nodes=(2, 5),
            losses={"nodes": {-1: 1, 0: 3, 1: 36}},
        ),
        NOW_MS,
    )
    assert found[0].startswith("30 of 40 chunks (5.0 GiB) have all their pieces, as of ")
    assert [sentence.split(":")[0] for sentence in found[1:]] == [
        "1 chunk is lost",
        "2 chunks are not readable now",
        "3 chunks are endangered",
        "4 chunks are degraded",
        "Not looked through",
        "The weakest chunk cannot be read now.",
    ]
    assert "nodes 2, 5" in found[5]


def test_what_is_being_mended() -> None:
    """Nothing is said of nothing."""
    assert describe_repairs(HEALTHY) == []
    busy = survey(queued=3, queued_bytes=9 << 20, repairing=2, repaired_pieces=7, repaired_bytes=1 << 30)
    busy = msgspec.structs.replace(busy, failed_repairs=1, surplus_pieces=4, surplus_bytes=5 << 20)
    assert describe_repairs(busy) == [
        "Repair: 3 chunks (9.0 MiB of pieces) waiting, 2 under way.",
        "Repaired since this master became active: 7 pieces (1.0 GiB).",
        "1 repair did not make all pieces; each is tried again.",
        "Surplus, to be removed once the others are verified: 4 pieces (5.0 MiB).",
    ]


def test_objects_that_cannot_be_read_by_name() -> None:
    """A bounded number of them, with how many more there are."""
    some = (
        AffectedObject("lost", "b", "k", "null"),
        AffectedObject("unavailable", "b", "k\\xff", "0" * 32),
        AffectedObject("lost", "b", "k", "", "upload-7"),
    )
    assert name_affected(survey(affected=some)) == [
        "lost: s3://b/k",
        f"unavailable: s3://b/k\\xff (version {'0' * 32})",
        "lost: s3://b/k (a part of the open upload upload-7)",
    ]
    many = tuple(AffectedObject("lost", "b", f"k{number}", "null") for number in range(AFFECTED_SHOWN_MAX + 2))
    shown = name_affected(survey(affected=many, affected_chunks_unnamed=9))
    assert len(shown) == AFFECTED_SHOWN_MAX + 2
    assert shown[-2:] == ["and 2 objects more: --json lists them", "and what else 9 chunks beyond those are part of"]


# ------------------------------------------------------------------ nodes


def drain(number: int, pieces: int, *, is_safe: bool = False) -> DrainProgress:
    """Of a node with 1 MiB pieces."""
    return DrainProgress(number, f"{number:032x}", pieces, pieces << 20, pieces == 0, is_safe)


def test_a_node_is_safe_to_switch_off_only_when_nothing_needs_it() -> None:
    """Not while pieces, a last look or the metadata's journal are waited for, and not before a walk knows it."""
    nodes = [node(number, "z/h/d", NodeState.DRAINING) for number in (1, 2, 3, 4)]
    drains = [drain(1, 12), drain(2, 0), drain(3, 0, is_safe=True)]
    assert describe_drains(nodes, drains, NOW_MS) == [
        "Node 1 is being emptied: 12 pieces (12.0 MiB) left. Keep it running.",
        "Node 2 is being emptied: a last walk has to find it empty. Keep it running.",
        "Node 3 is empty: it is safe to switch it off.",
        "Node 4 is being emptied: what is left is known when a walk has ended. Keep it running.",
    ]
    (holding,) = describe_drains(nodes[2:3], drains, NOW_MS, [f"{3:032x}"])
    assert holding == "Node 3 is being emptied: the metadata's journal is still on it. Keep it running."
    assert is_safe(drains[2])
    assert not is_safe(drains[2], [f"{3:032x}"])
    assert describe_drains(NODES, drains, NOW_MS) == []


def test_a_node_that_left_is_spoken_of_for_a_day() -> None:
    """For who waits to switch it off."""
    gone = [node(3, "z/h/d", NodeState.GONE)]
    assert describe_drains(gone, [], NOW_MS) == ["Node 3 is gone: nothing needs it, it is safe to switch it off."]
    assert describe_drains(gone, [], NOW_MS + 86_400_000) == []
    for now_ms in (NOW_MS, NOW_MS + 86_400_000):
        (kept,) = describe_drains(gone, [], now_ms, [f"{3:032x}"])
        assert kept == "Node 3 is gone, but the metadata's journal is still on it. Keep it running."


def test_when_bytes_were_last_read() -> None:
    """The oldest of all nodes, what was never read, what was damaged, and whose figures are old."""
    assert describe_verification(NODES, NOW_MS) == []
    days = 86_400_000
    nodes = [
        node(1, "z/h1/d", chunk_count=10, oldest_verified_ms=NOW_MS - 3 * days),
        node(2, "z/h2/d", chunk_count=10, unverified_count=4, oldest_verified_ms=NOW_MS - 9 * days, damaged_count=2),
        node(3, "z/h3/d", NodeState.DEAD, chunk_count=10, unverified_count=10),
        node(4, "z/h4/d", NodeState.GONE, chunk_count=10, unverified_count=10, damaged_count=10),
    ]
    assert describe_verification(nodes, NOW_MS) == [
        "Verified: the piece that was read from its disk longest ago was read 9 days ago.",
        "Not read from the disk since they were written: 14 of 30 pieces.",
        "2 pieces were found damaged and set aside on node 2.",
        "What is said of node 3 was reported before the silence.",
    ]
    assert describe_verification([node(1, "z/h1/d", chunk_count=1, unverified_count=1)], NOW_MS) == [
        "Not read from the disk since they were written: 1 of 1 piece."
    ]


def test_how_far_scrubs_are() -> None:
    """Those that run, their pace together, and those that do not say."""
    running = ScrubStatus(NOW_MS, 0, True, 5, 5_000, 10, 10_000, 0, 8 << 20)
    resting = ScrubStatus(NOW_MS, NOW_MS, False, 10, 10_000, 10, 10_000, 0, 8 << 20)
    scrubs = [
        NodeScrub(1, "a", "up", running),
        NodeScrub(2, "b", "up", resting),
        NodeScrub(3, "c", "up", running),
        NodeScrub(4, "d", "dead", None, "it is dead"),
    ]
    assert describe_scrub(scrubs) == [
        "Scrub: node 1 50 %, node 3 50 %, at 16.0 MiB a second in all.",
        "The scrub of node 4 is not known: no answer.",
    ]
    assert describe_scrub(scrubs[1:2]) == []


@given(
    st.builds(
        SurveyStatus,
        **{
            name: st.integers(0, 10**6)
            for name in SurveyStatus.__struct_fields__
            if SurveyStatus.__annotations__[name] == "int"
        },
        losses=st.dictionaries(
            st.sampled_from(["zones", "hosts", "disks", "nodes"]),
            st.dictionaries(st.integers(-3, 3), st.integers(1, 9), min_size=1),
        ),
    )
)
def test_any_survey_is_told_in_sentences(found: SurveyStatus) -> None:
    """One line each, and a verdict that is not `well` while something is."""
    sentences = [*describe_data(found, NOW_MS), *describe_repairs(found)]
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in sentences)
    judgement = judge(found, NODES, writes_succeed=True, metadata_answers=True)
    assert (judgement.verdict is Verdict.WELL) == (not judgement.reasons)
    if found.lost or found.unavailable:
        assert judgement.verdict is Verdict.LOST
    if not found.walks:
        assert judgement.verdict is not Verdict.WELL
