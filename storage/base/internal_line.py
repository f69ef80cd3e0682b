"""One persistent connection to another process of the cluster, for a thread that waits for each answer itself.

What InternalClient is to an event loop. Who must wait for several peers sends to all of them first, and then waits for
one after the other: no loop, no task and no second thread is in between. A request is sent again, once, on a new
connection where the kept one turns out to be lost before anything was answered, so only what may be sent twice belongs
here (RFC 9110 §9.2.2).
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress

from storage.base.address import Address
from storage.base.answer_reader import AnswerReader
from storage.base.errors import NodeUnreachable
from storage.base.internal_auth import bearer
from storage.base.internal_client import Answer, client_tls
from storage.base.internal_connection import StrangeAnswer, format_header, format_request

ANSWER_BYTES_MAX = 64 * 1024
READ_BYTES = 8 * 1024


class InternalLine:
    """To one peer. `send` and then `receive`, on one thread at a time; `close` on any."""

    def __init__(self, address: Address, token: str, *, tls_ca: str | None = None) -> None:
        """As InternalClient."""
        self._address = address
        self._tls = client_tls(tls_ca) if address.is_tls else None
        self._headers = [
            format_header("Host", address.base_url.partition("://")[2]),
            format_header("Authorization", bearer(token)),
        ]
        self._reader = AnswerReader()
        self._lock = threading.Lock()
        """of what `close` looks at: the socket, and whether somebody waits for an answer"""
        self._socket: socket.socket | None = None
        self._is_busy = False
        self._request = b""
        self._asked = ""
        """what was sent, for errors"""
        self._is_kept = False
        """whether the connection was made for an earlier request"""
        self._until_s = 0.0

    def send(self, method: str, target: str, body: bytes, within_s: float) -> None:
        """Send a request that is to be answered within so many seconds from now. NodeUnreachable."""
        if self._is_busy:  # somebody sent and did not wait: what came next would answer that
            self._drop()
        self._asked = f"{method} {self._address}{target.partition('?')[0]}"
        self._request = format_request(method, target, [*self._headers, b"Content-Length: %d\r\n" % len(body)]) + body
        self._until_s = time.monotonic() + within_s
        self._is_kept = self._socket is not None
        self._is_busy = True
        try:
            self._transmit()
        except OSError as error:
            if not self._is_kept or not isinstance(error, ConnectionError):  # else `receive` finds it lost
                raise self._fail(error) from error

    def receive(self) -> Answer:
        """The answer to what was sent. NodeUnreachable."""
        try:
            try:
                answer = self._read()
            except ConnectionError:
                if not self._is_kept or self._reader.head is not None:
                    raise
                self._drop()
                self._is_kept = False
                self._transmit()
                answer = self._read()
        except OSError as error:
            raise self._fail(error) from error
        with self._lock:
            self._is_busy = False
        return answer

    def close(self) -> None:
        """Let go of the connection; the next request makes another one. Who waits is told that it is lost."""
        with self._lock:
            if self._is_busy and self._socket is not None:
                self._is_kept = False
                with suppress(OSError):  # the peer was faster
                    self._socket.shutdown(socket.SHUT_RDWR)
            if self._is_busy:
                return
        self._drop()

    def _transmit(self) -> None:
        self._reader.begin(has_body=True)
        if self._socket is None:
            made = connect(self._address, self._left_s(), self._tls)
            with self._lock:
                self._socket = made
        self._limited().sendall(self._request)

    def _read(self) -> Answer:
        blocks = []
        size = 0
        while not self._reader.is_over:
            data = self._limited().recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("the other side hung up")
            try:
                blocks.append(self._reader.feed(data))
            except ValueError as error:
                raise StrangeAnswer(str(error)) from error
            size += len(blocks[-1])
            if size > ANSWER_BYTES_MAX:
                raise StrangeAnswer("the answer is too long")
        head = self._reader.head
        assert head is not None
        if not head.keeps:
            self._drop()
        return Answer(head.status, head.headers, b"".join(blocks))

    def _limited(self) -> socket.socket:
        """The connection, for one step of what is left of the time."""
        if self._socket is None:
            raise ConnectionResetError("there is no connection")
        self._socket.settimeout(self._left_s())
        return self._socket

    def _left_s(self) -> float:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _drop(self) -> None:
        with self._lock:
            made, self._socket = self._socket, None
        if made is not None:
            made.close()
        self._reader = AnswerReader()

    def _fail(self, error: OSError) -> NodeUnreachable:
        self._drop()
        with self._lock:
            self._is_busy = False
        kind = "missed a deadline" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        return NodeUnreachable(f"{self._asked}: {kind}")


def connect(address: Address, within_s: float, tls: ssl.SSLContext | None = None) -> socket.socket:
    """A connection whose steps are bounded by within_s each. OSError."""
    if address.is_unix:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(within_s)
            made.connect(address.path)
        except BaseException:
            made.close()
            raise
        return made
    made = socket.create_connection((address.host, address.port), within_s)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made if tls is None else tls.wrap_socket(made, server_hostname=address.host)
    except BaseException:
        made.close()
        raise
