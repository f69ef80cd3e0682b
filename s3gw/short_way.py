"""The short way of what most requests are: GET, HEAD and PUT of one small object by its bucket's owner. Small is up to
a MiB of what is one chunk; to a GET, in the memory of this machine.

Such a request is served where its last byte arrives, within one turn of the event loop (a PUT's chunk and commit
excepted): without a body to wait for, or a second look at the configuration. It is made of the same parts as the road
(dispatch.py), and takes only what it can bring to a good end. Whatever else there is about a request (a header, a
parameter or a setting that means something, a signature that does not hold, an object that is large, locked or not
there) is for the road, which begins anew and says what is wrong; so nothing is ever refused here.

Once a commit is on its way there is no second way: its refusals are told like the road's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cluster.objectstore import SmallReading
from s3gw.call import Services
from s3gw.known_heads import KnownRequest
from s3gw.metrics import RequestMetrics
from s3gw.plain_head import CONDITIONS, HEADERS_OF_A_READ, HEADERS_OF_A_WRITE, HEADERS_OF_THE_CLIENT
from s3gw.protocol.conditions import Verdict, evaluate_read
from s3gw.protocol.encryption import SSE_S3_LINES
from s3gw.protocol.errors import S3Error
from s3gw.protocol.object_attributes import find_checksum
from s3gw.protocol.operations import Operation
from s3gw.protocol.ranges import format_content_range, parse_range
from s3gw.protocol.sigv4 import SigningKeys
from s3gw.respond import Headers, format_checksum
from s3gw.short_answer import format_lines
from s3gw.short_asker import Asked, ShortAsker
from s3gw.short_write import ShortWrite, ShortWrites
from s3gw.version_answer import describe_unmodified, describe_version, format_plain
from storage.base.errors import FrostbyteError
from storage.crypto.envelope import Buffer
from storage.model import Bucket, Version

READ_BYTES_MAX = 1 << 20
"""what is read and sent in one go; longer bodies take the road, at the pace of who takes them"""

_CONDITIONS = frozenset(CONDITIONS)
_WANTING_MORE = HEADERS_OF_A_READ - HEADERS_OF_THE_CLIENT
_READS = {"GET": Operation.GET_OBJECT.value, "HEAD": Operation.HEAD_OBJECT.value}
_METHODS = {b"GET": "GET", b"HEAD": "HEAD"}


class ShortRead(NamedTuple):
    """A whole answer."""

    status: int
    lines: bytes
    """its headers, as format_lines makes them"""
    body: Buffer
    """empty for a HEAD"""
    keep: Callable[[], Callable[[], None]]
    """of a body that is a memoryview; see SmallReading"""


class ShortWay:
    """One per worker, beside its dispatcher."""

    def __init__(self, services: Services, metrics: RequestMetrics, signing_keys: SigningKeys, host_id: str) -> None:
        self._services = services
        self._metrics = metrics
        self._asker = ShortAsker(services, signing_keys)
        self.find_known = self._asker.find_known
        """of data: as KnownHeads.find"""
        self._host_id_raw = host_id.encode("ascii")
        self._random = random.Random()  # noqa: S311 - request ids name requests, and keep nothing secret
        self._writes = ShortWrites(services, metrics, host_id, self._make_request_id)

    def read(
        self,
        method: str,
        url: bytes,
        headers: Mapping[bytes, bytes],
        client_address: str,
        body_bytes_max: int = READ_BYTES_MAX,
        data: bytes = b"",
    ) -> ShortRead | None:
        """The whole answer to a GET or HEAD; None: it is for the road, and nothing has happened.

        headers: one value a name, lower-case. url: the request's target as it was sent. data: all of the request, where
        it came past the parser, so that others like it are known. Before the next one is asked for, the body has left
        or is kept.
        """
        started_s = self._services.clock.monotonic_s()
        if not HEADERS_OF_A_READ.issuperset(headers):
            return None
        try:
            asked = self._asker.authenticate(method, url, headers, client_address)
        except S3Error:
            return None
        if asked is not None and data:
            self._asker.remember(data, method, url, headers, 0)
        return None if asked is None else self._read(method, headers, asked, body_bytes_max, started_s)

    def read_known(self, known: KnownRequest, client_address: str, body_bytes_max: int) -> ShortRead | None:
        """As read."""
        started_s = self._services.clock.monotonic_s()
        asked = self._asker.authenticate_known(known, client_address)
        if asked is None:
            return None
        return self._read(_METHODS[known.method], known.head.headers, asked, body_bytes_max, started_s)

    def _read(
        self, method: str, headers: Mapping[bytes, bytes], asked: Asked, bytes_max: int, started_s: float
    ) -> ShortRead | None:
        services = self._services
        try:
            reading = services.objects.read_small(asked.bucket, asked.object_key)
            if (
                reading is None
                or reading.configuration_sequence != services.directory.sequence
                or not _is_plain(reading.version, asked)
            ):
                return None
            read = self._answer_read(method, headers, asked.bucket, reading, bytes_max)
        except (S3Error, FrostbyteError):
            return None
        if read is not None:
            elapsed_s = services.clock.monotonic_s() - started_s
            self._metrics.record(_READS[method], read.status, elapsed_s, 0, len(read.body))
        return read

    def _answer_read(
        self, method: str, headers: Mapping[bytes, bytes], bucket: Bucket, reading: SmallReading, bytes_max: int
    ) -> ShortRead | None:
        """Conditions, then the range, then the bytes."""
        if not _WANTING_MORE.isdisjoint(headers):
            return self._answer_asking(method, headers, bucket, reading, bytes_max)
        length = reading.version.size
        body: Buffer | None = b""
        if method == "GET":
            body = reading.open(0, length) if length <= bytes_max else None
        if body is None:
            return None
        identity = (self._make_request_id(), self._host_id_raw)
        lines = format_plain(bucket, reading.version, identity, length, SSE_S3_LINES)
        if lines is None:
            described = describe_version(bucket, reading.version, SSE_S3_LINES, is_current=True)
            lines = format_lines([*self._identify(), *described, (b"content-length", b"%d" % length)])
        return ShortRead(200, lines, body, reading.keep)

    def _answer_asking(
        self, method: str, headers: Mapping[bytes, bytes], bucket: Bucket, reading: SmallReading, bytes_max: int
    ) -> ShortRead | None:
        """The same of a request with conditions, a range, or a wish for the checksum."""
        version, status = reading.version, 200
        answer = self._identify()
        if not _CONDITIONS.isdisjoint(headers):
            conditions = {
                name.decode("ascii"): headers[name].decode("latin-1") for name in _CONDITIONS & headers.keys()
            }
            verdict = evaluate_read(conditions, version.etag, version.last_modified_ms)
            if verdict is Verdict.NOT_MODIFIED:
                return ShortRead(304, format_lines(answer + describe_unmodified(bucket, version)), b"", reading.keep)
            if verdict is not Verdict.PROCEED:
                return None
        byte_range = parse_range(headers[b"range"].decode("latin-1")) if b"range" in headers else None
        span = (0, version.size) if byte_range is None else byte_range.resolve(version.size)
        if span is None:
            return None
        length = span[1] - span[0]
        if method == "HEAD":
            body: Buffer | None = b""
        else:
            body = reading.open(*span) if length <= bytes_max else None
        if body is None:
            return None
        answer += describe_version(bucket, version, SSE_S3_LINES, is_current=True)
        if byte_range is not None:
            status = 206
            answer.append((b"content-range", format_content_range(*span, version.size).encode("ascii")))
        elif headers.get(b"x-amz-checksum-mode", b"").upper() == b"ENABLED":
            answer += format_checksum(find_checksum(version, None))
        answer.append((b"content-length", b"%d" % length))
        return ShortRead(status, format_lines(answer), body, reading.keep)

    def begin_write(
        self, url: bytes, headers: Mapping[bytes, bytes], length: int, client_address: str, data: bytes = b""
    ) -> ShortWrite | None:
        """A PUT of a body of so many bytes, of which the head has come; None: it is for the road, and nothing has
        happened. data: as of read, with as much of the body as has come."""
        started_s = self._services.clock.monotonic_s()
        if not length or not HEADERS_OF_A_WRITE.issuperset(headers):
            return None
        try:
            asked = self._asker.authenticate("PUT", url, headers, client_address)
        except S3Error:
            return None
        if asked is not None and data:
            self._asker.remember(data, "PUT", url, headers, length)
        return None if asked is None else self._begin_write(asked, url, headers, length, started_s)

    def begin_known(self, known: KnownRequest, client_address: str) -> ShortWrite | None:
        """As begin_write."""
        started_s = self._services.clock.monotonic_s()
        asked = self._asker.authenticate_known(known, client_address)
        if asked is None:
            return None
        head = known.head
        return self._begin_write(asked, known.path, head.headers, head.length, started_s)

    def _begin_write(
        self, asked: Asked, url: bytes, headers: Mapping[bytes, bytes], length: int, started_s: float
    ) -> ShortWrite | None:
        try:
            if asked.bucket.settings or not self._services.directory.is_current():
                return None
            return self._writes.begin(asked, url, headers.get(b"content-type", b""), length, started_s)
        except (S3Error, FrostbyteError):
            return None

    def _identify(self) -> Headers:
        return [(b"x-amz-request-id", self._make_request_id()), (b"x-amz-id-2", self._host_id_raw)]

    def _make_request_id(self) -> bytes:
        return b"%016X" % self._random.getrandbits(64)


def _is_plain(version: Version, asked: Asked) -> bool:
    """No marker, nothing of it locked, and nobody else's object."""
    lock = version.attributes.lock
    user = asked.credential.user
    return (
        not version.is_marker
        and not lock.mode
        and not lock.legal_hold
        and (user.is_root or version.owner_id == asked.bucket.owner_id)
    )
