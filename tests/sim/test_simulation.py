"""Seeds of the simulation: whatever goes wrong, nothing acknowledged is lost and everything heals."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.simulation import Outcome, simulate

SEEDS_PER_TEST = 5
FIRST_SEEDS = range(0, 50, SEEDS_PER_TEST)
MORE_SEEDS = range(50, 3_100, SEEDS_PER_TEST)


def _run(first: int) -> None:
    outcomes = [simulate(seed) for seed in range(first, first + SEEDS_PER_TEST)]
    failed = [str(outcome) for outcome in outcomes if outcome.violations]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_a_cluster_that_is_hurt_loses_nothing_and_heals(first: int) -> None:
    """The first seeds."""
    _run(first)


@pytest.mark.long
@pytest.mark.parametrize("first", MORE_SEEDS)
def test_many_more_seeds(first: int) -> None:
    """Thousands."""
    _run(first)


def test_a_seed_is_the_same_run_again() -> None:
    """To the last event, in this process."""
    first, second = simulate(3), simulate(3)
    assert first.profile.journaled
    assert first.trace.lines == second.trace.lines
    assert first.trace.digest == second.trace.digest
    assert first.trace.digest != simulate(4).trace.digest


def test_a_seed_is_the_same_run_in_another_process() -> None:
    """Whatever its hashes are seeded with."""
    expected = simulate(12).trace.digest
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-m", "tests.sim", "--seed", "12"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=100)
    assert expected in done.stdout


def test_runs_do_what_they_are_for() -> None:
    """Writes are acknowledged, reads are read, and faults of every kind happen."""
    outcomes: list[Outcome] = [simulate(seed) for seed in (2, 8, 12, 14, 32)]
    totals: dict[str, int] = {}
    for outcome in outcomes:
        for kind, count in outcome.trace.counts.items():
            totals[kind] = totals.get(kind, 0) + count
    assert sum(outcome.acknowledged for outcome in outcomes) > 50
    assert totals["read"] > 20
    assert totals["write unknown"] > 0
    assert totals["lost host"] > 0
    assert totals["change layout"] > 0
    assert len(totals) > 12, totals
