"""`python -m tests.sim --seed N [--count M] [--trace] [--planted NAME]`: run seeds, and show what happened in one.

--planted: with a bug of planted.py, in the kind of run that it is looked for in.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.planted import BUG_OF
from tests.sim.simulation import simulate


def main() -> int:
    """Exit status 1 when a seed finds something."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--count", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--planted", choices=sorted(BUG_OF), metavar="NAME", help="plant this bug")
    arguments = parser.parse_args()
    bug = BUG_OF.get(arguments.planted)
    failed = 0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        begun_s = time.monotonic()
        if bug is None:
            outcome = simulate(seed, show=arguments.trace)
        else:
            outcome = simulate(seed, bug.profile(seed), bug.plant, until=bug.found, show=arguments.trace)
        failed += bool(outcome.violations)
        print(outcome)
        print(
            f"    {outcome.trace.digest}, {outcome.steps} steps in {time.monotonic() - begun_s:.2f} s;"
            f" {', '.join(f'{kind} {count}' for kind, count in sorted(outcome.trace.counts.items()))}"
        )
        for violation in outcome.violations:
            print(f"    VIOLATION {violation}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
