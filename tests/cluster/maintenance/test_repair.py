"""The plan of a repair: for every state of a chunk's pieces, replicas and fragments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.repair import USABLE, Finding, Piece, is_enough, name_nodes, plan_repair
from cluster.redundancy import Redundancy, parse_redundancy

REDUNDANCIES = [
    parse_redundancy(text) for text in ("replica:1", "replica:2", "replica:3", "ec:2+1", "ec:3+2", "ec:4+2")
]
LOST = (Finding.MISSING, Finding.BAD)


@st.composite
def chunks(draw: st.DrawFn) -> tuple[Redundancy, list[Piece], list[Piece], list[int]]:
    """A redundancy, what its row names, strays, and the nodes that can take a piece."""
    redundancy = draw(st.sampled_from(REDUNDANCIES))
    numbers = draw(st.permutations(range(1, 13)))
    findings = st.sampled_from(Finding)
    if redundancy.is_erasure:
        positions = draw(st.sets(st.integers(0, redundancy.width - 1)))
        named = [Piece(position, numbers.pop(), draw(findings)) for position in sorted(positions)]
        position = st.integers(0, redundancy.width - 1)
    else:
        named = [Piece(0, numbers.pop(), draw(findings)) for _ in range(draw(st.integers(1, redundancy.width + 1)))]
        position = st.just(0)
    strays = [
        Piece(draw(position), numbers.pop(), draw(st.sampled_from(USABLE))) for _ in range(draw(st.integers(0, 2)))
    ]
    # Nodes of named pieces that answered can take one, and others; dead and draining ones cannot.
    able = [*numbers, *(it.node for it in (*named, *strays) if it.finding not in (Finding.AWAY, Finding.LEAVING))]
    return redundancy, named, strays, draw(st.permutations(able))[: draw(st.integers(0, len(able)))]


def after(
    redundancy: Redundancy, named: list[Piece], strays: list[Piece], able: list[int], fails: set[int]
) -> list[Piece]:
    """What the row names, and how that is, once a repair was carried out with some of its targets failing."""
    plan = plan_repair(redundancy, named, strays, able)
    if plan is None:
        return named
    made: list[Piece] = []
    targets = iter(plan.targets)
    for position in plan.wanted:
        for target in targets:
            if target not in fails:
                made.append(Piece(position, target))
                break
    nodes = name_nodes(redundancy, plan, made)
    known = {(piece.position, piece.node): piece for piece in (*named, *strays, *made)}
    places = enumerate(nodes) if redundancy.is_erasure else ((0, number) for number in nodes)
    return [known[place] for place in places if place[1]]


@given(chunks(), st.sets(st.integers(1, 12)))
def test_nothing_that_may_be_there_is_dropped(
    chunk: tuple[Redundancy, list[Piece], list[Piece], list[int]], fails: set[int]
) -> None:
    """Good pieces of nodes that stay, and those of silent ones, are named before and after; dead and draining ones
    until something good took their place; and nothing is dropped of a chunk that cannot be read."""
    redundancy, named, strays, able = chunk
    result = after(redundancy, named, strays, able, fails)
    for piece in named:
        if piece.finding in (Finding.GOOD, Finding.UNKNOWN):
            assert piece in result
        elif piece not in result and redundancy.is_erasure and piece.finding not in LOST:
            assert [it.finding for it in result if it.position == piece.position] == [Finding.GOOD]
    good = {it for it in (*named, *strays) if it.finding in USABLE}
    if not is_enough(redundancy, good):
        held = {it.position for it in good}
        assert all(it in result or it.position in held or not redundancy.is_erasure for it in named)
        assert len(result) >= min(len(named), redundancy.width)
    assert len({it.node for it in result}) == len(result)
    if is_enough(redundancy, [it for it in named if it.finding in USABLE]):
        assert is_enough(redundancy, [it for it in result if it.finding in USABLE])


@given(chunks())
def test_a_plan_makes_what_is_missing_and_converges(
    chunk: tuple[Redundancy, list[Piece], list[Piece], list[int]],
) -> None:
    """With every target willing: as many good pieces as there should be, or as there are nodes for; and a second
    look finds nothing more to do."""
    redundancy, named, strays, able = chunk
    result = after(redundancy, named, strays, able, set())
    plan = plan_repair(redundancy, named, strays, able)
    sources = [it for it in (*named, *strays) if it.finding in USABLE]
    if plan is None or not is_enough(redundancy, sources):
        return
    staying = [it for it in result if it.finding in (Finding.GOOD, Finding.UNKNOWN)]
    if is_enough(redundancy, [it for it in named if it.finding in USABLE]):
        assert not [it for it in result if it.finding in LOST]
    assert len(staying) >= min(redundancy.width, len(plan.kept) + len(plan.adopted) + len(plan.targets))
    held = {it.node for it in result}
    left = [it for it in strays if it.node not in held]
    again = plan_repair(redundancy, result, left, [number for number in able if number not in held])
    if len(staying) >= redundancy.width:
        assert again is None


@given(chunks())
def test_what_a_plan_uses(chunk: tuple[Redundancy, list[Piece], list[Piece], list[int]]) -> None:
    """Sources are good; targets are able, hold nothing that the row keeps, and those that lost or crowd come last."""
    redundancy, named, strays, able = chunk
    plan = plan_repair(redundancy, named, strays, able)
    if plan is None:
        return
    assert all(piece.finding in USABLE for piece in plan.sources)
    assert set(plan.targets) <= set(able)
    assert not set(plan.targets) & {piece.node for piece in (*plan.kept, *plan.spare, *plan.adopted)}
    crowded, lost = {it.node for it in strays}, {it.node for it in named if it.finding in LOST}
    ranks = [(number in crowded, number in lost) for number in plan.targets]
    assert ranks == sorted(ranks)
    if redundancy.is_erasure:
        assert len(set(plan.wanted)) == len(plan.wanted)
        assert not set(plan.wanted) & {piece.position for piece in plan.kept}
    for position in plan.wanted:
        assert is_enough(redundancy, plan.sources) or position in {piece.position for piece in plan.sources}
    assert set(plan.set_aside) <= {piece.node for piece in named if piece.finding is Finding.BAD}


def test_a_silent_piece_is_waited_for() -> None:
    """Its node did not answer, and the master has not given it up."""
    redundancy = parse_redundancy("replica:2")
    assert plan_repair(redundancy, [Piece(0, 1), Piece(0, 2, Finding.UNKNOWN)], [], [3]) is None


def test_a_dead_replica_stays_named_until_another_is_made() -> None:
    """With nowhere to go the row keeps the dead node: it may come back."""
    redundancy = parse_redundancy("replica:2")
    named = [Piece(0, 1), Piece(0, 2, Finding.AWAY)]
    plan = plan_repair(redundancy, named, [], [3])
    assert plan is not None
    assert (plan.wanted, plan.targets) == ((0,), (3,))
    assert name_nodes(redundancy, plan, []) == (1, 2)
    assert name_nodes(redundancy, plan, [Piece(0, 3)]) == (1, 3)


def test_a_leaving_fragment_keeps_its_position() -> None:
    """Until its copy is made; what is missing is nowhere."""
    redundancy = parse_redundancy("ec:2+1")
    named = [Piece(0, 1, Finding.LEAVING), Piece(1, 2), Piece(2, 3, Finding.BAD)]
    plan = plan_repair(redundancy, named, [], [4, 3])
    assert plan is not None
    assert (plan.wanted, plan.targets, plan.set_aside) == ((0, 2), (4, 3), (3,))
    assert name_nodes(redundancy, plan, []) == (1, 2, 0)
    assert name_nodes(redundancy, plan, [Piece(0, 4)]) == (4, 2, 0)
    assert name_nodes(redundancy, plan, [Piece(0, 4), Piece(2, 3)]) == (4, 2, 3)


def test_a_stray_brings_back_what_was_lost() -> None:
    """Both named replicas are gone, and a node that came back still has one."""
    redundancy = parse_redundancy("replica:2")
    named = [Piece(0, 1, Finding.MISSING), Piece(0, 2, Finding.MISSING)]
    assert plan_repair(redundancy, named, [], [3, 4]) is None
    plan = plan_repair(redundancy, named, [Piece(0, 5)], [3, 4])
    assert plan is not None
    assert name_nodes(redundancy, plan, [Piece(0, 3)]) == (5, 3)
