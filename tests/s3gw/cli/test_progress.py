"""Where jobs are, as bars, and when what was ordered is done."""

from __future__ import annotations

import msgspec

from cluster.maintenance.survey_status import DrainProgress, SurveyStatus
from cluster.registry.maintenance import NodeScrub
from s3gw.cli.master import Job
from s3gw.cli.progress import Bar, look_at_drain, look_at_job, look_at_repair, look_at_scrubs
from storage.datanode.wire import ScrubStatus
from storage.model import NodeState
from tests.s3gw.cli.test_report import HEALTHY, NOW_MS, node


def job(runs: int, **changes: object) -> Job:
    """A sweep."""
    return msgspec.structs.replace(Job("sweep", runs, 0, NOW_MS, ""), **changes)


def test_a_job_is_done_after_the_run_that_was_ordered() -> None:
    """Not while it runs, and not while something is left that the next run does."""
    assert not look_at_job(job(2), 3, {}).is_over
    assert not look_at_job(job(3, started_ms=NOW_MS), 3, {}).is_over
    assert not look_at_job(job(3, counts={"done": 5, "total": 9}), 3, {}).is_over
    assert look_at_job(job(3, counts={"done": 9, "total": 9}), 3, {}).is_over
    look = look_at_job(
        job(3, counts={"done": 9, "total": 9, "deleted": 12, "purged": 4}), 3, {"deleted": 2, "purged": 4}
    )
    assert look.bars == (Bar("sweep", 9, 9),)
    assert look.summary == ("sweep: deleted 10.",)
    assert look_at_job(job(3), 3, {}).summary == ("sweep: nothing to do.",)


def test_a_run_that_failed_is_told() -> None:
    """And not waited for any longer: it is tried again by itself."""
    look = look_at_job(job(3, counts={"done": 5, "total": 9}, last_error="Unavailable: away"), 3, {})
    assert look.is_over
    assert look.summary == ("The run failed, and is tried again: Unavailable: away",)


def test_a_repair_is_a_walk_and_what_it_found() -> None:
    """Over when the walk that began after the order has ended and nothing waits."""
    before = SurveyStatus(repaired_pieces=10)
    walking = SurveyStatus(is_walking=True, chunks_walked=30, chunks=40, queued=5, repairing=1, repaired_pieces=12)
    look = look_at_repair(walking, False, before)
    assert look.bars[0] == Bar("survey", 30, 40, "30 chunks")
    assert look.bars[1][:3] == ("repair", 2, 8)
    assert not look.is_over
    assert not look_at_repair(walking, True, before).is_over
    assert not look_at_repair(HEALTHY, False, before).is_over
    done = look_at_repair(msgspec.structs.replace(HEALTHY, repaired_pieces=16, lost=1), True, before)
    assert done.is_over
    assert [bar.name for bar in done.bars] == ["repair"]
    assert done.summary == ("repair: 6 pieces made.", "1 chunk lost.")
    assert look_at_repair(HEALTHY, True, before).summary == ("repair: 0 pieces made.",)


def scrub(number: int, checked: int, *, is_running: bool, damaged: int = 0) -> NodeScrub:
    """Of 10 pieces of 1 KiB."""
    status = ScrubStatus(NOW_MS, 0, is_running, checked, checked << 10, 10, 10 << 10, damaged, 4 << 20)
    return NodeScrub(number, f"{number:032x}", "up", status)


def test_scrubs_are_over_when_none_runs() -> None:
    """Only those that are watched; one that does not answer is told, and not waited for."""
    away = NodeScrub(3, "c" * 32, "dead", None, "it is dead")
    others = scrub(9, 1, is_running=True)
    look = look_at_scrubs([scrub(1, 5, is_running=True), scrub(2, 10, is_running=False), away, others], [1, 2, 3])
    assert not look.is_over
    assert [bar[:3] for bar in look.bars] == [("node 1", 5120, 10240), ("node 2", 10240, 10240), ("node 3", 0, 0)]
    assert look.bars[0].text == "5.0 KiB of 10.0 KiB at 4.0 MiB a second"
    done = look_at_scrubs([scrub(1, 10, is_running=False, damaged=2), away], [1, 3])
    assert done.is_over
    assert done.summary == (
        "node 1: 10 pieces read (10.0 KiB), 2 pieces damaged.",
        "node 3 does not answer: it is dead.",
    )


def test_a_drain_is_over_when_the_node_is_safe_to_switch_off() -> None:
    """Or when it is no longer draining."""
    draining = node(3, "z/h/d", NodeState.DRAINING, node_id="c" * 32)

    def survey(pieces: int, *, is_safe: bool = False) -> SurveyStatus:
        return SurveyStatus(drains=(DrainProgress(3, "c" * 32, pieces, pieces << 20, pieces == 0, is_safe),))

    assert not look_at_drain(draining, SurveyStatus(), 0, NOW_MS, ()).is_over
    look = look_at_drain(draining, survey(30), 40, NOW_MS, ())
    assert look.bars == (Bar("node 3", 10, 40, "30 pieces left (30.0 MiB)"),)
    assert not look.is_over
    assert not look_at_drain(draining, survey(0), 40, NOW_MS, ()).is_over
    assert not look_at_drain(draining, survey(0, is_safe=True), 40, NOW_MS, ("c" * 32,)).is_over
    done = look_at_drain(draining, survey(0, is_safe=True), 40, NOW_MS, ())
    assert done.is_over
    assert done.summary == ("Node 3 is empty: it is safe to switch it off.",)
    back = look_at_drain(node(3, "z/h/d", NodeState.UP), survey(30), 40, NOW_MS, ())
    assert (back.is_over, back.summary) == (True, ("Node 3 is up, no longer draining.",))
    left = node(3, "z/h/d", NodeState.GONE, node_id="c" * 32)
    gone = look_at_drain(left, SurveyStatus(), 40, NOW_MS, ())
    assert (gone.is_over, gone.bars) == (True, (Bar("node 3", 40, 40, "is gone"),))
    assert gone.summary == ("Node 3 is gone: nothing needs it, it is safe to switch it off.",)
    assert not look_at_drain(left, SurveyStatus(), 40, NOW_MS, ("c" * 32,)).is_over
