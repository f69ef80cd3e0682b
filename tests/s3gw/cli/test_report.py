"""What status says, for clusters of every shape."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.survey_status import AffectedObject, SurveyStatus
from cluster.redundancy import replicated
from cluster.registry.config import MasterConfig
from cluster.registry.maintenance import NodeScrub
from s3gw.cli.master import Job, choose_node
from s3gw.cli.report import (
    describe_durability,
    describe_nodes,
    describe_survival,
    evaluate_survival,
    list_warnings,
)
from s3gw.cli.status import Told, describe_status, print_status
from s3gw.config import ConfigError
from storage.datanode.wire import ScrubStatus
from storage.metadata.settings import MetadataSettings
from storage.model import ClusterMap, Node, NodeReport, NodeState

GIB = 1 << 30


def node(number: int, domain: str, state: NodeState = NodeState.UP, **changes: Any) -> Node:
    """A node with plenty of room."""
    report = NodeReport(f"{number:032x}", "ab" * 16, f"unix:/{number}", domain, 100 * GIB, 50 * GIB, GIB, 1)
    return Node(number, msgspec.structs.replace(report, **changes), state, 1_700_000_000_000)


def cluster(*nodes: Node) -> ClusterMap:
    """Under some epoch."""
    return ClusterMap(7, nodes)


ONE_DISK = cluster(*(node(number, "z/h/d") for number in (1, 2, 3)))
THREE_HOSTS = cluster(*(node(number, f"z/h{number}/d") for number in (1, 2, 3)))
THREE_ZONES = cluster(*(node(number, f"z{number}/h/d") for number in (1, 2, 3)))


def test_one_disk_under_all_datanodes_is_said() -> None:
    """The default start: a process may fail, the disk may not."""
    warnings = list_warnings(replicated(2), ONE_DISK)
    assert len(warnings) == 1
    assert "All 3 datanodes share one failure domain, the disk z/h/d" in warnings[0]
    survives = evaluate_survival(replicated(2), ONE_DISK.nodes)
    assert survives is not None
    assert survives == (0, 0, 0, 1)
    assert describe_survival(replicated(2), survives) == (
        "With replica:2 the loss of 1 datanode is survived, whichever it is."
    )


@pytest.mark.parametrize(
    ("cluster_map", "sentence"),
    [
        (
            THREE_HOSTS,
            "With replica:3 the loss of 2 datanodes or of 2 disks or of 2 hosts is survived, whichever it is.",
        ),
        (
            THREE_ZONES,
            "With replica:3 the loss of 2 datanodes or of 2 disks or of 2 hosts or of 2 zones is survived, whichever it"
            " is.",
        ),
    ],
)
def test_what_is_apart_is_survived(cluster_map: ClusterMap, sentence: str) -> None:
    """Nothing to warn of."""
    survives = evaluate_survival(replicated(3), cluster_map.nodes)
    assert survives is not None
    assert describe_survival(replicated(3), survives) == sentence
    assert list_warnings(replicated(3), cluster_map) == []


def test_one_copy_survives_nothing() -> None:
    """And says so."""
    survives = evaluate_survival(replicated(1), THREE_HOSTS.nodes)
    assert survives is not None
    assert "no loss is survived" in describe_survival(replicated(1), survives)


def test_two_disks_for_three_copies() -> None:
    """Some chunk has two copies on one disk."""
    uneven = cluster(node(1, "z/h/a"), node(2, "z/h/a"), node(3, "z/h/b"))
    assert list_warnings(replicated(3), uneven) == [
        "Copies of a chunk share a disk: the loss of 1 is survived, not of 2.",
    ]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (node(3, "z/h3/d", NodeState.DEAD), "Node 3 is dead."),
        (node(3, "z/h3/d", NodeState.SUSPECT), "Node 3 is suspect."),
        (node(3, "z/h3/d", free_bytes=GIB), "Node 3 is full: only its reserve is left."),
        (
            node(3, "z/h3/d", medium_error="the medium does not write: Input/output error"),
            "Node 3 cannot use its medium: the medium does not write: Input/output error. It counts as silent until it"
            " can.",
        ),
        (
            node(3, "z/h3/d", durability="none"),
            "Durability none on node 3: chunks acknowledged last do not survive a power cut.",
        ),
    ],
)
def test_a_node_that_needs_attention(changed: Node, sentence: str) -> None:
    """One sentence for each."""
    assert list_warnings(replicated(2), cluster(*THREE_HOSTS.nodes[:2], changed)) == [sentence]


def test_too_few_nodes_mean_that_writes_fail() -> None:
    """No figure of survival then."""
    alone = cluster(node(1, "z/h1/d"))
    assert evaluate_survival(replicated(2), alone.nodes) is None
    assert list_warnings(replicated(2), alone) == [
        "Writes fail now: replica:2 needs 2 nodes that take chunks.",
    ]
    assert evaluate_survival(replicated(2), ()) is None
    assert len(list_warnings(replicated(2), ClusterMap(0))) == 1


def test_durability_of_a_cluster() -> None:
    """The weakest is not hidden behind the others."""
    assert describe_durability(ONE_DISK.nodes) == "fsync"
    assert describe_durability([*ONE_DISK.nodes, node(4, "z/h/d", durability="none")]) == "mixed"
    assert describe_durability([node(4, "z/h/d", durability="none")]) == "none"
    assert describe_durability([node(4, "z/h/d", NodeState.GONE, durability="none"), *ONE_DISK.nodes]) == "fsync"
    assert describe_durability(()) == "unknown"


def test_nodes_are_found_by_number_or_by_the_beginning_of_an_id() -> None:
    """Exactly one, or a line that says what is wrong."""
    nodes = (node(1, "z/h/d", node_id="1" + "0" * 31), node(2, "z/h/d", node_id="2" + "0" * 31))
    assert choose_node(nodes, "2") is choose_node(nodes, "20") is choose_node(nodes, "2" + "0" * 31) is nodes[1]
    for text in ("3", "", "x", "2" * 40):
        with pytest.raises(ConfigError, match="no node is"):
            choose_node(nodes, text)
    with pytest.raises(ConfigError, match="more than one"):
        choose_node((node(1, "d", node_id="ab1"), node(2, "d", node_id="ab2")), "ab")


@given(
    st.integers(1, 16),
    st.lists(
        st.tuples(
            st.sampled_from(list(NodeState)), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0, 50 * GIB])
        ),
        max_size=8,
    ),
)
def test_every_cluster_has_a_report(replicas: int, shapes: list[tuple[NodeState, int, int, int]]) -> None:
    """Sentences and figures for any states, domains and sizes, and all of it is JSON."""
    nodes = [
        node(number, f"z{zone}/h{host}/d", state, free_bytes=free_bytes)
        for number, (state, zone, host, free_bytes) in enumerate(shapes, 1)
    ]
    warnings = list_warnings(replicated(replicas), cluster(*nodes))
    assert all(warning.endswith(".") and "\n" not in warning for warning in warnings)
    assert len(json.loads(json.dumps(describe_nodes(cluster(*nodes))))) == len(nodes)


NOW_MS = 1_700_000_600_000
CONFIG = MasterConfig("unix:/m", "ab" * 16, "/k", MetadataSettings(path="/d", socket="/s"))
METADATA: dict[str, Any] = {"answers": True, "error": "", "buckets": 5, "users": 2, "writers": ["gateway@host:1"]}
HEALTHY = SurveyStatus(
    walks=2,
    walk_started_ms=NOW_MS - 120_000,
    walk_ended_ms=NOW_MS - 60_000,
    chunks=40,
    bytes=5 << 30,
    healthy=40,
    losses={"nodes": {1: 40}, "disks": {0: 40}},
)
SCRUBS = [
    NodeScrub(1, f"{1:032x}", "up", ScrubStatus(NOW_MS, 0, True, 5, 5_000, 10, 10_000, 0, 8 << 20)),
    NodeScrub(2, f"{2:032x}", "up", None, "it did not answer in 3 s"),
]


def test_status_for_people_holds_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """The same document is printed as JSON and as text; brackets in a text are shown as they are."""
    jobs = [
        Job("sweep", 3, 1, 1_700_000_000_000, "Unavailable: [red] node", {"expired": 7, "aborted": 0}),
        Job("rebalance", 3, 0, 1_700_000_000_000, "", {"moved": 12_345, "done": 30, "total": 120}, NOW_MS),
    ]
    told = Told(ONE_DISK, jobs, {"unix:/a": "active", "unix:/b": "silent"}, HEALTHY, SCRUBS)
    status = describe_status(CONFIG, told, METADATA, NOW_MS)
    print_status(status, as_json=True)
    assert json.loads(capsys.readouterr().out) == status
    print_status(status, as_json=False)
    text = capsys.readouterr().out
    for shown in ("ab" * 16, "epoch 7", "durability fsync", "50.0 GiB", "unix:/3", "z/h/d", "[red]", "5 buckets"):
        assert shown in text
    for sentence in status["health"]:
        assert sentence in text
    assert "expired 7" in text
    assert "aborted" not in text
    assert "moved 12,345" in text
    assert "25 %" in text
    assert any(warning.startswith("Job sweep fails") for warning in status["warnings"])
    assert (status["verdict"], status["reasons"]) == ("degraded", ["1 job failing"])


def test_the_shape_of_status_for_programs() -> None:
    """Names that monitoring reads stay; a new one is added here on purpose."""
    told = Told(THREE_HOSTS, [Job("sweep", 1, 0, 1, "")], {"unix:/m": "active"}, HEALTHY, SCRUBS)
    status = describe_status(CONFIG, told, METADATA, NOW_MS)
    assert list(status) == [
        "cluster_id",
        "epoch",
        "verdict",
        "reasons",
        "redundancy",
        "durability",
        "survives",
        "summary",
        "health",
        "affected",
        "warnings",
        "notes",
        "survey",
        "scrub",
        "nodes",
        "masters",
        "jobs",
        "metadata",
    ]
    assert set(status["survey"]) == set(SurveyStatus.__struct_fields__)
    assert status["survey"]["losses"] == {"nodes": {"1": 40}, "disks": {"0": 40}}
    assert set(status["scrub"][0]) == {"number", "node_id", "state", "status", "error"}
    assert set(status["scrub"][0]["status"]) == set(ScrubStatus.__struct_fields__)
    assert list(status["jobs"][0]) == list(Job.__struct_fields__)
    assert list(status["nodes"][0]) == [
        "number",
        "node_id",
        "state",
        "is_full",
        "address",
        "failure_domain",
        "capacity_bytes",
        "free_bytes",
        "reserve_bytes",
        "durability",
        "last_heard_ms",
        "is_closed",
        "chunk_count",
        "stored_bytes",
        "requests",
        "damaged_count",
        "unverified_count",
        "oldest_verified_ms",
        "medium_error",
    ]
    assert (status["verdict"], status["reasons"]) == ("well", [])


def test_metadata_that_does_not_answer_comes_first() -> None:
    """Without it nothing works."""
    told = Told(THREE_HOSTS, [], {}, HEALTHY, [])
    status = describe_status(CONFIG, told, {"answers": False, "error": "no owner"}, NOW_MS)
    assert status["warnings"] == ["The metadata does not answer, so no request succeeds: no owner"]
    assert status["verdict"] == "lost"


def test_objects_that_cannot_be_read_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """By name, as they are."""
    survey = msgspec.structs.replace(
        HEALTHY, healthy=39, lost=1, affected=(AffectedObject("lost", "bucket", "[bold]a\\xff", "null"),)
    )
    status = describe_status(CONFIG, Told(THREE_HOSTS, [], {}, survey, []), METADATA, NOW_MS)
    print_status(status, as_json=False)
    assert "lost: s3://bucket/[bold]a\\xff" in capsys.readouterr().out
    assert (status["verdict"], status["reasons"]) == ("lost", ["1 chunk lost"])
