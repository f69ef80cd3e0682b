"""One request on its way through a handler: what is known of it, and what a handler needs to serve it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import quote

import msgspec

from cluster.directory import Directory
from cluster.objectstore import ObjectStore
from cluster.read_counts import ReadCounts
from cluster.write_counts import WriteCounts
from s3gw import access
from s3gw.access_lists import ACL_DEFAULTS, plan_object_acl
from s3gw.body import RequestBody, open_body
from s3gw.protocol.authorize import find_bucket_rules, owns_everything
from s3gw.protocol.claims import RawRequest
from s3gw.protocol.errors import S3Error
from s3gw.protocol.ownership import OWNERSHIP_SETTING, plan_owner
from s3gw.protocol.permissions import choose_permission
from s3gw.protocol.principals import ANONYMOUS
from s3gw.protocol.routing import Route
from s3gw.protocol.sigv4 import Verified
from s3gw.protocol.versions import find_version_id
from s3gw.protocol.xml import XML_BYTES_MAX, document
from s3gw.respond import XML_TYPE, Headers, Intake, Responder
from storage.base.clock import Clock
from storage.model import Attributes, Bucket, ChecksumAlgorithm, Upload, User, Version

_OF_THE_OBJECT = (b"x-amz-checksum-", b"x-amz-sdk-checksum-")


class Operations(Protocol):
    """What s3gw asks of the door of operations."""

    @property
    def reads(self) -> ReadCounts:
        """What reading took so far; it goes on."""
        ...

    @property
    def writes(self) -> WriteCounts:
        """What was written past datanodes so far; it goes on."""
        ...

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
    bucket_defaults: str = ACL_DEFAULTS
    """what a new bucket begins with: `acl` (ACLs count, nobody is granted anything) or `aws` (they do not, and public
    access is blocked)"""


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
        "_seen",
        "client_address",
        "headers",
        "intake",
        "is_form",
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
        self.is_form = False
        self._bucket = bucket
        self._seen: access.Seen | None = None

    @property
    def bucket(self) -> Bucket:
        """The bucket that the route names; dispatch has looked it up."""
        assert self._bucket is not None
        return self._bucket

    @property
    def object_key(self) -> bytes:
        """The key that the route names."""
        return self.route.object_key

    @property
    def object_url(self) -> str:
        """Where the object is, by the host that the client asked."""
        path = f"{self.bucket.name}/{quote(self.object_key, safe='/~')}"
        return f"{self.scheme}://{self.raw.host.decode('latin-1')}/{path}"

    # ------------------------------------------------------------------ access

    async def may(self, permission: str, object_key: bytes | None = None, version_id: str | None = None) -> bool:
        """Whether the caller has another permission than the one that the route names, on an object of this bucket.

        object_key: None for that of the request. version_id: where the permission is on a version; asked under the
        permission's own name (`s3:GetObjectVersion`, `s3:BypassGovernanceRetention`, …), nothing is derived here.
        """
        if owns_everything(self.user, self.bucket):
            return True
        decision, _ = await access.decide(self, self._ask(permission, object_key, version_id))
        return decision.allowed

    async def authorize(self, permission: str, object_key: bytes | None = None, version_id: str | None = None) -> None:
        """AccessDenied unless the caller may; see may."""
        if not await self.may(permission, object_key, version_id):
            raise S3Error("AccessDenied")

    async def authorize_tagging(self, permission: str, tags: Mapping[str, str]) -> None:
        """AccessDenied unless the caller may set these tags, which a policy may ask for (s3:RequestObjectTag).

        For requests whose body holds the tags: dispatch leaves the question to their handler where a policy asks.
        """
        if not owns_everything(self.user, self.bucket):
            version_id = find_version_id(self.query)
            question = self._ask(choose_permission(permission, version_id), None, version_id)
            await access.demand(self, question._replace(request_tags=tags, seen=self._seen))

    async def authorize_request(self) -> None:
        """AccessDenied unless the caller may do what the request asks, by all that its headers say.

        Dispatch asks it for every request but a form's and a preflight's.
        """
        bucket = self._bucket
        if bucket is not None:
            check_expected_owner(bucket, self.headers.get("x-amz-expected-bucket-owner"))
            if owns_everything(self.user, bucket):
                return
        self._seen = await access.demand_request(self, self.route, bucket)

    def confirm(self, version: Version) -> None:
        """AccessDenied where this version, which a read has found, is not what was authorized.

        The object was not looked at then, and it is somebody else's in the caller's bucket; or it was replaced since.
        """
        seen, owner_id = self._seen, self.bucket.owner_id
        if self.user.is_root:
            return
        if seen is None:
            if version.owner_id == owner_id or self.user.canonical_id != owner_id:
                return
        elif seen.uid == version.uid:
            return
        version_id = find_version_id(self.query)
        question = self._ask(choose_permission(self.route.permission, version_id), None, version_id)
        if not access.judge(self, question._replace(seen=access.describe(version))).allowed:
            raise S3Error("AccessDenied")

    async def may_know_of_absence(self) -> bool:
        """Whether the caller may be told that the request's object is not there."""
        bucket = self._bucket
        return (
            bucket is None
            or owns_everything(self.user, bucket)
            or await access.may_know_of(self, bucket, self.object_key)
        )

    async def with_acl(self, attributes: Attributes) -> Attributes:
        """The attributes of an object that the request writes, with the ACL that it asks for and no other.

        InvalidArgument, InvalidRequest, UnresolvableGrantByEmailAddress, AccessControlListNotSupported, AccessDenied
        (a public ACL where those are blocked).
        """
        acl = await plan_object_acl(self.services.directory, self.bucket, self.user.canonical_id, self.headers)
        return attributes if attributes.acl == acl else msgspec.structs.replace(attributes, acl=acl)

    def choose_owner(self, writer_id: str, attributes: Attributes) -> tuple[str, Attributes]:
        """Whose the object becomes that this user writes with these attributes, and the attributes that it gets."""
        bucket = self.bucket
        if OWNERSHIP_SETTING not in bucket.settings:
            return writer_id, attributes
        ownership = find_bucket_rules(bucket.settings).ownership
        owner_id, acl = plan_owner(ownership, writer_id, bucket.owner_id, attributes.acl)
        return owner_id, msgspec.structs.replace(attributes, acl=acl)

    def find_upload_owner(self, upload: Upload) -> str:
        """Whom the object of an open upload will belong to."""
        return self.choose_owner(upload.owner_id, upload.attributes)[0]

    def _ask(self, permission: str, object_key: bytes | None, version_id: str | None) -> access.Question:
        return access.Question(
            self.bucket, permission, self.object_key if object_key is None else object_key, version_id
        )

    async def authenticate_as(self, user: User, object_key: bytes, headers: dict[str, str]) -> None:
        """Take a form for the signed PUT of an object that it stands for, and authorize that. AccessDenied.

        user: whom the form's signature proves (ANONYMOUS for a form without one). headers: what its fields say, by
        the lower-case names of the headers they stand for; they take the place of the request's own.
        """
        self.user = user
        self.headers = headers
        self.is_form = True
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
            if user is None and canonical_id == ANONYMOUS.canonical_id:
                user = ANONYMOUS
            names[canonical_id] = user.display_name if user else canonical_id
        return names


def check_expected_owner(bucket: Bucket, expected: str | None) -> None:
    """A request that expects another owner is denied whoever asks."""
    if expected and expected != bucket.owner_id:
        raise S3Error("AccessDenied")


def xml_response(root_name: str, inner: str, headers: Headers | None = None) -> Response:
    """200 with a document in S3's namespace."""
    return Response(200, [XML_TYPE, *(headers or [])], document(root_name, inner))
