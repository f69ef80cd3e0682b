"""One connection of the short way (short_way.py): whole requests past ASGI, and where they are plain past the parser.

A PUT whose head is plain and whose signature holds is gathered here until its body is whole. What a body takes too long
for, or the short way leaves, goes through the parser from its first byte, as if it had arrived just now: the road then
is as patient, as bounded and as exact as with any other request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from s3gw.gathering import Gathering
from s3gw.http_limits import HttpLimits
from s3gw.known_heads import KnownRequest
from s3gw.plain_head import parse_plain_head, parse_plain_write
from s3gw.protocol.claims import join_headers
from s3gw.short_answer import HeldRequest, LeavingCycle, LongReads, ShortCycle, format_head
from s3gw.short_way import READ_BYTES_MAX, ShortRead, ShortWay
from s3gw.short_write import SMALL_BYTES_MAX, WRITE_BYTES_MAX, ShortWrite
from storage.base.internal_server import BoundedProtocol


class ShortConnection(BoundedProtocol):
    """What GatewayProtocol does with requests of the short way; all others are the parser's."""

    def __init__(self, *args: Any, limits: HttpLimits, short_way: ShortWay | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._short_way = short_way
        self._read_bytes_max = READ_BYTES_MAX
        self._address = ""
        self._leaving: LeavingCycle | None = None
        self._long_reads = LongReads()
        self._is_for_road = False
        """what arrived is a PUT that the short way has seen and left"""
        self._held: HeldRequest | None = None
        """a request that may go the short way, while its bytes are being parsed"""
        self._gathering: Gathering | None = None
        """a PUT whose body is still to come"""
        self._running: RequestResponseCycle | None = None
        """the request whose response is next on the wire"""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if transport.get_extra_info("sslcontext") is not None:
            self._read_bytes_max = SMALL_BYTES_MAX  # what such a transport has not sent yet cannot be known
        if self.client:
            self._address = self.client[0]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_leaving()
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.end()
            gathering.write.give_up()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._leaving is not None:
            self.transport.set_write_buffer_limits()
            self._end_leaving()

    def data_received(self, data: bytes) -> None:
        if not self._serve_plain(data):
            self._parse(data)

    # ------------------------------------------------------------------ past the parser

    def _serve_plain(self, data: bytes) -> bool:
        """A read that is whole, or a PUT of which at least the head is, on a connection that was idle. False: nothing
        has happened."""
        cycle = self.cycle
        if (
            self.timeout_keep_alive_task is None
            or self._in_head
            or self._short_way is None
            or (cycle is not None and not cycle.response_complete)
            or self.transport.get_write_buffer_size()
            or len(self.tasks) >= self._limits.requests_max
        ):
            return False
        known = self._short_way.find_known(data)
        if known is None:
            if (put := parse_plain_write(data, WRITE_BYTES_MAX)) is not None:
                write = self._begin_write(put.target, put.headers, put.length, data)
                return self._serve_plain_write(write, data, put.body)
        elif known.method == b"PUT":
            write = self._short_way.begin_known(known, self._address)
            return self._serve_plain_write(write, data, memoryview(data)[known.body_at :])
        return not self._long_reads.expected and self._serve_plain_read(data, known)

    def _serve_plain_read(self, data: bytes, known: KnownRequest | None) -> bool:
        assert self._short_way is not None
        if known is not None:
            read = self._short_way.read_known(known, self._address, self._read_bytes_max)
            self._long_reads.note(is_long=read is None)
        elif (head := parse_plain_head(data)) is not None:
            read = self._read_short(*head, data)
        else:
            return False
        if read is None:
            self._long_reads.expected += 1  # this one: the parser brings it again
            return False
        self._heads += 1
        self.note_served()
        if not self._hand_over(read):
            self._unset_keepalive_if_required()
        return True

    def _serve_plain_write(self, write: ShortWrite | None, data: bytes, body: memoryview) -> bool:
        self._is_for_road = write is None or not self._take_plain_write(write, data, body)
        return not self._is_for_road

    def _take_plain_write(self, write: ShortWrite, data: bytes, body: memoryview) -> bool:
        write.take(body)
        if len(body) == write.length:
            if not self._commit(write, body):
                return False
        elif write.make_room():
            self._gathering = Gathering(self, write, data, body, self._end_gathering, self._leave_to_road)
            self._unset_keepalive_if_required()  # until it is answered
        else:
            return False
        self._heads += 1
        return True

    def _end_gathering(self) -> None:
        """The body is whole."""
        gathering = self._gathering
        assert gathering is not None, "it was being gathered"
        has_room = len(self.tasks) < self._limits.requests_max
        if has_room and self._commit(gathering.write, gathering.body):
            self._gathering = None
            gathering.end()
        else:
            self._leave_to_road()

    def _leave_to_road(self) -> None:
        """What was gathered, if anything, arrives anew."""
        gathering, self._gathering = self._gathering, None
        if gathering is None:
            return
        gathering.end()
        gathering.write.give_up()
        self._is_for_road = True
        for block in gathering.blocks:
            if block and not self.transport.is_closing():
                self._parse(block)

    # ------------------------------------------------------------------ through the parser

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        self._is_for_road = False
        if self._held is not None:  # the rest of its body is still to come
            self._let_go()

    def on_headers_complete(self) -> None:
        if self._short_way is not None and self._may_be_short():
            self._in_head = False
            self._held = HeldRequest(self.parser.get_method().decode("ascii"), self.url)
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._held is not None:
            self._held.body += body
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._held is not None:
            if self._serve_short(self._held):
                self._held = None
                return
            self._let_go()
        super().on_message_complete()

    def _may_be_short(self) -> bool:
        """Whether nothing else is under way here, and nothing about HTTP needs more than an answer. The answer before
        has left: who does not read gets one, and waits for the others on the road."""
        cycle = self.cycle
        return (
            (cycle is None or (cycle.response_complete and not cycle.more_body))
            and self.parser.get_http_version() == "1.1"
            and not self.pipeline
            and not self.transport.get_write_buffer_size()
            and not self.expect_100_continue
            and len(self.tasks) < self._limits.requests_max
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def _serve_short(self, held: HeldRequest) -> bool:
        """False: it goes on as any other. Its body, if any, has come whole."""
        headers = join_headers(self.headers)
        if held.method == "PUT":
            return not self._is_for_road and self._write_short(held, headers)
        if held.body or held.method not in ("GET", "HEAD"):
            return False
        if self._long_reads.expected:
            self._long_reads.expected -= 1
            return False
        read = self._read_short(held.method, held.url, headers)
        if read is None:
            return False
        if self._hand_over(read):
            super().on_response_complete()
        return True

    def _write_short(self, held: HeldRequest, headers: dict[bytes, bytes]) -> bool:
        body = memoryview(bytes(held.body))
        write = self._begin_write(held.url, headers, len(body))
        if write is None:
            return False
        write.take(body)
        return self._commit(write, body)

    def _let_go(self) -> None:
        """What was held goes on as any other request, with as much of its body as has come."""
        held, self._held = self._held, None
        assert held is not None
        super().on_headers_complete()
        if held.body:
            super().on_body(bytes(held.body))

    # ------------------------------------------------------------------ to and from the short way

    def _begin_write(
        self, url: bytes, headers: dict[bytes, bytes], length: int, data: bytes = b""
    ) -> ShortWrite | None:
        assert self._short_way is not None
        return self._short_way.begin_write(url, headers, length, self._address, data)

    def _commit(self, write: ShortWrite, body: memoryview) -> bool:
        """The body is whole. False: it is for the road."""
        cycle = ShortCycle(self)
        if not write.commit(body, cycle.answer, self._start_task):
            return False
        self.cycle = self._running = cycle  # type: ignore[assignment]
        return True

    def end_short(self) -> None:
        """A PUT was answered. Where its bytes were all that came since the idle timer was set, that goes on: to set it
        anew each time costs as much as the answer."""
        if self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            self.note_served()

    def _start_task(self, storing: Coroutine[Any, Any, None]) -> None:
        """A request under way, as uvicorn keeps them."""
        task = self.loop.create_task(storing)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _read_short(self, method: str, url: bytes, headers: dict[bytes, bytes], data: bytes = b"") -> ShortRead | None:
        assert self._short_way is not None
        read = self._short_way.read(method, url, headers, self._address, self._read_bytes_max, data)
        self._long_reads.note(is_long=read is None)
        return read

    def _hand_over(self, read: ShortRead) -> bool:
        """Send an answer. False: the client did not take all of it at once; its cycle is under way until it has."""
        head = format_head(self.server_state.default_headers, read.status, read.lines)
        body, transport = read.body, self.transport
        if not isinstance(body, memoryview):
            transport.write(head + body)
            return True
        transport.writelines((head, body))
        if not transport.get_write_buffer_size():
            return True
        self._leaving = LeavingCycle(self, read.keep())
        self.cycle = self._running = self._leaving  # type: ignore[assignment]
        transport.set_write_buffer_limits(0)  # so that resume_writing tells when all of it has left
        return False

    def _end_leaving(self) -> None:
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            leaving.end()
