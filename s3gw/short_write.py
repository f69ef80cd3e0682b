"""A PUT on the short way: hashed as its body comes, then one commit, or one chunk that is stored and committed.

What is small is committed where its last byte arrives. A larger body, up to WRITE_BYTES_MAX, is held whole, so that it
is sealed and sent in one go by a task of its own; it is held until that is over, for it may have to be sent anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

from awscrt.checksums import crc64nvme

from cluster.body import BodyDigests, HeldBody
from cluster.held_puts import HeldPut
from cluster.put_request import PutRequest
from cluster.redundancy import Redundancy
from s3gw.call import Services
from s3gw.metrics import RequestMetrics
from s3gw.protocol.attributes import parse_attributes
from s3gw.protocol.checksums import encode_digest
from s3gw.protocol.errors import S3Error
from s3gw.protocol.operations import Operation
from s3gw.refusals import translate
from s3gw.respond import format_error_headers, format_written, quoted, render_error
from s3gw.short_answer import format_lines
from s3gw.short_asker import Asked
from storage.base.errors import FrostbyteError
from storage.base.ids import NULL_VERSION_ID
from storage.crypto.envelope import Buffer
from storage.metadata.commands import VersionCommitted
from storage.model import Attributes, Checksum, ChecksumAlgorithm

SMALL_BYTES_MAX = 16 << 10
WRITE_BYTES_MAX = 1 << 20
"""larger bodies take the road, which seals and sends them while they come, and hashes them in threads"""
HELD_BYTES_MAX = 32 << 20
"""of the bodies of a worker that come, or are being stored; what comes beyond takes the road"""
REMEMBERED_MAX = 256
"""attributes that objects are written with"""

OnAnswer = Callable[[int, bytes, bytes], None]
"""status, headers as format_lines makes them, body"""
StartTask = Callable[[Coroutine[Any, Any, None]], None]

log = logging.getLogger(__name__)

_PUT_OBJECT = Operation.PUT_OBJECT.value


def _make_template(version_id: str | None) -> bytes:
    """The headers of an answer to a PUT that was committed; each `%b` is filled in."""
    checksum = Checksum(ChecksumAlgorithm.CRC64NVME, "%b")
    identity = [(b"x-amz-request-id", b"%b"), (b"x-amz-id-2", b"%b")]
    outcome = [(b"etag", quoted("%b")), *format_written(version_id, checksum), (b"content-length", b"0")]
    return format_lines(identity + outcome)


_WRITTEN = _make_template(None)
_WRITTEN_VERSION = _make_template("%b")


class ShortWrites:
    """Of a worker."""

    def __init__(
        self, services: Services, metrics: RequestMetrics, host_id: str, make_request_id: Callable[[], bytes]
    ) -> None:
        self.objects = services.objects
        self.held_bytes = 0
        self._held = services.objects.held
        self._clock = services.clock
        self._metrics = metrics
        self._host_id = host_id
        self._host_id_raw = host_id.encode("ascii")
        self._make_request_id = make_request_id

    def begin(self, asked: Asked, url: bytes, content_type: bytes, length: int, started_s: float) -> ShortWrite | None:
        """None: it is for the road. S3Error: it will find the same."""
        redundancy: Redundancy | None = None
        if not self._held.is_small(length):
            redundancy = self._held.find_redundancy(asked.bucket, length) if length <= WRITE_BYTES_MAX else None
            if redundancy is None:
                return None
        request = PutRequest(asked.credential.user.canonical_id, _plan_attributes(content_type))
        return ShortWrite(self, asked, url, request, length, redundancy, started_s)

    def answer(
        self, write: ShortWrite, outcome: VersionCommitted | FrostbyteError | S3Error
    ) -> tuple[int, bytes, bytes]:
        """What a PUT is told (as OnAnswer takes it), and its line in the metrics."""
        if isinstance(outcome, VersionCommitted):
            status, lines, document = 200, self._format_written(write, outcome), b""
        else:
            status, lines, document = self._format_refusal(write, outcome)
        elapsed_s = self._clock.monotonic_s() - write.started_s
        self._metrics.record(_PUT_OBJECT, status, elapsed_s, write.length, len(document))
        return status, lines, document

    def _format_written(self, write: ShortWrite, committed: VersionCommitted) -> bytes:
        assert write.checksum is not None, "it was committed"
        identity = (self._make_request_id(), self._host_id_raw, committed.etag.encode("ascii"))
        value, version_id = write.checksum.value.encode("ascii"), committed.version_id
        if version_id is None or version_id == NULL_VERSION_ID:
            return _WRITTEN % (*identity, value)
        return _WRITTEN_VERSION % (*identity, version_id.encode("ascii"), value)

    def _format_refusal(self, write: ShortWrite, outcome: FrostbyteError | S3Error) -> tuple[int, bytes, bytes]:
        request_id = self._make_request_id()
        named = request_id.decode("ascii")
        refusal = _refuse(write, outcome, named)
        resource = write.url.partition(b"?")[0].decode("utf-8", "replace")
        document = render_error(refusal, resource, named, self._host_id)
        headers = [(b"x-amz-request-id", request_id), (b"x-amz-id-2", self._host_id_raw)]
        headers += [*format_error_headers(refusal), (b"content-length", b"%d" % len(document))]
        return refusal.status, format_lines(headers), document


class ShortWrite:
    """One PUT: `take` its body, then `commit`; or `give_up` at any time before."""

    __slots__ = (
        "_crc", "_held_bytes", "_md5", "_on_answer", "_redundancy", "_request", "_sha256", "_writes",
        "asked", "checksum", "length", "started_s", "url",
    )  # fmt: skip

    def __init__(
        self,
        writes: ShortWrites,
        asked: Asked,
        url: bytes,
        request: PutRequest,
        length: int,
        redundancy: Redundancy | None,
        started_s: float,
    ) -> None:
        """redundancy: that it is stored with; None: it is small."""
        self.asked = asked
        self.url = url
        self.length = length
        """of the body, in bytes"""
        self.started_s = started_s
        self.checksum: Checksum | None = None
        """that is stored and told"""
        self._writes = writes
        self._request = request
        self._redundancy = redundancy
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256() if asked.payload_text else None
        self._crc = 0
        self._held_bytes = 0
        self._on_answer: OnAnswer | None = None

    def make_room(self) -> bool:
        """Whether the body may be held; it counts until this is over."""
        if not self._held_bytes:
            if self._writes.held_bytes + self.length > HELD_BYTES_MAX:
                return False
            self._held_bytes = self.length
            self._writes.held_bytes += self.length
        return True

    def give_up(self) -> None:
        """Nothing is held any more."""
        self._writes.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def take(self, block: Buffer) -> None:
        """The next bytes of the body."""
        self._md5.update(block)
        self._crc = crc64nvme(block, self._crc)
        if self._sha256 is not None:
            self._sha256.update(block)

    def commit(self, body: memoryview, on_answer: OnAnswer, start_task: StartTask) -> bool:
        """The body, all of which was taken. on_answer: is told the answer, later and once. start_task: runs what must
        be waited for. False: it is for the road, and nothing has happened."""
        if self._sha256 is not None and self._sha256.hexdigest() != self.asked.payload_text:
            return False
        self.checksum = Checksum(ChecksumAlgorithm.CRC64NVME, encode_digest(self._crc.to_bytes(8, "big")))
        digests = BodyDigests(self._md5.digest(), self.checksum)
        self._on_answer = on_answer
        asked = self.asked
        put = HeldPut(asked.bucket, asked.object_key, body, digests, self._request)
        if self._redundancy is not None:
            if not self.make_room():
                return False
            start_task(self._store(put, self._redundancy))
            return True
        try:
            self._writes.objects.held.put_small(put, self.take_outcome)
        except FrostbyteError:
            return False
        self.give_up()
        return True

    async def _store(self, put: HeldPut, redundancy: Redundancy) -> None:
        objects = self._writes.objects
        outcome: VersionCommitted | FrostbyteError | S3Error
        try:
            if await objects.held.put_whole(put, redundancy, self.take_outcome):
                return
            body = HeldBody(put.plaintext, put.digests, may_be_whole=False)
            outcome = (await objects.put(put.bucket, put.object_key, body, self._request)).committed
        except FrostbyteError as error:
            outcome = error
        except Exception:  # the edge of the process: one bad request must not end it
            log.exception("PutObject %r", self.url[:256])
            outcome = S3Error("InternalError")
        except BaseException:
            self.give_up()
            raise
        self.take_outcome(outcome)

    def take_outcome(self, outcome: Any) -> None:
        """The VersionCommitted or the error. Out of the metadata's connection, which nothing may disturb."""
        assert self._on_answer is not None, "it was committed"
        self.give_up()
        try:
            self._on_answer(*self._writes.answer(self, outcome))
        except Exception:  # the edge of the process: one bad answer must not end the others
            log.exception("a PUT was committed or refused and could not be answered")


def _refuse(write: ShortWrite, outcome: FrostbyteError | S3Error, request_id: str) -> S3Error:
    refusal = outcome
    if not isinstance(refusal, S3Error):
        refusal = translate(refusal, write.asked.bucket.name, write.asked.object_key, "", "")
    level = logging.WARNING if refusal.status >= 500 else logging.INFO
    log.log(level, "request %s: PutObject: %s: %s: %s", request_id, refusal.code, type(outcome).__name__, outcome)
    return refusal


@lru_cache(REMEMBERED_MAX)
def _plan_attributes(content_type: bytes) -> Attributes:
    return parse_attributes({"content-type": content_type.decode("latin-1")} if content_type else {})
