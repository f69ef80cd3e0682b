"""Turns of bodies: who begins when, and that nobody is held up for long. Time that must pass is made short, time that
must not is made long."""

from __future__ import annotations

import asyncio

import pytest

import s3gw.turns
from s3gw.turns import BODY_BYTES_MAX, BODY_BYTES_MIN, WAITING_MAX, Turn, Turns, takes_turns

NEVER_S = 600.0
SOON_S = 0.001


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens by itself."""
    monkeypatch.setattr(s3gw.turns, "TURN_S", NEVER_S)
    monkeypatch.setattr(s3gw.turns, "WAIT_S_MAX", NEVER_S)


async def taken(turns: Turns) -> Turn:
    """A turn, and not the leave to begin without."""
    turn = await turns.take()
    assert turn is not None
    return turn


async def start_waiting(turns: Turns, count: int = 1) -> list[asyncio.Task[Turn | None]]:
    """So many that wait, in their order."""
    tasks = [asyncio.create_task(turns.take()) for _ in range(count)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def test_one_after_the_other() -> None:
    """In the order in which they came; a free turn is had at once."""
    turns = Turns()
    turn = await taken(turns)
    waiting = await start_waiting(turns, 3)
    for place, task in enumerate(waiting):
        turn.end()
        following = await task
        assert following is not None
        assert not any(other.done() for other in waiting[place + 1 :])
        turn = following
    turn.end()
    (await taken(turns)).end()


async def test_a_turn_ends_once() -> None:
    """Ending it again, or late, takes nothing from whoever has it then."""
    turns = Turns()
    first = await taken(turns)
    first.end()
    await taken(turns)
    (waiting,) = await start_waiting(turns)
    first.end()
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_a_turn_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a body that comes slowly, or whose client went away."""
    monkeypatch.setattr(s3gw.turns, "TURN_S", SOON_S)
    turns = Turns()
    await taken(turns)
    assert await turns.take() is not None


async def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited begins without the turn, and is not handed it later."""
    monkeypatch.setattr(s3gw.turns, "WAIT_S_MAX", SOON_S)
    turns = Turns()
    turn = await taken(turns)
    assert await turns.take() is None
    turn.end()
    (await taken(turns)).end()


async def test_a_crowd_does_not_wait() -> None:
    """Beyond those who wait already."""
    turns = Turns()
    turn = await taken(turns)
    waiting = await start_waiting(turns, WAITING_MAX)
    assert await turns.take() is None
    turn.end()
    assert await waiting[0] is not None
    for task in waiting[1:]:
        task.cancel()


@pytest.mark.parametrize("is_granted", [False, True])
async def test_who_gives_up_is_passed_over(is_granted: bool) -> None:
    """Also one that was handed the turn and does not know it yet."""
    turns = Turns()
    turn = await taken(turns)
    first, second = await start_waiting(turns, 2)
    if is_granted:
        turn.end()
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    turn.end()
    assert await second is not None


@pytest.mark.parametrize(
    ("length", "address", "expected"),
    [
        (BODY_BYTES_MIN, "127.0.0.1", True),
        (BODY_BYTES_MAX, "127.8.9.1", True),
        (8 << 20, "::1", True),
        (BODY_BYTES_MIN - 1, "127.0.0.1", False),
        (BODY_BYTES_MAX + 1, "127.0.0.1", False),
        (8 << 20, "192.0.2.7", False),
        (8 << 20, "2001:db8::1", False),
        (8 << 20, "", False),
        (8 << 20, "localhost", False),
    ],
)
def test_who_takes_turns(length: int, address: str, expected: bool) -> None:
    """Parts that come from this machine."""
    assert takes_turns(length, address, [(b"host", b"x")]) is expected


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"via"])
def test_what_a_proxy_passes_on_takes_none(name: bytes) -> None:
    """It comes from afar."""
    assert not takes_turns(BODY_BYTES_MIN, "127.0.0.1", [(b"host", b"x"), (name, b"192.0.2.1")])
