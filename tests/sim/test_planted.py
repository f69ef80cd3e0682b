"""The simulation finds the bugs that are planted for it, and nothing where there are none."""

from __future__ import annotations

import pytest

from tests.sim.bugs import Bug
from tests.sim.planted import BUGS
from tests.sim.simulation import simulate


def test_there_are_enough_of_them() -> None:
    """Each with a name of its own."""
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    """By one of its seeds; the same run without it finds nothing."""
    for seed in bug.tries:
        found = simulate(seed, bug.profile(seed), bug.plant, until=bug.found).violations
        if any(bug.found in violation for violation in found):
            break
    else:
        pytest.fail(f"no seed of {bug.tries} finds it: {bug.says}")
    assert not simulate(seed, bug.profile(seed)).violations
