"""Ranges of a datanode's segments, borrowed: one blocking connection for each, which lasts as long as the loan does."""

from __future__ import annotations

import ctypes
import errno
import socket
from contextlib import suppress

from storage.base.address import Address
from storage.base.answer_reader import AnswerReader
from storage.base.errors import NodeUnreachable, Unavailable
from storage.base.internal_auth import bearer
from storage.base.internal_connection import format_header, format_request
from storage.base.internal_line import connect
from storage.chunks.lent_range import Ending
from storage.chunks.near_drafts import NotLent
from storage.datanode import range_wire, wire

STEP_TIMEOUT_S = 5.0
"""for connecting, and for each step of asking and of giving back"""
ANSWER_BYTES_MAX = 64 * 1024
_READ_BYTES = 4096
_recv = ctypes.PyDLL(None, use_errno=True).recv
"""It never waits, so it keeps the interpreter's lock: to have that back from a busy event loop costs the thread that
looks up to 5 ms each time."""
_recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_recv.restype = ctypes.c_ssize_t
_LOOK = ctypes.create_string_buffer(1)
"""anybody's: what is in it is of no interest"""


class RangeClient:
    """Of one datanode of this machine. Used from any thread; its calls block."""

    def __init__(self, address: Address, token: str) -> None:
        """address: without TLS, as who reads a socket of TLS cannot look at what came without taking it."""
        if address.is_tls:
            raise ValueError("ranges are lent on this machine only")
        self._address = address
        self._headers = [
            format_header("Host", address.base_url.partition("://")[2]),
            format_header("Authorization", bearer(token)),
        ]

    def borrow(self, group: str, length: int) -> RangeLoan:
        """A range of so many bytes. NotLent by a datanode that lends none; NodeFull, NodeUnreachable, ChunkError."""
        try:
            made = connect(self._address, STEP_TIMEOUT_S)
        except OSError as error:
            raise NodeUnreachable(f"{self._address}: {error}") from error
        try:
            grant = self._ask(made, group, length)
            made.setblocking(False)
            return RangeLoan(made, grant)
        except (OSError, ValueError) as error:
            made.close()
            raise NodeUnreachable(f"{self._address}: {error}") from error
        except BaseException:
            made.close()
            raise

    def _ask(self, made: socket.socket, group: str, length: int) -> range_wire.Grant:
        headers = [format_header(*header) for header in range_wire.format_headers(length).items()]
        headers.append(b"Content-Length: %d\r\n" % range_wire.ENDING_BYTES)
        made.sendall(format_request("PUT", range_wire.format_target(group), [*self._headers, *headers]))
        reader, body = AnswerReader(), b""
        reader.begin(has_body=True)
        while not reader.is_over:
            data = made.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the other side hung up")
            body += reader.feed(data)
            if len(body) > ANSWER_BYTES_MAX:
                raise ValueError("the answer is too long")
            if reader.head is not None and reader.head.status == 200 and len(body) >= range_wire.GRANT_BYTES:
                return range_wire.parse_grant(body)
        assert reader.head is not None
        if reader.head.status in (404, 405):  # the first by a datanode of an earlier release
            raise NotLent(f"{self._address} lends no ranges")
        error = wire.parse_failure(reader.head.headers.get(wire.ERROR_HEADER, ""), body)
        if error is None or isinstance(error, Unavailable):
            raise NodeUnreachable(f"{self._address}: {error or reader.head.status}")
        raise error


class RangeLoan:
    """One range. Its calls come from one thread at a time, but for `hang_up`."""

    def __init__(self, made: socket.socket, grant: range_wire.Grant) -> None:
        self.grant = grant
        self._socket = made

    def is_lent(self) -> bool:
        """Whether the datanode is there and did not take the range back. After `end`: no."""
        fd = self._socket.fileno()
        return _recv(fd, _LOOK, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT) < 0 and ctypes.get_errno() == errno.EAGAIN

    def end(self, ending: Ending) -> None:
        """Give it back. Never fails: the datanode that does not hear it takes the range back when the connection is
        closed."""
        with suppress(OSError):
            self._socket.settimeout(STEP_TIMEOUT_S)
            self._socket.sendall(range_wire.format_ending(ending))
            self._socket.recv(len(range_wire.OVER))
        self._socket.close()

    def hang_up(self) -> None:
        """Say nothing of what is durable, as who dies; does not block. A thread that is stuck in a write may look at
        the connection later on, so its number is nobody else's until the last one has let go of this."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
