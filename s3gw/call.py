"""One request on its way through a handler: what is known of it, and what a handler needs to serve it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cluster.directory import Directory
from cluster.objectstore import CopySource, ObjectStore
from s3gw.body import RequestBody, open_body
from s3gw.protocol.authorize import authorize
from s3gw.protocol.claims import RawRequest
from s3gw.protocol.conditions import evaluate_copy_source
from s3gw.protocol.copy_source import parse_copy_source
from s3gw.protocol.errors import S3Error
from s3gw.protocol.routing import Route
from s3gw.protocol.sigv4 import Verified
from s3gw.protocol.xml import XML_BYTES_MAX, document
from s3gw.respond import XML_TYPE, Headers, Intake, Responder
from storage.base.clock import Clock
from storage.base.errors import NoSuchBucket, NoSuchKey
from storage.model import Bucket, ChecksumAlgorithm, User

_OF_THE_OBJECT = (b"x-amz-checksum-", b"x-amz-sdk-checksum-")


class Operations(Protocol):
    """What s3gw asks of the door of operations."""

    async def ready(self) -> bool:
        """Whether a write would succeed now."""
        ...


class Settings(NamedTuple):
    """What the gateway was told."""

    region: str = "us-east-1"
    domains: tuple[str, ...] = ()
    """lower-case host names under which `bucket.DOMAIN` addresses a bucket"""
    trusted_proxies: tuple[str, ...] = ()
    """addresses whose X-Forwarded-Host is believed"""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that outlives a request."""

    objects: ObjectStore
    directory: Directory
    operations: Operations
    settings: Settings
    clock: Clock


class Response(NamedTuple):
    """A whole answer that fits in memory."""

    status: int = 200
    headers: Headers = []
    body: bytes = b""


class Call:
    """One authenticated and authorized request.

    (Those of a form and preflights reach their handlers before that; see authenticate_as.)
    """

    __slots__ = (
        "_bucket",
        "client_address",
        "headers",
        "intake",
        "query",
        "raw",
        "responder",
        "route",
        "scheme",
        "services",
        "user",
        "verified",
    )

    def __init__(
        self,
        services: Services,
        raw: RawRequest,
        scheme: str,
        headers: dict[str, str],
        query: dict[str, str],
        route: Route,
        verified: Verified,
        user: User,
        bucket: Bucket | None,
        intake: Intake,
        responder: Responder,
        client_address: str = "",
    ) -> None:
        self.services = services
        self.raw = raw
        self.scheme = scheme
        self.headers = headers
        self.query = query
        self.route = route
        self.verified = verified
        """of an anonymous request: with a claim of nobody, which says how the body is sent"""
        self.user = user
        """never None: principals.ANONYMOUS where nobody signed"""
        self.client_address = client_address
        """`` where the server does not know it"""
        self.intake = intake
        self.responder = responder
        self._bucket = bucket

    @property
    def bucket(self) -> Bucket:
        """The bucket that the route names; dispatch has looked it up."""
        assert self._bucket is not None
        return self._bucket

    @property
    def object_key(self) -> bytes:
        """The key that the route names."""
        return self.route.object_key

    # ------------------------------------------------------------------ access

    async def may(self, permission: str, object_key: bytes | None = None, version_id: str | None = None) -> bool:
        """Whether the caller has another permission than the one that the route names, on an object of this bucket.

        object_key: None for that of the request. version_id: where the permission is on a version; asked under the
        permission's own name (`s3:GetObjectVersion`, `s3:BypassGovernanceRetention`, …), nothing is derived here.
        """
        try:
            await self.authorize(permission, object_key, version_id)
        except S3Error:
            return False
        return True

    async def authorize(self, permission: str, object_key: bytes | None = None, version_id: str | None = None) -> None:
        """AccessDenied unless the caller may; see may."""
        authorize(self.user, permission, self._bucket, self.object_key if object_key is None else object_key)

    async def authorize_request(self) -> None:
        """AccessDenied unless the caller may do what the request asks, by all that its headers say.

        Dispatch asks it for every request but a form's and a preflight's.
        """
        expected_owner = self.headers.get("x-amz-expected-bucket-owner", "")
        authorize(self.user, self.route.permission, self._bucket, self.object_key, expected_owner)

    async def authenticate_as(self, user: User, object_key: bytes, headers: dict[str, str]) -> None:
        """Take a form for the signed PUT of an object that it stands for, and authorize that. AccessDenied.

        user: whom the form's signature proves (ANONYMOUS for a form without one). headers: what its fields say, by
        the lower-case names of the headers they stand for; they take the place of the request's own.
        """
        self.user = user
        self.headers = headers
        self.route = self.route._replace(object_key=object_key)
        await self.authorize_request()

    # ------------------------------------------------------------------ body

    def open_body(self, algorithm: ChecksumAlgorithm | None = None) -> RequestBody:
        """The request's body; nothing is read yet. algorithm: of the checksum to keep, None for the client's own."""
        return open_body(self.intake.receive, self.raw.headers, self.verified, algorithm)

    async def read_document(self, *, checksum_is_of_object: bool = False) -> bytes:
        """The whole verified body of a request that carries XML, empty when there is none.

        checksum_is_of_object: the x-amz-checksum headers speak of an object and not of this body.
        """
        headers = self.raw.headers
        if checksum_is_of_object:
            headers = {name: value for name, value in headers.items() if not name.startswith(_OF_THE_OBJECT)}
        body = open_body(self.intake.receive, headers, self.verified, length_required=False)
        return await body.read_small_body(XML_BYTES_MAX)

    async def find_owner_names(self, canonical_ids: Iterable[str]) -> dict[str, str]:
        """Display names; an owner who is gone is shown by the id."""
        names: dict[str, str] = {}
        for canonical_id in canonical_ids:
            user = await self.services.directory.user(canonical_id)
            names[canonical_id] = user.display_name if user else canonical_id
        return names

    async def open_copy_source(self) -> CopySource:
        """What x-amz-copy-source names: found, allowed to this caller, and meeting its conditions."""
        source = parse_copy_source(self.headers["x-amz-copy-source"])
        try:
            bucket = await self.services.directory.bucket(source.bucket)
        except NoSuchBucket:
            raise S3Error("NoSuchBucket", BucketName=source.bucket) from None
        expected_owner = self.headers.get("x-amz-source-expected-bucket-owner", "")
        authorize(self.user, "s3:GetObject", bucket, source.object_key, expected_owner)
        try:
            reading = await self.services.objects.head(bucket, source.object_key, source.version_id)
        except NoSuchKey:
            raise S3Error("NoSuchKey", Key=source.object_key.decode()) from None
        version = reading.version
        if version.is_marker:
            raise S3Error(
                "InvalidRequest",
                "The source of a copy request may not specifically refer to a delete marker by version id.",
            )
        evaluate_copy_source(self.headers, version.etag, version.last_modified_ms)
        return CopySource(bucket, version)


def xml_response(root_name: str, inner: str, headers: Headers | None = None) -> Response:
    """200 with a document in S3's namespace."""
    return Response(200, [XML_TYPE, *(headers or [])], document(root_name, inner))
