"""What a planted bug is: a small change of the project at run time, and the run that it is looked for in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple
from unittest import mock

from tests.sim.profiles import FAULT_KINDS, Profile, draw_profile

OTHER_SEEDS = range(1, 25)

Plant = Callable[[], AbstractContextManager[object]]


class Bug(NamedTuple):
    """says: what is wrong, in one line. found: part of what the simulation says of it. seeds: one of them finds it, and
    finds nothing without it. settings: of the profile of these runs, so that what the bug needs is likely."""

    name: str
    says: str
    plant: Plant
    found: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]

    @property
    def tries(self) -> tuple[int, ...]:
        """Its seeds first; others, as any change of the project shifts what a seed's run is."""
        return (*self.seeds, *(seed for seed in OTHER_SEEDS if seed not in self.seeds))

    def profile(self, seed: int) -> Profile:
        """Of the run of this seed; longer than runs without a bug."""
        profile = draw_profile(seed)
        faults = tuple(kind for kind in profile.faults if kind in FAULT_KINDS)
        return profile._replace(load_s=2.5 * profile.load_s, faults=faults, journaled=False)._replace(**self.settings)


def change(*changes: tuple[Any, Any, object]) -> Plant:
    """(owner, attribute, stand-in) each, for as long as the bug is planted. The owner may be a dict, with its key."""

    def plant() -> AbstractContextManager[object]:
        stack = ExitStack()
        for owner, attribute, stand_in in changes:
            if isinstance(owner, dict):
                stack.enter_context(mock.patch.dict(owner, {attribute: stand_in}))
            else:
                stack.enter_context(mock.patch.object(owner, attribute, stand_in))
        return stack

    return plant
