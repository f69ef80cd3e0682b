"""Redundancy and failure domains: parsing, and how many losses data survives."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.domains import SurvivableLosses, count_survivable, evaluate_losses, parse_levels
from cluster.redundancy import (
    Redundancy,
    choose_for_size,
    evaluate_chunk,
    evaluate_cluster,
    parse_redundancy,
    replicated,
)
from storage.base.errors import NotEnoughNodes
from storage.chunks.erasure import SEALED_FRAME_BYTES, stripe_coder
from storage.model import NodeState
from tests.cluster.nodes import make_node


@given(st.integers(1, 16))
def test_replicas_round_trip(replicas: int) -> None:
    """Text → value → text."""
    redundancy = parse_redundancy(f"replica:{replicas}")
    assert redundancy == replicated(replicas)
    assert str(redundancy) == f"replica:{replicas}"
    assert (redundancy.needed, redundancy.width, redundancy.losses) == (1, replicas, replicas - 1)
    assert redundancy.pieces_before_ack_min == replicas


@given(st.integers(1, 24), st.integers(1, 8))
def test_erasure_codes_round_trip(data: int, parity: int) -> None:
    """Text → value → text."""
    redundancy = parse_redundancy(f"ec:{data}+{parity}")
    assert str(redundancy) == f"ec:{data}+{parity}"
    assert (redundancy.needed, redundancy.width, redundancy.losses) == (data, data + parity, parity)
    assert redundancy.pieces_before_ack_min == data + parity
    stripe_coder(redundancy.needed, redundancy.width)


@given(st.integers(1, 24), st.integers(1, 8), st.integers(0, 64 * SEALED_FRAME_BYTES))
def test_small_blobs_of_an_erasure_code_use_replicas(data: int, parity: int, size: int) -> None:
    """That survive as many losses; from one stripe on, fragments."""
    policy = Redundancy(data, data + parity, is_erasure=True)
    chosen = choose_for_size(policy, size)
    assert chosen.losses == policy.losses
    assert chosen.is_erasure == (size >= data * SEALED_FRAME_BYTES)
    assert choose_for_size(chosen, size) == chosen
    assert choose_for_size(replicated(parity), size) == replicated(parity)


@pytest.mark.parametrize(
    "text",
    [
        *("", "replica", "replica:", "replica:0", "replica:17", "replica:2 ", "replica:02", "Replica:2", "replica:-1"),
        *("ec:4", "ec:0+1", "ec:4+0", "ec:25+2", "ec:4+9", "inline", "replica:٢", "x" * 10_000),
    ],
)
def test_other_texts_are_refused_in_one_line(text: str) -> None:
    """Short, whatever was given."""
    with pytest.raises(ValueError, match=r".+") as caught:
        parse_redundancy(text)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=30))
def test_hostile_texts(text: str) -> None:
    """ValueError or a value that writes itself as it was read."""
    try:
        redundancy = parse_redundancy(text)
    except ValueError:
        return
    assert str(redundancy) == text


def test_levels_name_their_parents() -> None:
    """The same disk number on two hosts is two disks."""
    assert parse_levels("a/b/c") == ("a", "a/b", "a/b/c")
    assert parse_levels("a/b/c/d") == ("a", "a/b", "a/b/c/d")
    assert parse_levels("a") == ("a", "a", "a")
    assert parse_levels("") == ("", "", "")


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.integers(1, 4))
def test_survivable_losses_are_what_trying_all_losses_shows(held: list[str], needed: int) -> None:
    """Against the definition: every set of that many domains can go, and some set of one more cannot."""
    domains = sorted(set(held))

    def survives(lost: tuple[str, ...]) -> bool:
        return sum(domain not in lost for domain in held) >= needed

    best = -1
    for count in range(len(domains) + 1):
        if not all(survives(lost) for lost in combinations(domains, count)):
            break
        best = count
    assert count_survivable(held, needed) == best


def test_three_replicas_on_one_disk_survive_nothing_but_a_node() -> None:
    """Said honestly: three datanodes on one disk are one domain."""
    nodes = [make_node(number, "default/laptop/66305") for number in (1, 2, 3)]
    assert evaluate_cluster(replicated(2), nodes) == SurvivableLosses(zones=0, hosts=0, disks=0, nodes=1)


def test_a_cluster_promises_what_its_worst_chunk_has() -> None:
    """Hosts in one zone; then two zones."""
    hosts = [make_node(number, f"z/h{number}/0") for number in (1, 2, 3)]
    assert evaluate_cluster(replicated(2), hosts) == SurvivableLosses(0, 1, 1, 1)
    zones = [make_node(number, f"z{number % 2}/h{number}/0") for number in range(1, 5)]
    assert evaluate_cluster(replicated(3), zones) == SurvivableLosses(1, 2, 2, 2)
    with pytest.raises(NotEnoughNodes):
        evaluate_cluster(replicated(2), [hosts[0], make_node(2, state=NodeState.DEAD)])


def test_a_degraded_chunk_is_said_to_be_so() -> None:
    """One replica left survives no loss; none left cannot be read."""
    assert evaluate_chunk(replicated(2), [make_node(1)]) == SurvivableLosses(0, 0, 0, 0)
    assert evaluate_chunk(replicated(2), []) == SurvivableLosses(-1, -1, -1, -1)
    erasure = parse_redundancy("ec:2+1")
    assert evaluate_losses(["z/a/1", "z/a/2", "z/b/1"], erasure.needed) == SurvivableLosses(0, 0, 1, 1)
