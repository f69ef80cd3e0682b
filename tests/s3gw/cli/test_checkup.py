"""What the doctor makes of what it saw."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.redundancy import parse_redundancy, replicated
from s3gw.cli.checkup import (
    SKEW_MS_BROKEN,
    SKEW_MS_MAX,
    Finding,
    Level,
    check_data,
    check_gateway,
    check_journal,
    check_machine,
    check_masters,
    check_metadata,
    check_nodes,
)
from s3gw.cli.health import Judgement, Verdict
from s3gw.cli.journal import JournalReport
from storage.model import ClusterMap, Node, NodeState
from tests.s3gw.cli.test_report import GIB, ONE_DISK, THREE_HOSTS, cluster, node

HEARD_MS = 1_700_000_000_000


def problems(cluster_map: ClusterMap, redundancy: str = "replica:2") -> list[Finding]:
    """What is not ok."""
    return [it for it in check_nodes(cluster_map, parse_redundancy(redundancy)) if it.level is not Level.OK]


def test_a_cluster_of_three_hosts_is_well() -> None:
    """Every check says so, and advises nothing."""
    found = check_nodes(THREE_HOSTS, replicated(2))
    assert {it.level for it in found} == {Level.OK}
    assert {it.advice for it in found} == {""}
    assert [it.check for it in found] == ["nodes", "writes", "space", "disks", "versions", "clocks"]


def test_nobody_there() -> None:
    """Gone nodes are nobody."""
    for cluster_map in (ClusterMap(0), cluster(node(1, "z/h/d", NodeState.GONE))):
        (finding,) = check_nodes(cluster_map, replicated(2))
        assert finding.level is Level.BAD


@pytest.mark.parametrize(
    ("changes", "state", "level", "check", "says"),
    [
        ({}, NodeState.DEAD, Level.BAD, "nodes", "node 3 at unix:/3 is dead"),
        ({"durability": "none"}, NodeState.UP, Level.WARNING, "nodes", "durability none on node 3"),
        ({"free_bytes": GIB}, NodeState.UP, Level.WARNING, "space", "node 3: 0 B free above the reserve of 1.0 GiB"),
        ({"free_bytes": 5 * GIB}, NodeState.UP, Level.WARNING, "space", "node 3: 4.0 GiB free"),
        ({"format_version": 2}, NodeState.UP, Level.WARNING, "versions", "datanodes have several formats"),
        ({"clock_ms": HEARD_MS + 9_000}, NodeState.UP, Level.WARNING, "clocks", "node 3 is 9 s ahead of the master"),
        ({"clock_ms": HEARD_MS - 90_000}, NodeState.UP, Level.BAD, "clocks", "node 3 is 90 s behind the master"),
    ],
)
def test_a_node_that_needs_something(
    changes: dict[str, Any], state: NodeState, level: Level, check: str, says: str
) -> None:
    """One finding, with what to do."""
    (finding,) = problems(cluster(*THREE_HOSTS.nodes[:2], node(3, "z/h3/d", state, **changes)))
    assert (finding.level, finding.check) == (level, check)
    assert finding.says.startswith(says)
    assert finding.advice


def test_clocks_that_agree_or_say_nothing() -> None:
    """A report takes a moment on its way, and a dead node's is old."""
    skewed = [node(1, "z/h1/d", clock_ms=HEARD_MS - SKEW_MS_MAX), node(2, "z/h2/d")]
    dead = node(3, "z/h3/d", NodeState.DEAD, clock_ms=HEARD_MS - 10 * SKEW_MS_BROKEN)
    assert [it.check for it in problems(cluster(*skewed, dead))] == ["nodes"]


def test_disks_that_are_shared() -> None:
    """Bad where copies have to share one, and only said where there are enough others."""
    (finding,) = problems(ONE_DISK)
    assert finding.says == "nodes 1, 2, 3 share a disk: replica:2 is on 1 disk, whose loss is lost data"
    enough = cluster(node(1, "z/h/a"), node(2, "z/h/a"), node(3, "z/h/b"))
    assert problems(enough) == []
    assert problems(enough, "replica:3")[0].check == "disks"


def test_writes_that_find_no_place() -> None:
    """With how many nodes could take a chunk."""
    full = cluster(node(1, "z/h1/d"), node(2, "z/h2/d", free_bytes=0), node(3, "z/h3/d", NodeState.DRAINING))
    writes = next(it for it in problems(full) if it.check == "writes")
    assert (writes.level, writes.says) == (
        Level.BAD,
        "writes fail: replica:2 needs 2 datanodes with room, 1 can take a chunk",
    )


def test_everything_else() -> None:
    """Masters, data, metadata, gateway, program."""
    assert check_masters({"unix:/a": "active", "unix:/b": "standby"}).level is Level.OK
    assert check_masters({"unix:/a": "active", "unix:/b": "silent"}).says == "no answer from unix:/b"
    assert check_data(Judgement(Verdict.WELL, ())).level is Level.OK
    assert check_data(Judgement(Verdict.DEGRADED, ("1 chunk degraded",))).level is Level.WARNING
    assert check_data(Judgement(Verdict.LOST, ("1 chunk lost", "2 nodes"))).says == "1 chunk lost; 2 nodes"
    assert check_metadata("no owner", (), None)[0].level is Level.BAD
    assert [it.level for it in check_metadata("", ("standby is away",), GIB // 2)] == [Level.WARNING, Level.BAD]
    assert check_metadata("", (), 10 * GIB) == [Finding(Level.OK, "metadata", "it answers")]
    assert check_journal(JournalReport(("on two disks",))) == [Finding(Level.OK, "journal", "on two disks")]
    assert check_journal(JournalReport((), ("one disk",)))[0].level is Level.WARNING
    assert check_journal(JournalReport((), ("closed",), takes_writes=False))[0].level is Level.BAD
    assert check_gateway("http://h:1", True).level is Level.OK
    assert check_gateway("http://h:1", False).level is Level.BAD
    assert [it.level for it in check_machine(1024, "1", "3.11")] == [Level.OK, Level.WARNING]
    assert len(check_machine(1 << 20, "1", "3.11")) == 1


@given(
    st.lists(
        st.builds(
            node,
            st.integers(1, 9),
            st.sampled_from(["z/h/a", "z/h/b", "y/g/c", ""]),
            st.sampled_from(list(NodeState)),
            free_bytes=st.sampled_from([0, 3 * GIB, 50 * GIB]),
            capacity_bytes=st.sampled_from([0, 100 * GIB]),
            clock_ms=st.sampled_from([0, 1, HEARD_MS, 2 * HEARD_MS]),
            durability=st.sampled_from(["fsync", "none"]),
            format_version=st.integers(1, 2),
        ),
        max_size=6,
        unique_by=lambda it: it.number,
    ),
    st.sampled_from(["replica:1", "replica:3", "ec:4+2"]),
)
def test_any_cluster_is_examined(nodes: list[Node], redundancy: str) -> None:
    """One line each; what is not ok comes with an advice, and what is ok with none."""
    for finding in check_nodes(cluster(*nodes), parse_redundancy(redundancy)):
        assert "\n" not in finding.says + finding.advice
        assert bool(finding.advice) == (finding.level is not Level.OK)
