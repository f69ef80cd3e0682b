"""The one road of every S3 request: parse → authenticate → authorize → handle → respond.

Whatever goes wrong on it ends in one place: a document of S3's when nothing was sent yet, a cut connection otherwise.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from s3gw.body import ClientDisconnected
from s3gw.call import Call, Response, Services
from s3gw.handlers.bucket import create_bucket, delete_bucket, head_bucket
from s3gw.handlers.bucket_acl import get_bucket_acl, put_bucket_acl
from s3gw.handlers.bucket_documents import (
    delete_bucket_document,
    delete_nothing,
    get_bucket_document,
    put_bucket_document,
)
from s3gw.handlers.bucket_lifecycle import delete_bucket_lifecycle, get_bucket_lifecycle, put_bucket_lifecycle
from s3gw.handlers.bucket_ownership import (
    delete_ownership_controls,
    delete_public_access_block,
    get_ownership_controls,
    get_public_access_block,
    put_ownership_controls,
    put_public_access_block,
)
from s3gw.handlers.bucket_policy import (
    delete_bucket_policy,
    get_bucket_policy,
    get_bucket_policy_status,
    put_bucket_policy,
)
from s3gw.handlers.bucket_settings import get_bucket_setting
from s3gw.handlers.listing import list_objects, list_objects_v2
from s3gw.handlers.multipart import abort_multipart_upload, create_multipart_upload, upload_part, upload_part_copy
from s3gw.handlers.multipart_complete import complete_multipart_upload
from s3gw.handlers.multipart_list import list_multipart_uploads, list_parts
from s3gw.handlers.object_acl import get_object_acl, put_object_acl
from s3gw.handlers.object_attributes import get_object_attributes
from s3gw.handlers.object_copy import copy_object
from s3gw.handlers.object_delete import delete_object, delete_objects
from s3gw.handlers.object_lock import (
    get_object_legal_hold,
    get_object_lock_configuration,
    get_object_retention,
    put_object_legal_hold,
    put_object_lock_configuration,
    put_object_retention,
)
from s3gw.handlers.object_read import get_object, head_object
from s3gw.handlers.object_tagging import delete_object_tagging, get_object_tagging, put_object_tagging
from s3gw.handlers.object_write import put_object
from s3gw.handlers.post_object import post_object
from s3gw.handlers.preflight import preflight
from s3gw.handlers.service import list_buckets
from s3gw.handlers.versioning import get_bucket_versioning, list_object_versions, put_bucket_versioning
from s3gw.metrics import RequestMetrics
from s3gw.protocol.claims import RawRequest, join_headers, make_anonymous_claim, parse_claim
from s3gw.protocol.cors import plan_cross_origin
from s3gw.protocol.errors import S3Error
from s3gw.protocol.operations import Operation
from s3gw.protocol.principals import ANONYMOUS
from s3gw.protocol.routing import Route, add_hoisted_headers, parse_query, parse_target, route_request
from s3gw.protocol.sigv4 import SigningKeys, Verified, verify_claim
from s3gw.refusals import translate
from s3gw.respond import Headers, Intake, Receive, Responder, Send, format_error_headers, render_error
from storage.base.errors import FrostbyteError, NoSuchBucket, NoSuchKey, NoSuchVersion
from storage.model import Bucket, User

Scope = dict[str, Any]
Handler = Callable[[Call], Awaitable[Response | None]]
BucketHeaders = Callable[[Bucket, str, Mapping[str, str]], Headers]
"""(bucket, method, request headers) → response headers"""

log = logging.getLogger(__name__)

HANDLERS: dict[Operation, Handler] = {
    Operation.LIST_BUCKETS: list_buckets,
    Operation.CREATE_BUCKET: create_bucket,
    Operation.HEAD_BUCKET: head_bucket,
    Operation.DELETE_BUCKET: delete_bucket,
    Operation.GET_BUCKET_SETTING: get_bucket_setting,
    Operation.DELETE_BUCKET_SETTING: delete_nothing,
    Operation.GET_BUCKET_TAGGING: get_bucket_document,
    Operation.PUT_BUCKET_TAGGING: put_bucket_document,
    Operation.DELETE_BUCKET_TAGGING: delete_bucket_document,
    Operation.GET_BUCKET_CORS: get_bucket_document,
    Operation.PUT_BUCKET_CORS: put_bucket_document,
    Operation.DELETE_BUCKET_CORS: delete_bucket_document,
    Operation.GET_BUCKET_LIFECYCLE_CONFIGURATION: get_bucket_lifecycle,
    Operation.PUT_BUCKET_LIFECYCLE_CONFIGURATION: put_bucket_lifecycle,
    Operation.DELETE_BUCKET_LIFECYCLE: delete_bucket_lifecycle,
    Operation.GET_BUCKET_REQUEST_PAYMENT: get_bucket_document,
    Operation.PUT_BUCKET_REQUEST_PAYMENT: put_bucket_document,
    Operation.GET_BUCKET_ACCELERATE_CONFIGURATION: get_bucket_document,
    Operation.PUT_BUCKET_ACCELERATE_CONFIGURATION: put_bucket_document,
    Operation.GET_BUCKET_ACL: get_bucket_acl,
    Operation.PUT_BUCKET_ACL: put_bucket_acl,
    Operation.GET_BUCKET_POLICY: get_bucket_policy,
    Operation.PUT_BUCKET_POLICY: put_bucket_policy,
    Operation.DELETE_BUCKET_POLICY: delete_bucket_policy,
    Operation.GET_BUCKET_POLICY_STATUS: get_bucket_policy_status,
    Operation.GET_BUCKET_OWNERSHIP_CONTROLS: get_ownership_controls,
    Operation.PUT_BUCKET_OWNERSHIP_CONTROLS: put_ownership_controls,
    Operation.DELETE_BUCKET_OWNERSHIP_CONTROLS: delete_ownership_controls,
    Operation.GET_PUBLIC_ACCESS_BLOCK: get_public_access_block,
    Operation.PUT_PUBLIC_ACCESS_BLOCK: put_public_access_block,
    Operation.DELETE_PUBLIC_ACCESS_BLOCK: delete_public_access_block,
    Operation.GET_BUCKET_ENCRYPTION: get_bucket_document,
    Operation.PUT_BUCKET_ENCRYPTION: put_bucket_document,
    Operation.DELETE_BUCKET_ENCRYPTION: delete_bucket_document,
    Operation.LIST_OBJECTS: list_objects,
    Operation.LIST_OBJECTS_V2: list_objects_v2,
    Operation.LIST_OBJECT_VERSIONS: list_object_versions,
    Operation.GET_BUCKET_VERSIONING: get_bucket_versioning,
    Operation.PUT_BUCKET_VERSIONING: put_bucket_versioning,
    Operation.GET_OBJECT_LOCK_CONFIGURATION: get_object_lock_configuration,
    Operation.PUT_OBJECT_LOCK_CONFIGURATION: put_object_lock_configuration,
    Operation.GET_OBJECT_RETENTION: get_object_retention,
    Operation.PUT_OBJECT_RETENTION: put_object_retention,
    Operation.GET_OBJECT_LEGAL_HOLD: get_object_legal_hold,
    Operation.PUT_OBJECT_LEGAL_HOLD: put_object_legal_hold,
    Operation.LIST_MULTIPART_UPLOADS: list_multipart_uploads,
    Operation.DELETE_OBJECTS: delete_objects,
    Operation.GET_OBJECT: get_object,
    Operation.HEAD_OBJECT: head_object,
    Operation.PUT_OBJECT: put_object,
    Operation.COPY_OBJECT: copy_object,
    Operation.DELETE_OBJECT: delete_object,
    Operation.GET_OBJECT_ACL: get_object_acl,
    Operation.PUT_OBJECT_ACL: put_object_acl,
    Operation.GET_OBJECT_TAGGING: get_object_tagging,
    Operation.PUT_OBJECT_TAGGING: put_object_tagging,
    Operation.DELETE_OBJECT_TAGGING: delete_object_tagging,
    Operation.CREATE_MULTIPART_UPLOAD: create_multipart_upload,
    Operation.UPLOAD_PART: upload_part,
    Operation.UPLOAD_PART_COPY: upload_part_copy,
    Operation.COMPLETE_MULTIPART_UPLOAD: complete_multipart_upload,
    Operation.ABORT_MULTIPART_UPLOAD: abort_multipart_upload,
    Operation.LIST_PARTS: list_parts,
    Operation.POST_OBJECT: post_object,
    Operation.GET_OBJECT_ATTRIBUTES: get_object_attributes,
    Operation.PREFLIGHT: preflight,
}
UNSIGNED = frozenset({Operation.POST_OBJECT, Operation.PREFLIGHT})
"""reach their handlers as nobody's: a form is authenticated and authorized there (Call.authenticate_as)"""

CROSS_ORIGIN_HEADERS: tuple[BucketHeaders, ...] = (plan_cross_origin,)
"""what every answer to a request with an Origin carries, an error as well; asked when the bucket has settings"""
_NO_ROUTE = Route(Operation.METHOD_NOT_ALLOWED, "", "", b"")


class Dispatcher:
    """An ASGI application for everything that is S3."""

    def __init__(self, services: Services, metrics: RequestMetrics) -> None:
        self._services = services
        self._metrics = metrics
        self._signing_keys = SigningKeys()
        self._host_id = secrets.token_urlsafe(36)
        self._host_header = (b"x-amz-id-2", self._host_id.encode("ascii"))

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
            for plan in CROSS_ORIGIN_HEADERS:
                self.responder.promise(plan(bucket, self.raw.method, headers))

    async def _authenticate(self, unsigned: bool) -> tuple[Verified, User]:
        """Who is asking. Raises the S3Error of a claim that does not hold."""
        services = self._services
        claim = None if unsigned else parse_claim(self.raw, services.settings.region)
        if claim is None:
            return Verified(make_anonymous_claim(self.raw), b""), ANONYMOUS
        credential = await services.directory.credential(claim.access_key_id)
        if credential is None:
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=claim.access_key_id)
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
