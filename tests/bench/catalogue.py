"""Everything that is compared, in the order of the table."""

from __future__ import annotations

from tests.bench.deletes import DeleteMany, PutsBesideDeletes
from tests.bench.scenarios import Bench, Listing, Scenario, SmallGet, SmallPut
from tests.bench.transfers import LargeDown, LargeUp, LargeUpByAws, OneStream, ParallelRanges


def choose_scenarios(bench: Bench, wanted: str = "") -> list[Scenario]:
    """Those whose name holds `wanted`."""
    everything: list[Scenario] = []
    for size in bench.scale.stored_counts:
        everything += [SmallPut(bench, size), SmallGet(bench, size)]
    everything += [Listing(bench), DeleteMany(bench), PutsBesideDeletes(bench)]
    everything += [LargeUp(bench), LargeUpByAws(bench), LargeDown(bench), ParallelRanges(bench), OneStream(bench)]
    return [scenario for scenario in everything if wanted.lower() in scenario.name.lower()]
