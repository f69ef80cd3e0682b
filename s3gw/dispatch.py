"""The one road of every S3 request: parse → authenticate → authorize → handle → respond.

Whatever goes wrong on it ends in one place: a document of S3's when nothing was sent yet, a cut connection otherwise.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from s3gw.access import find_credential
from s3gw.body import ClientDisconnected
from s3gw.call import Call, Response, Services
from s3gw.handler_table import HANDLERS
from s3gw.metrics import RequestMetrics
from s3gw.protocol.claims import RawRequest, join_headers, make_anonymous_claim, parse_claim
from s3gw.protocol.cors import plan_cross_origin
from s3gw.protocol.errors import S3Error
from s3gw.protocol.operations import Operation
from s3gw.protocol.principals import ANONYMOUS
from s3gw.protocol.routing import Route, add_hoisted_headers, parse_query, parse_target, route_request
from s3gw.protocol.sigv4 import SigningKey, SigningKeys, Verified, verify_claim
from s3gw.refusals import translate
from s3gw.respond import Headers, Intake, Receive, Responder, Send, format_error_headers, render_error
from s3gw.short_way import ShortWay
from storage.base.errors import FrostbyteError, NoSuchBucket, NoSuchKey, NoSuchVersion
from storage.model import User

Scope = dict[str, Any]

log = logging.getLogger(__name__)

UNSIGNED = frozenset({Operation.POST_OBJECT, Operation.PREFLIGHT})
"""reach their handlers as nobody's: a form is authenticated and authorized there (Call.authenticate_as)"""

ORDINARY_STATUSES = frozenset({304, 404, 412})
"""what a healthy client is told all day: no line of the log for each"""
_NO_ROUTE = Route(Operation.METHOD_NOT_ALLOWED, "", "", b"")


class Dispatcher:
    """An ASGI application for everything that is S3."""

    def __init__(self, services: Services, metrics: RequestMetrics) -> None:
        self._services = services
        self._metrics = metrics
        self._signing_keys = SigningKeys()
        self._host_id = secrets.token_urlsafe(36)
        self._host_header = (b"x-amz-id-2", self._host_id.encode("ascii"))
        self.short_way = ShortWay(services, metrics, self._signing_keys, self._host_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; never raises but for cancellation."""
        clock = self._services.clock
        started_s = clock.monotonic_s()
        raw, scheme, address = self._read_head(scope)
        expects_continue = raw.headers.get(b"expect", b"").lower() == b"100-continue"
        intake = Intake(receive, _has_body(raw), expects_continue)
        request_id = secrets.token_hex(8).upper()
        identity: Headers = [(b"x-amz-request-id", request_id.encode("ascii")), self._host_header]
        responder = Responder(send, intake, raw.method == "HEAD", identity)
        road = _Road(self._services, self._signing_keys, raw, scheme, address, intake, responder)
        try:
            response = await road.travel()
            if response is not None:
                await responder.answer(*response)
        except ClientDisconnected:
            log.debug("%s %s: the client went away", raw.method, request_id)
        except (S3Error, FrostbyteError) as error:
            await self._refuse(road, request_id, error)
        except Exception as error:  # the edge of the process: one bad request must not end it
            log.exception("request %s: %s %r", request_id, raw.method, raw.raw_path[:256])
            await self._refuse(road, request_id, error)
        elapsed_s = clock.monotonic_s() - started_s
        operation = road.route.operation.value
        self._metrics.record(operation, responder.status, elapsed_s, intake.bytes_received, responder.bytes_sent)

    def _read_head(self, scope: Scope) -> tuple[RawRequest, str, str]:
        """The request, the scheme that the client used, and its address (`` over a Unix socket)."""
        headers = join_headers(scope["headers"])
        host = headers.get(b"host", b"")
        scheme: str = scope.get("scheme", "http")
        address: str = scope["client"][0] if scope.get("client") else ""
        proxies = self._services.settings.trusted_proxies
        if proxies and address in proxies:
            address = _find_forwarded_address(headers.get(b"x-forwarded-for", b""), proxies) or address
            host = headers.get(b"x-forwarded-host", host).partition(b",")[0].strip()
            if headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower() == b"https":
                scheme = "https"
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        return RawRequest(scope["method"], raw_path, scope["query_string"], headers, host), scheme, address

    async def _refuse(self, road: _Road, request_id: str, error: Exception) -> None:
        """Tell the client, or cut the connection when the response is already under way."""
        route, responder = road.route, road.responder
        if responder.status:
            if not isinstance(error, OSError):
                log.warning("request %s: cut after %d bytes: %s", request_id, responder.bytes_sent, error)
            return
        if isinstance(error, FrostbyteError):
            refusal = translate(
                error, route.bucket, route.object_key, road.query.get("uploadId", ""), road.query.get("versionId", "")
            )
        else:
            refusal = error if isinstance(error, S3Error) else S3Error("InternalError")
        if refusal.status >= 500 and refusal.code != "NotImplemented":
            log.warning("request %s: %s: %s: %s", request_id, refusal.code, type(error).__name__, error)
        elif refusal.status not in ORDINARY_STATUSES:
            log.info("request %s: %s: %s: %r", request_id, route.operation.value, refusal.code, refusal.message[:256])
        if route.operation is Operation.HEAD_BUCKET:
            refusal.with_headers({"x-amz-bucket-region": self._services.settings.region})
        resource = road.raw.raw_path.decode("utf-8", "replace")
        document = render_error(refusal, resource, request_id, self._host_id)
        if refusal.status == 304 or road.raw.method == "HEAD":
            document = b""
        try:
            await responder.answer(refusal.status, format_error_headers(refusal), document)
        except OSError:
            return


class _Road:
    """One request under way: what is known of it so far, so that an error can be told in full."""

    __slots__ = ("_keys", "_services", "address", "intake", "query", "raw", "responder", "route", "scheme")

    def __init__(
        self,
        services: Services,
        keys: SigningKeys,
        raw: RawRequest,
        scheme: str,
        address: str,
        intake: Intake,
        responder: Responder,
    ) -> None:
        self._services = services
        self._keys = keys
        self.raw = raw
        self.scheme = scheme
        self.address = address
        self.intake = intake
        self.responder = responder
        self.query: dict[str, str] = {}
        self.route = _NO_ROUTE

    async def travel(self) -> Response | None:
        """Parse, authenticate, authorize, handle. None: the handler has sent the response itself."""
        services, raw = self._services, self.raw
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw.headers.items()}
        self.query = query = parse_query(raw.query_string)
        if query:
            add_hoisted_headers(headers, query)
        bucket_name, object_key = parse_target(raw.raw_path, raw.host.decode("latin-1"), services.settings.domains)
        self.route = route = route_request(raw.method, bucket_name, object_key, query, headers)
        operation = route.operation
        await services.directory.refresh()
        if bucket_name and "origin" in headers:
            await self._promise_headers(bucket_name, headers)
        verified, user = await self._authenticate(operation in UNSIGNED)
        if operation is Operation.METHOD_NOT_ALLOWED:
            raise S3Error("MethodNotAllowed", Method=raw.method, ResourceType=route.subresource.upper() or "OBJECT")
        bucket = None
        if bucket_name and operation is not Operation.CREATE_BUCKET:
            bucket = await services.directory.bucket(bucket_name)
        call = Call(
            services,
            raw,
            self.scheme,
            headers,
            query,
            route,
            verified,
            user,
            bucket,
            self.intake,
            self.responder,
            self.address,
        )
        if operation not in UNSIGNED:
            await call.authorize_request()
        if operation is Operation.NOT_IMPLEMENTED:
            raise S3Error("NotImplemented", f"{raw.method} {route.subresource} is not implemented")
        try:
            return await HANDLERS[operation](call)
        except (NoSuchKey, NoSuchVersion):
            if await call.may_know_of_absence():
                raise
            raise S3Error("AccessDenied") from None

    async def _promise_headers(self, bucket_name: str, headers: Mapping[str, str]) -> None:
        """What a browser must be told of a bucket whatever becomes of the request, a refused signature included."""
        try:
            bucket = await self._services.directory.bucket(bucket_name)
        except NoSuchBucket:
            return
        if bucket.settings:
            self.responder.promise(plan_cross_origin(bucket, self.raw.method, headers))

    async def _authenticate(self, unsigned: bool) -> tuple[Verified, User]:
        """Who is asking. Raises the S3Error of a claim that does not hold."""
        services = self._services
        claim = None if unsigned else parse_claim(self.raw, services.settings.region)
        if claim is None:
            return Verified(make_anonymous_claim(self.raw), SigningKey()), ANONYMOUS
        credential = await find_credential(services.directory, claim.access_key_id)
        now_s = services.clock.now_ms() / 1000
        verified = verify_claim(self.raw, claim, credential.secret_access_key, now_s, self._keys)
        if verified.path_as_sent:
            log.info("%s signs the path as sent, not as encoded: %r", claim.access_key_id, self.raw.raw_path[:256])
        return verified, credential.user


def _find_forwarded_address(forwarded: bytes, proxies: Sequence[str]) -> str:
    """The last address that no proxy of ours put there itself: those before it are what the client claims."""
    for word in reversed(forwarded.decode("latin-1").split(",")):
        address = word.strip()
        if address not in proxies:
            return address
    return ""


def _has_body(raw: RawRequest) -> bool:
    length = raw.headers.get(b"content-length")
    if length is None:
        return b"transfer-encoding" in raw.headers
    return length.strip() not in (b"0", b"")
