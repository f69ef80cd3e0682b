"""All bugs that are planted into the project to see that the simulation finds them; see bugs.py."""

from __future__ import annotations

from tests.sim.planted_journal import JOURNAL_BUGS
from tests.sim.planted_repairs import REPAIR_BUGS
from tests.sim.planted_writes import WRITE_BUGS

BUGS = (*WRITE_BUGS, *REPAIR_BUGS, *JOURNAL_BUGS)
BUG_OF = {bug.name: bug for bug in BUGS}
