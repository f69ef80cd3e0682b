"""What is said about what an acknowledged write survives."""

from __future__ import annotations

import pytest

from storage.metadata.postgresql.durability import Durability
from tests.storage.metadata.postgresql.engine import PostgresEngine

SAFE = Durability(True, True, "on", "standby1", 1)


def test_a_synchronous_standby_and_fsync_lose_nothing() -> None:
    """One line, and no loss window."""
    assert (SAFE.problems, SAFE.has_loss_window) == ((), False)
    assert SAFE.statement == "acknowledged writes are on the disks of the primary and of a synchronous standby"
    assert SAFE._replace(synchronous_standbys=None).problems == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fsync": False}, "fsync is off"),
        ({"full_page_writes": False}, "full_page_writes is off"),
        ({"synchronous_commit": "off"}, "synchronous_commit is off"),
        ({"synchronous_commit": "local"}, "no synchronous standby"),
        ({"synchronous_standby_names": ""}, "no synchronous standby"),
        ({"synchronous_standbys": 0}, "writes wait until there is one"),
    ],
)
def test_each_weakness_is_named(changed: dict[str, object], words: str) -> None:
    """In the statement that status prints."""
    weak = SAFE._replace(**changed)
    assert weak.has_loss_window
    assert words in weak.statement


async def test_the_settings_are_those_of_the_server(postgres: PostgresEngine) -> None:
    """As found at the opening: the test server has neither fsync nor a standby."""
    metadata = await postgres.open(connections_max=1)
    assert metadata.durability == Durability(False, True, "on", "", 0)
    assert metadata.loss_window == metadata.durability.problems
