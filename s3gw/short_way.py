"""The short way of what most requests are: GET, HEAD and PUT of one small object by its bucket's owner. To a GET, small
is up to a MiB of what is one chunk, and in the memory of this machine.

Such a request is served where its last byte arrives, within one turn of the event loop (a PUT's commit excepted):
without a task, a body to wait for, or a second look at the configuration. It is made of the same parts as the road
(dispatch.py), and takes only what it can bring to a good end. Whatever else there is about a request (a header, a
parameter or a setting that means something, a signature that does not hold, an object that is large, locked or not
there) is for the road, which begins anew and says what is wrong; so nothing is ever refused here.

Once a commit is on its way there is no second way: its refusals are told like the road's.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from awscrt.checksums import crc64nvme

from cluster.body import BodyDigests
from cluster.directory import Credential
from cluster.objectstore import PutRequest, SmallReading
from s3gw.call import Response, Services
from s3gw.metrics import RequestMetrics
from s3gw.plain_head import CONDITIONS, HEADERS_OF_A_READ, HEADERS_OF_A_WRITE
from s3gw.protocol.attributes import parse_attributes
from s3gw.protocol.authorize import owns_everything
from s3gw.protocol.checksums import encode_digest
from s3gw.protocol.claims import PayloadMode, RawRequest, parse_claim
from s3gw.protocol.conditions import Verdict, evaluate_read
from s3gw.protocol.encryption import SSE_S3_LINES
from s3gw.protocol.errors import S3Error
from s3gw.protocol.object_attributes import find_checksum
from s3gw.protocol.operations import Operation
from s3gw.protocol.presigned import PresignedRequests, PresignedTerms
from s3gw.protocol.ranges import format_content_range, parse_range
from s3gw.protocol.routing import QUERY_PARAMETERS_MAX, parse_target
from s3gw.protocol.sigv4 import SigningKeys, verify_claim
from s3gw.refusals import translate
from s3gw.respond import Headers, format_checksum, format_error_headers, format_written, quoted, render_error
from s3gw.version_answer import describe_unmodified, describe_version
from storage.base.errors import FrostbyteError
from storage.crypto.envelope import Buffer
from storage.metadata.commands import VersionCommitted
from storage.model import Attributes, Bucket, Checksum, ChecksumAlgorithm, Version

BODY_BYTES_MAX = 16 << 10
"""larger bodies take the road, which hashes them in threads"""
READ_BYTES_MAX = 1 << 20
"""what is read and sent in one go; longer bodies take the road, at the pace of who takes them"""
REMEMBERED_MAX = 256
"""queries, and attributes that objects are written with"""

_CONDITIONS = frozenset(CONDITIONS)
_SERVICE_PAGE = b"/-"
_PAYLOADS = frozenset({PayloadMode.SIGNED, PayloadMode.UNSIGNED})
_READS = {"GET": Operation.GET_OBJECT, "HEAD": Operation.HEAD_OBJECT}

OnAnswer = Callable[[Response], None]

log = logging.getLogger(__name__)


class _Asked(NamedTuple):
    """A request whose signature holds, and whose caller may do all in its bucket."""

    credential: Credential
    bucket: Bucket
    object_key: bytes
    payload_text: str
    """the SHA-256 of the body that was signed; `` where it was not"""


class ShortRead(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: Buffer
    """empty for a HEAD"""
    keep: Callable[[], Callable[[], None]]
    """of a body that is a memoryview; see SmallReading"""


class ShortWay:
    """One per worker, beside its dispatcher."""

    def __init__(self, services: Services, metrics: RequestMetrics, signing_keys: SigningKeys, host_id: str) -> None:
        self._services = services
        self._metrics = metrics
        self._signing_keys = signing_keys
        self._presigned = PresignedRequests()
        self._host_id = host_id
        self._host_header = (b"x-amz-id-2", host_id.encode("ascii"))
        self._random = random.Random()  # noqa: S311 - request ids name requests, and keep nothing secret

    def read(
        self,
        method: str,
        url: bytes,
        headers: dict[bytes, bytes],
        client_address: str,
        body_bytes_max: int = READ_BYTES_MAX,
    ) -> ShortRead | None:
        """The whole answer to a GET or HEAD; None: it is for the road, and nothing has happened.

        headers: one value a name, lower-case. url: the request's target as it was sent. Before the next one is asked
        for, the body has left or is kept.
        """
        started_s = self._services.clock.monotonic_s()
        if not HEADERS_OF_A_READ.issuperset(headers):
            return None
        try:
            asked = self._authenticate(method, url, headers, client_address)
            if asked is None:
                return None
            reading = self._services.objects.read_small(asked.bucket, asked.object_key)
            if (
                reading is None
                or reading.configuration_sequence != self._services.directory.sequence
                or not _is_plain(reading.version, asked)
            ):
                return None
            read = self._answer_read(method, headers, asked.bucket, reading, body_bytes_max)
        except (S3Error, FrostbyteError):
            return None
        if read is not None:
            elapsed_s = self._services.clock.monotonic_s() - started_s
            self._metrics.record(_READS[method].value, read.status, elapsed_s, 0, len(read.body))
        return read

    def _answer_read(
        self, method: str, headers: dict[bytes, bytes], bucket: Bucket, reading: SmallReading, bytes_max: int
    ) -> ShortRead | None:
        """Conditions, then the range, then the bytes."""
        version, status = reading.version, 200
        answer = self._identify()
        if not _CONDITIONS.isdisjoint(headers):
            conditions = {
                name.decode("ascii"): headers[name].decode("latin-1") for name in _CONDITIONS & headers.keys()
            }
            verdict = evaluate_read(conditions, version.etag, version.last_modified_ms)
            if verdict is Verdict.NOT_MODIFIED:
                return ShortRead(304, answer + describe_unmodified(bucket, version), b"", reading.keep)
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
        return ShortRead(status, answer, body, reading.keep)

    def write(
        self, url: bytes, headers: dict[bytes, bytes], body: bytes, client_address: str, on_answer: OnAnswer
    ) -> bool:
        """Take a PUT with its whole body; on_answer is told the answer, later and once. False: it is for the road, and
        nothing has happened."""
        started_s = self._services.clock.monotonic_s()
        if not body or not HEADERS_OF_A_WRITE.issuperset(headers):
            return False
        directory = self._services.directory
        try:
            asked = self._authenticate("PUT", url, headers, client_address)
            if asked is None or asked.bucket.settings or not directory.is_current():
                return False
            if asked.payload_text and hashlib.sha256(body).hexdigest() != asked.payload_text:
                return False
            digest = crc64nvme(body).to_bytes(8, "big")
            checksum = Checksum(ChecksumAlgorithm.CRC64NVME, encode_digest(digest))
            digests = BodyDigests(hashlib.md5(body, usedforsecurity=False).digest(), checksum)
            attributes = _plan_attributes(headers.get(b"content-type", b""))
            request = PutRequest(asked.credential.user.canonical_id, attributes)
            commit = _Commit(self, asked, checksum, url, started_s, len(body), on_answer)
            put_small = self._services.objects.put_small
            return put_small(asked.bucket, asked.object_key, body, digests, request, commit.take_outcome)
        except (S3Error, FrostbyteError):
            return False

    def _authenticate(self, method: str, url: bytes, headers: dict[bytes, bytes], client_address: str) -> _Asked | None:
        """None for what the road must look at. S3Error: it will find the same."""
        path, _, query = url.partition(b"?")
        settings = self._services.settings
        if (
            path.startswith(_SERVICE_PAGE)
            or not path.startswith(b"/")
            or b"#" in url
            or client_address in settings.trusted_proxies
            or (query and not _is_signature(query))
        ):
            return None
        host = headers.get(b"host", b"")
        if query and (found := self._presigned.find(method, query, host, headers)) is not None:
            return self._check_presigned(path, host, *found)
        raw = RawRequest(method, path, query, headers, host)
        claim = parse_claim(raw, settings.region)
        if claim is None or claim.payload_mode not in _PAYLOADS:
            return None
        bucket_name, object_key = parse_target(path, raw.host.decode("latin-1"), settings.domains)
        known = self._services.directory.recall(claim.access_key_id, bucket_name)
        if known is None or not object_key:
            return None
        credential, bucket = known
        now_s = self._services.clock.now_ms() / 1000
        verified = verify_claim(raw, claim, credential.secret_access_key, now_s, self._signing_keys)
        if verified.path_as_sent or verified.query_as_sent or not owns_everything(credential.user, bucket):
            return None
        if claim.expires_s is not None:
            self._presigned.remember(raw, verified, credential.secret_access_key)
        payload_text = claim.payload_text if claim.payload_mode is PayloadMode.SIGNED else ""
        return _Asked(credential, bucket, object_key, payload_text)

    def _check_presigned(self, path: bytes, host: bytes, terms: PresignedTerms, signature: bytes) -> _Asked | None:
        """As _authenticate, of a request whose terms are known."""
        bucket_name, object_key = parse_target(path, host.decode("latin-1"), self._services.settings.domains)
        known = self._services.directory.recall(terms.access_key_id, bucket_name)
        if known is None or not object_key:
            return None
        credential, bucket = known
        if credential.secret_access_key != terms.secret_access_key or not owns_everything(credential.user, bucket):
            return None
        if not terms.hold(path, signature, self._services.clock.now_ms() / 1000):
            return None
        return _Asked(credential, bucket, object_key, "")

    def _identify(self) -> Headers:
        return [(b"x-amz-request-id", b"%016X" % self._random.getrandbits(64)), self._host_header]

    def answer_commit(self, commit: _Commit, outcome: Any) -> Response:
        """What a PUT is told, and its line in the metrics."""
        headers = self._identify()
        document = b""
        if isinstance(outcome, VersionCommitted):
            status = 200
            headers.append((b"etag", quoted(outcome.etag)))
            headers += format_written(outcome.version_id, commit.checksum)
        else:
            request_id = headers[0][1].decode("ascii")
            refusal = self._refuse(commit, outcome, request_id)
            status = refusal.status
            resource = commit.url.partition(b"?")[0].decode("utf-8", "replace")
            document = render_error(refusal, resource, request_id, self._host_id)
            headers += format_error_headers(refusal)
        headers.append((b"content-length", b"%d" % len(document)))
        elapsed_s = self._services.clock.monotonic_s() - commit.started_s
        self._metrics.record(Operation.PUT_OBJECT.value, status, elapsed_s, commit.size, len(document))
        return Response(status, headers, document)

    def _refuse(self, commit: _Commit, outcome: Any, request_id: str) -> S3Error:
        assert isinstance(outcome, FrostbyteError), "a commit answers with its version or with an error"
        refusal = translate(outcome, commit.asked.bucket.name, commit.asked.object_key, "", "")
        level = logging.WARNING if refusal.status >= 500 else logging.INFO
        log.log(level, "request %s: PutObject: %s: %s: %s", request_id, refusal.code, type(outcome).__name__, outcome)
        return refusal


class _Commit:
    """A PUT whose commit is under way."""

    __slots__ = ("_on_answer", "_way", "asked", "checksum", "size", "started_s", "url")

    def __init__(
        self,
        way: ShortWay,
        asked: _Asked,
        checksum: Checksum,
        url: bytes,
        started_s: float,
        size: int,
        on_answer: OnAnswer,
    ) -> None:
        self._way = way
        self._on_answer = on_answer
        self.asked = asked
        self.checksum = checksum
        self.url = url
        self.started_s = started_s
        self.size = size

    def take_outcome(self, outcome: Any) -> None:
        """Out of the metadata's connection, which nothing may disturb."""
        try:
            self._on_answer(self._way.answer_commit(self, outcome))
        except Exception:  # the edge of the process: one bad answer must not end the others
            log.exception("a PUT was committed or refused and could not be answered")


def _is_plain(version: Version, asked: _Asked) -> bool:
    """No marker, nothing of it locked, and nobody else's object."""
    lock = version.attributes.lock
    user = asked.credential.user
    return (
        not version.is_marker
        and not lock.mode
        and not lock.legal_hold
        and (user.is_root or version.owner_id == asked.bucket.owner_id)
    )


def _is_signature(query: bytes) -> bool:
    """Whether all parameters belong to a presigned signature, but for SDKs' x-id, which means nothing."""
    rest, _, last = query.rpartition(b"&")
    return last.startswith((b"X-Amz-Signature=", b"x-id=")) and (not rest or _is_rest_of_signature(rest))


@lru_cache(REMEMBERED_MAX)
def _is_rest_of_signature(query: bytes) -> bool:
    pieces = query.split(b"&")
    return len(pieces) < QUERY_PARAMETERS_MAX and all(piece.startswith((b"X-Amz-", b"x-id=")) for piece in pieces)


@lru_cache(REMEMBERED_MAX)
def _plan_attributes(content_type: bytes) -> Attributes:
    return parse_attributes({"content-type": content_type.decode("latin-1")} if content_type else {})
