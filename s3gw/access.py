"""Deciding what a caller may do: fetches what the pure rules of protocol.authorize need, and logs what they say.

Nothing is fetched where the rules can tell without it. The object is looked at only when neither the bucket's owner nor
its policy decide; what was seen of it then is remembered, so that a read that finds another version asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from cluster.directory import Credential, Directory
from cluster.objectstore import ObjectStore
from s3gw.protocol.authorize import (
    BY_BUCKET_ACL,
    MISSING,
    Asked,
    Decision,
    Target,
    Verdict,
    authorize,
    authorize_without_bucket,
    find_bucket_rules,
    format_resource,
)
from s3gw.protocol.errors import S3Error
from s3gw.protocol.operations import Operation
from s3gw.protocol.permissions import choose_permission, names_grants, plan_permissions
from s3gw.protocol.policy_context import Facts
from s3gw.protocol.principals import is_anonymous
from s3gw.protocol.routing import Route
from s3gw.protocol.sigv4 import Verified
from s3gw.protocol.versions import find_version_id
from storage.base.clock import Clock
from storage.base.errors import NoSuchKey, NoSuchUpload, NoSuchVersion, Refused
from storage.model import Bucket, User, Version

DECIDED_BY_HANDLER = frozenset({Operation.DELETE_OBJECTS, Operation.PUT_OBJECT_TAGGING})
"""their bodies say what is asked for: each key on its own, the tags to set"""
OF_THE_INITIATOR = frozenset({Operation.ABORT_MULTIPART_UPLOAD, Operation.LIST_PARTS})
"""whoever began an upload may look at it and end it"""
LOGGED_CHARACTERS_MAX = 512

log = logging.getLogger(__name__)


class _Doors(Protocol):
    @property
    def objects(self) -> ObjectStore: ...
    @property
    def directory(self) -> Directory: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def settings(self) -> _Region: ...


class _Region(Protocol):
    @property
    def region(self) -> str: ...


class Asker(Protocol):
    """What is known of a request that asks (s3gw.call.Call)."""

    user: User
    verified: Verified
    headers: dict[str, str]
    query: dict[str, str]
    scheme: str
    client_address: str
    is_form: bool

    @property
    def services(self) -> _Doors: ...


async def find_credential(directory: Directory, access_key_id: str) -> Credential:
    """Of who claims to sign. InvalidAccessKeyId."""
    credential = await directory.credential(access_key_id)
    if credential is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key_id)
    return credential


class Seen(NamedTuple):
    """An object that was looked at. uid: of the version, empty where there is none, and absence says why."""

    target: Target
    tags: Mapping[str, str]
    uid: bytes
    absence: Refused | None = None


NOTHING_SEEN = Seen(MISSING, {}, b"")


class Question(NamedTuple):
    """A permission on a bucket, or on an object (a version) of it.

    query: what stands for the request's own, where the question is about something else. request_tags: that a body
    gives. seen: of the object, None where it was not looked at.
    """

    bucket: Bucket
    permission: str
    object_key: bytes = b""
    version_id: str | None = None
    query: Mapping[str, str] | None = None
    request_tags: Mapping[str, str] | None = None
    seen: Seen | None = None


def describe(version: Version) -> Seen:
    """What the rules need of a version. A marker is nobody's object."""
    if version.is_marker:
        return NOTHING_SEEN._replace(uid=version.uid)
    attributes = version.attributes
    return Seen(Target(version.owner_id, attributes.acl), attributes.tags, version.uid)


async def decide(asker: Asker, question: Question) -> tuple[Decision, Seen | None]:
    """The decision, and the object where it took a look at it."""
    decision = judge(asker, question)
    if decision.verdict is not Verdict.NEEDS_OBJECT:
        return decision, question.seen
    try:
        reading = await asker.services.objects.head(question.bucket, question.object_key, question.version_id)
        seen = describe(reading.version)
    except (NoSuchKey, NoSuchVersion) as error:
        seen = NOTHING_SEEN._replace(absence=error)
    return judge(asker, question._replace(seen=seen)), seen


def judge(asker: Asker, question: Question) -> Decision:
    """The decision by what the question itself tells; NEEDS_OBJECT where that is not enough."""
    bucket, seen = question.bucket, question.seen
    facts = Facts(
        asker.user,
        asker.verified.claim,
        asker.headers,
        asker.query if question.query is None else question.query,
        asker.scheme,
        asker.client_address,
        asker.services.clock.now_ms() / 1000,
        asker.services.settings.region,
        bucket.owner_id,
        asker.is_form,
        {} if seen is None else seen.tags,
        question.request_tags,
    )
    resource = format_resource(bucket.name, question.object_key)
    decision = authorize(
        Asked(
            asker.user,
            question.permission,
            bucket.owner_id,
            resource,
            find_bucket_rules(bucket.settings),
            None if seen is None else seen.target,
            facts.find_values,
        )
    )
    level = logging.INFO if decision.verdict in (Verdict.DENY, Verdict.NOT_ALLOWED) else logging.DEBUG
    if log.isEnabledFor(level):
        who = "anonymous" if is_anonymous(asker.user) else asker.user.name
        text = f"{decision.verdict.value}: {question.permission} for {who}: {decision.reason}: {resource!r}"
        log.log(level, "%s", text[:LOGGED_CHARACTERS_MAX])
    return decision


async def may_know_of(asker: Asker, bucket: Bucket, object_key: bytes) -> bool:
    """Whether the caller may be told that an object is not there: who may list it knows it anyway."""
    listing = {"prefix": object_key.decode("utf-8", "replace")}
    decision, _ = await decide(asker, Question(bucket, "s3:ListBucket", query=listing))
    return decision.allowed


async def demand(asker: Asker, question: Question) -> Seen | None:
    """AccessDenied unless the caller may; else what was seen of the object."""
    decision, seen = await decide(asker, question)
    if not decision.allowed:
        raise S3Error("AccessDenied")
    return seen


async def demand_request(asker: Asker, route: Route, bucket: Bucket | None) -> Seen | None:
    """AccessDenied unless the caller may do all that a request asks; else what was seen of its object."""
    if bucket is None:
        if not authorize_without_bucket(asker.user, route.permission).allowed:
            raise S3Error("AccessDenied")
        return None
    if route.operation in DECIDED_BY_HANDLER:
        rules = find_bucket_rules(bucket.settings)
        if rules.policy is None and rules.acl is None and bucket.owner_id != asker.user.canonical_id:
            raise S3Error("AccessDenied")  # nothing could allow a single key
        return None
    version_id = find_version_id(asker.query) if route.object_key and "versionId" in asker.query else None
    permission = choose_permission(route.permission, version_id)
    question = Question(bucket, permission, route.object_key, version_id)
    decision, seen = await decide(asker, question)
    if not decision.allowed and not (
        decision.verdict is Verdict.NOT_ALLOWED
        and route.operation in OF_THE_INITIATOR
        and await _is_initiator(asker, bucket, route.object_key)
    ):
        await _tell_absence(asker, question, decision, seen)
        raise S3Error("AccessDenied")
    for further in plan_permissions(permission, asker.headers):
        # ACLs are older than tags: whoever may write by one may write with tags, as he always could.
        if further == "s3:PutObjectTagging" and decision.reason == BY_BUCKET_ACL:
            _heed_deny(asker, question._replace(permission=further))
        else:
            seen = await demand(asker, question._replace(permission=further, seen=seen)) or seen
    if permission == "s3:PutObject" and names_grants(asker.headers):
        _heed_deny(asker, question._replace(permission="s3:PutObjectAcl"))
    return seen


def _heed_deny(asker: Asker, question: Question) -> None:
    """AccessDenied for what goes with a write that is allowed, only where a policy says so in so many words."""
    if judge(asker, question._replace(seen=NOTHING_SEEN)).verdict is Verdict.DENY:
        raise S3Error("AccessDenied")


async def _tell_absence(asker: Asker, question: Question, decision: Decision, seen: Seen | None) -> None:
    """Raises why there is no object, to a caller who would not be allowed to read it but may list it."""
    absence = None if seen is None else seen.absence
    if absence is None or decision.verdict is not Verdict.NOT_ALLOWED:
        return
    if await may_know_of(asker, question.bucket, question.object_key):
        raise absence


async def _is_initiator(asker: Asker, bucket: Bucket, object_key: bytes) -> bool:
    if is_anonymous(asker.user):
        return False
    try:
        upload = await asker.services.objects.read_upload(bucket, object_key, asker.query["uploadId"])
    except NoSuchUpload:
        return False
    return upload.owner_id == asker.user.canonical_id
