"""The sending of answers: what a client that takes nothing costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from s3gw.respond import Intake, Responder


async def nothing_comes() -> Any:
    """ASGI's receive, of a request without a body."""
    raise AssertionError("there is nothing to receive")


async def test_a_client_that_takes_no_byte_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block has its own time, and what is between blocks does not count."""
    monkeypatch.setattr("s3gw.respond.SEND_STALL_S_MAX", 0.1)
    takes_s = 0.0

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(takes_s)

    responder = Responder(send, Intake(nothing_comes, False, False), False, [])
    await responder.start(200, [], 5)
    takes_s = 0.05
    for _ in range(3):
        await responder.write(b"a")
    await asyncio.sleep(0.2)
    await responder.write(b"a")
    takes_s = 60
    with pytest.raises(TimeoutError):
        await responder.write(b"a")
    responder.close()
    assert responder.bytes_sent == 4
