"""SANS-IO. The metadata socket: frames of a fixed header and a msgpack body, many in flight under request ids.

    0  4  length of the body, big-endian, at most FRAME_BYTES_MAX
    4  8  request id, chosen by the client, unique among its calls in flight
    12 1  kind
    13    body

Kinds: COMMAND to the owner (a tagged command); back from it DONE (the result as the command's docstring says), REFUSED
([name, message, details]) or UNAVAILABLE ([message, details]). Anything else is answered by closing the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from storage.base.errors import REFUSALS, FrostbyteError, Refused, Unavailable
from storage.metadata import commands as c
from storage.model import Bucket, Node, PartInfo, Upload

FRAME_BYTES_MAX = 8 << 20
"""a CompleteUpload of 10,000 parts with checksums has about 2 MiB"""

COMMAND, DONE, REFUSED, UNAVAILABLE = 1, 2, 3, 4

_HEADER = struct.Struct(">IQB")
HEADER_BYTES = _HEADER.size

_encode = msgspec.msgpack.Encoder().encode
_decode_command = msgspec.msgpack.Decoder(c.AnyCommand).decode
_decode_refusal = msgspec.msgpack.Decoder(tuple[str, str, dict[str, str]]).decode
_decode_unavailable = msgspec.msgpack.Decoder(tuple[str, dict[str, str]]).decode
_decode_none = msgspec.msgpack.Decoder(None).decode
_RESULTS: dict[type[c.Command], Any] = {
    command: msgspec.msgpack.Decoder(result).decode
    for command, result in (
        (c.FenceSessions, list[bytes]),
        (c.CreateBucket, Bucket),
        (c.CommitVersion, c.VersionCommitted),
        (c.DeleteVersions, list[c.Deleted]),
        (c.ChangeObject, c.ObjectChanged),
        (c.CreateUpload, Upload),
        (c.PutPart, PartInfo),
        (c.CompleteUpload, c.VersionCommitted),
        (c.AcquireMasterLease, c.MasterLease),
        (c.RegisterNode, Node),
        (c.SetReplicas, bool),
        (c.Relayout, bool),
    )
}


class ProtocolError(Exception):
    """The other side does not speak this protocol; the connection is closed."""


class Frame(NamedTuple):
    """`body` is msgpack, of the type that the kind (and the command asked) says."""

    request_id: int
    kind: int
    body: bytes


class FrameReader:
    """Bytes in, frames out. Holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._wanted = HEADER_BYTES

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Whole frames, in order. ProtocolError for a length above the bound."""
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted:
                return
            data = bytes(self._pending)
            self._pending.clear()
        at, end = 0, len(data)
        self._wanted = HEADER_BYTES
        while end - at >= HEADER_BYTES:
            length, request_id, kind = _HEADER.unpack_from(data, at)
            if length > FRAME_BYTES_MAX:
                raise ProtocolError(f"a frame of {length} bytes")
            if end - at < HEADER_BYTES + length:
                self._wanted = HEADER_BYTES + length
                break
            at += HEADER_BYTES
            yield Frame(request_id, kind, data[at : at + length])
            at += length
        if at < end:
            self._pending += memoryview(data)[at:]


def encode_frame(request_id: int, kind: int, body: bytes) -> bytes:
    return _HEADER.pack(len(body), request_id, kind) + body


def encode_command(request_id: int, command: c.Command) -> bytes:
    """Unavailable for a command that no frame can carry."""
    body = _encode(command)
    if len(body) > FRAME_BYTES_MAX:
        raise Unavailable(f"a command of {len(body)} bytes is above the bound of {FRAME_BYTES_MAX}")
    return encode_frame(request_id, COMMAND, body)


def decode_command(frame: Frame) -> c.Command:
    """ProtocolError for anything that is not a command."""
    if frame.kind != COMMAND:
        raise ProtocolError(f"a frame of kind {frame.kind} where a command belongs")
    try:
        command: c.Command = _decode_command(frame.body)
    except msgspec.DecodeError as error:
        raise ProtocolError(str(error)) from error
    return command


def encode_outcome(request_id: int, outcome: Any) -> bytes:
    """An answer: of a result, or of an error as a kind of its own."""
    if isinstance(outcome, Refused):
        body = _encode((type(outcome).__name__, str(outcome), outcome.details))
        return encode_frame(request_id, REFUSED, body)
    if isinstance(outcome, FrostbyteError):
        return encode_frame(request_id, UNAVAILABLE, _encode((str(outcome), outcome.details)))
    return encode_frame(request_id, DONE, _encode(outcome))


def decode_outcome(frame: Frame, command: type[c.Command]) -> Any:
    """The result, or a FrostbyteError (returned, not raised). ProtocolError for anything else."""
    try:
        if frame.kind == DONE:
            return _RESULTS.get(command, _decode_none)(frame.body)
        if frame.kind == REFUSED:
            name, message, details = _decode_refusal(frame.body)
            return REFUSALS.get(name, Refused)(message, **details)
        if frame.kind == UNAVAILABLE:
            message, details = _decode_unavailable(frame.body)
            return Unavailable(message, **details)
    except msgspec.DecodeError as error:
        raise ProtocolError(str(error)) from error
    raise ProtocolError(f"a frame of kind {frame.kind} where an answer belongs")
