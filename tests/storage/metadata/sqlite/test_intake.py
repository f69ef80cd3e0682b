"""What the writer takes from: what was put in and what connections bring, in the order of arrival, and nothing lost."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.base.errors import Unavailable
from storage.metadata.commands import Command, OpenSession
from storage.metadata.sqlite.intake import IN_FLIGHT_PER_CONNECTION_MAX, Intake, Submission
from storage.metadata.sqlite.wire import COMMAND, FrameReader, decode_outcome, encode_command, encode_frame

COMMANDS = [OpenSession(b"%08d" % number, "x") for number in range(2 * IN_FLIGHT_PER_CONNECTION_MAX)]


class Taking:
    """An intake in this thread, and what it says of commands."""

    def __init__(self, path: Path) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        self.path = path
        self.reason = ""
        self.intake = Intake(listening, self.refuse)
        self.clients: list[socket.socket] = []

    def refuse(self, command: Command) -> str:
        return self.reason

    def connect(self) -> socket.socket:
        """A client that was let in."""
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))
        client.settimeout(10)
        self.clients.append(client)
        while len(self.intake.peers) < len(self.clients):
            assert self.intake.qsize() == 0
        return client

    def close(self) -> None:
        self.intake.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def taking(tmp_path: Path) -> Iterator[Taking]:
    """Closed after the test, if not by it."""
    made = Taking(tmp_path / "s")
    yield made
    if made.intake.selector.get_map() is not None:
        made.close()


def outcomes(client: socket.socket, count: int) -> dict[int, Any]:
    """That many answers, by request id."""
    reader, found = FrameReader(), dict[int, Any]()
    while len(found) < count:
        data = client.recv(1 << 16)
        assert data, found
        found.update({frame.request_id: decode_outcome(frame, OpenSession) for frame in reader.feed(data)})
    return found


def hear(taking: Taking, client: socket.socket, count: int) -> dict[int, Any]:
    """As outcomes, while the intake goes on."""
    found: dict[int, Any] = {}
    hearing = threading.Thread(target=lambda: found.update(outcomes(client, count)))
    hearing.start()
    while hearing.is_alive():
        assert taking.intake.qsize() == 0
    return found


def take(taking: Taking, count: int) -> list[Submission]:
    """That many commands."""
    taken = [taking.intake.get() for _ in range(count)]
    assert all(isinstance(arrival, Submission) for arrival in taken)
    return taken


def test_it_is_a_queue_for_what_is_put_in(taking: Taking) -> None:
    """Also from another thread while it waits."""
    intake = taking.intake
    assert intake.qsize() == 0
    with pytest.raises(queue.Empty):
        intake.get_nowait()
    with pytest.raises(queue.Empty):
        intake.get(timeout=0.001)
    for number in range(3):
        intake.put(number)
    assert intake.qsize() == 3
    assert [intake.get(), intake.get_nowait(), intake.get(timeout=0.001)] == [0, 1, 2]

    def put_late() -> None:
        for number in range(200):
            time.sleep(0.0001 * (number % 3))
            intake.put(number)

    putting = threading.Thread(target=put_late)
    putting.start()
    assert [intake.get() for _ in range(200)] == list(range(200))
    putting.join()


def test_a_command_ends_the_wait_for_it(taking: Taking) -> None:
    """And what is put in is there at its end at the latest."""
    client = taking.connect()
    sending = threading.Timer(0.02, client.sendall, (encode_command(0, COMMANDS[0]),))
    sending.start()
    began = time.monotonic()
    assert taking.intake.get(timeout=60.0).command == COMMANDS[0]
    assert time.monotonic() - began < 30
    sending.join()
    putting = threading.Timer(0.02, taking.intake.put, ("late",))
    putting.start()
    assert taking.intake.get(timeout=0.5) == "late"
    putting.join()


def test_commands_of_a_connection_come_in_order_and_are_answered(taking: Taking) -> None:
    """Cut anywhere, beside what is put in, with a refusal among them that was never queued."""
    client = taking.connect()
    data = b"".join([encode_command(number, COMMANDS[number]) for number in range(10)])
    client.sendall(data[:25])
    assert taking.intake.qsize() == 0
    client.sendall(data[25:])
    submissions = take(taking, 10)
    assert [submission.command for submission in submissions] == COMMANDS[:10]
    submissions[0].sink.answer([(submission.ticket, None) for submission in submissions])
    assert outcomes(client, 10) == dict.fromkeys(range(10))
    taking.reason = "not now"
    client.sendall(encode_command(10, COMMANDS[10]))
    assert taking.intake.qsize() == 0
    refused = outcomes(client, 1)[10]
    assert isinstance(refused, Unavailable)
    assert (str(refused), refused.details) == ("not now", {})


@pytest.mark.parametrize(
    "end",
    [
        lambda client: client.sendall(encode_frame(1, COMMAND, b"\x91\xa7Unknown")),
        lambda client: client.sendall(encode_frame(1, COMMAND, b"\x91" * 5000)),
        lambda client: client.close(),
    ],
    ids=["another protocol", "what no decoder takes", "gone"],
)
def test_a_connection_that_ends_takes_nothing_with_it(taking: Taking, end: Callable[[socket.socket], None]) -> None:
    """What came before is taken, its answer is dropped, others are served."""
    client, other = taking.connect(), taking.connect()
    client.sendall(encode_command(1, COMMANDS[1]))
    (submission,) = take(taking, 1)
    end(client)
    while len(taking.intake.peers) > 1:
        assert taking.intake.qsize() == 0
    submission.sink.answer([(1, None)])
    other.sendall(encode_command(2, COMMANDS[2]))
    (submission,) = take(taking, 1)
    submission.sink.answer([(2, None)])
    assert outcomes(other, 1) == {2: None}


def test_commands_in_flight_of_one_connection_are_bounded(taking: Taking) -> None:
    """Those above are refused, and none is lost."""
    client = taking.connect()
    sending = threading.Thread(
        target=lambda: client.sendall(b"".join([encode_command(n, c) for n, c in enumerate(COMMANDS)]))
    )
    sending.start()
    submissions = take(taking, IN_FLIGHT_PER_CONNECTION_MAX)
    while sending.is_alive():
        assert taking.intake.qsize() == 0
    assert taking.intake.qsize() == 0
    refused = hear(taking, client, len(COMMANDS) - len(submissions))
    assert {str(outcome) for outcome in refused.values()} == {"too many writes in flight on this connection"}
    submissions[0].sink.answer([(submission.ticket, None) for submission in submissions])
    answered = hear(taking, client, len(submissions))
    assert sorted([*answered, *refused]) == list(range(len(COMMANDS)))


def test_a_connection_that_takes_no_answers_is_not_read(taking: Taking) -> None:
    """Until it has taken what waits for it; others do not notice."""
    deaf, other = taking.connect(), taking.connect()
    deaf.sendall(encode_command(1, COMMANDS[1]))
    (submission,) = take(taking, 1)
    long = Unavailable("x" * (1 << 20))
    submission.sink.answer([(1, long)])
    deaf.sendall(encode_command(2, COMMANDS[2]))
    other.sendall(encode_command(3, COMMANDS[3]))
    assert [submission.ticket for submission in take(taking, 1)] == [3]
    assert taking.intake.qsize() == 0

    answers: dict[int, Any] = {}
    listening = threading.Thread(target=lambda: answers.update(outcomes(deaf, 1)))
    listening.start()
    assert [submission.ticket for submission in take(taking, 1)] == [2]
    listening.join()
    assert str(answers[1]) == str(long)


def test_closing_refuses_what_was_not_taken_and_hands_out_the_answers(taking: Taking) -> None:
    """A client that takes them gets them all; one that does not is left behind."""
    client, deaf = taking.connect(), taking.connect()
    deaf.sendall(encode_command(1, COMMANDS[1]))
    (deaf_submission,) = take(taking, 1)
    client.sendall(b"".join([encode_command(number, COMMANDS[number]) for number in range(3)]))
    (first,) = take(taking, 1)
    deaf_submission.sink.answer([(1, Unavailable("x" * (1 << 20)))])
    first.sink.answer([(0, Unavailable("y" * (1 << 20)))])
    answers: dict[int, Any] = {}
    listening = threading.Thread(target=lambda: answers.update(outcomes(client, 3)))
    listening.start()
    taking.intake.close()
    listening.join()
    assert len(str(answers[0])) == 1 << 20
    assert [str(answers[number]) for number in (1, 2)] == ["the metadata owner is stopping"] * 2
    assert client.recv(1) == b""
    taking.clients.clear()
