"""What is said of the journal of the records: how durable they are, and no more than is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.registry.config import MasterConfig
from s3gw.cli.journal import ALONE, IN_POSTGRESQL, describe_journal, find_holders, read_journal
from s3gw.cli.status import Told, describe_status
from storage.journal.status import JournalStatus, StatusFile
from storage.metadata.settings import POSTGRESQL, SQLITE, MetadataSettings
from storage.model import NodeState
from tests.s3gw.cli.test_report import HEALTHY, METADATA, NOW_MS, THREE_HOSTS, cluster, node

OPEN = JournalStatus(
    phase="open",
    copies=2,
    nodes=("a" * 32, "b" * 32),
    domains=2,
    is_covered=True,
    snapshot_ms=NOW_MS - 600_000,
    holders=("a" * 32, "b" * 32),
    updated_ms=NOW_MS,
)


def changed(**changes: Any) -> JournalStatus:
    """The open one, but for the changes."""
    return msgspec.structs.replace(OPEN, **changes)


def test_records_that_are_on_the_datanodes_as_well() -> None:
    """With what a recovery would begin with."""
    report = describe_journal(SQLITE, OPEN, NOW_MS)
    assert report.notes == (
        "Records and the smallest objects are in a journal on 2 datanodes on 2 disks as well, before they are"
        " acknowledged.",
        "`frostbyte recover` brings them back from there; the newest snapshot was taken 10 minutes ago.",
    )
    assert (report.warnings, report.takes_writes) == ((), True)


def test_a_recovery_is_not_promised_before_it_can_be() -> None:
    """Until the first snapshot."""
    report = describe_journal(SQLITE, changed(is_covered=False), NOW_MS)
    assert "cannot bring them back yet" in report.notes[1]


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"domains": 1}, "All copies of the metadata's journal are on one disk."),
        ({"behind": 3}, "3 groups of commits are not in the metadata's journal yet."),
        ({"snapshot_error": "no room"}, "The last snapshot of the metadata failed: no room."),
        ({"updated_ms": NOW_MS - 120_000}, "What is known of the metadata's journal is of 2 minutes ago."),
    ],
)
def test_what_is_wrong(changes: dict[str, Any], warning: str) -> None:
    """One sentence each; writes go on."""
    report = describe_journal(SQLITE, changed(**changes), NOW_MS)
    assert report.warnings == (warning,)
    assert report.takes_writes


def test_records_that_are_alone() -> None:
    """Nothing is claimed of copies."""
    local = describe_journal(SQLITE, changed(phase="local", reason="all datanodes share one disk"), NOW_MS)
    assert local.notes == (ALONE, "The metadata's journal is local: all datanodes share one disk.")
    assert describe_journal(SQLITE, None, NOW_MS).notes == (ALONE,)
    assert describe_journal(POSTGRESQL, None, NOW_MS).notes == (IN_POSTGRESQL,)


@pytest.mark.parametrize("phase", ["starting", "closed", "over", "unheard of", ""])
def test_a_journal_that_takes_nothing(phase: str) -> None:
    """Then writes fail, and status is not well."""
    journal = changed(phase=phase, reason="one datanode is needed")
    report = describe_journal(SQLITE, journal, NOW_MS)
    assert report.notes == ()
    assert not report.takes_writes
    config = MasterConfig("unix:/m", "ab" * 16, "/k", MetadataSettings(path="/d", socket="/s"))
    status = describe_status(config, Told(THREE_HOSTS, [], {}, HEALTHY, []), METADATA, NOW_MS, journal)
    assert (status["verdict"], status["reasons"]) == ("degraded", ["writes fail"])
    assert status["metadata"]["journal"]["reason"] == "one datanode is needed"
    assert report.warnings[0] in status["warnings"]


def test_a_node_that_the_journal_is_on_is_kept() -> None:
    """Whatever the survey says."""
    config = MasterConfig("unix:/m", "ab" * 16, "/k", MetadataSettings(path="/d", socket="/s"))
    gone = cluster(*THREE_HOSTS.nodes, node(4, "z/h4/d", NodeState.GONE, node_id="a" * 32))
    for journal, is_kept in ((None, False), (OPEN, True)):
        status = describe_status(config, Told(gone, [], {}, HEALTHY, []), METADATA, NOW_MS, journal)
        (sentence,) = [it for it in status["health"] if it.startswith("Node 4")]
        assert ("Keep it running." in sentence) == is_kept


def test_the_owners_file(tmp_path: Path) -> None:
    """As it was written; nothing where there is none, where it is damaged, and for PostgreSQL."""
    config = MasterConfig("unix:/m", "ab" * 16, "/k", MetadataSettings(path=str(tmp_path), socket="/s"))
    assert read_journal(config) is None
    StatusFile(tmp_path).write(OPEN)
    assert read_journal(config) == OPEN
    assert find_holders(config) == OPEN.holders
    (tmp_path / "journal.json").write_text("{")
    assert read_journal(config) is None
    assert find_holders(config) == ()
    elsewhere = MetadataSettings(engine=POSTGRESQL, dsn="postgresql://h/d")
    assert read_journal(msgspec.structs.replace(config, metadata=elsewhere)) is None
