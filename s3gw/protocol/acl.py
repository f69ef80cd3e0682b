"""PURE. Access control lists: canned ones, grants in headers, and what a list gives to whom.

Source: Amazon S3 User Guide, "Access control list (ACL) overview". A list that says only what holds anyway (its owner
has full control) is None. What a client names a grantee by is a Grantee, until the directory has said whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from s3gw.protocol.errors import S3Error
from s3gw.protocol.policy_status import PUBLIC_GROUPS
from s3gw.protocol.principals import is_anonymous
from storage.model import Grant, User

GRANTS_MAX = 100
ACLS_REMEMBERED_MAX = 4096
ALL_USERS = "group:AllUsers"
AUTHENTICATED_USERS = "group:AuthenticatedUsers"
LOG_DELIVERY = "group:LogDelivery"

GROUP_URIS = {
    "http://acs.amazonaws.com/groups/global/AllUsers": ALL_USERS,
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers": AUTHENTICATED_USERS,
    "http://acs.amazonaws.com/groups/s3/LogDelivery": LOG_DELIVERY,
}
PERMISSIONS = ("READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL")
FULL_CONTROL = "FULL_CONTROL"
BUCKET_OWNER_FULL_CONTROL = "bucket-owner-full-control"

_OF_THE_BUCKETS_OWNER = "bucket-owner"
_CANNED: dict[str, tuple[tuple[str, str], ...]] = {
    "private": (),
    "public-read": ((ALL_USERS, "READ"),),
    "public-read-write": ((ALL_USERS, "READ"), (ALL_USERS, "WRITE")),
    "authenticated-read": ((AUTHENTICATED_USERS, "READ"),),
    "aws-exec-read": (),
    "bucket-owner-read": ((_OF_THE_BUCKETS_OWNER, "READ"),),
    BUCKET_OWNER_FULL_CONTROL: ((_OF_THE_BUCKETS_OWNER, FULL_CONTROL),),
    "log-delivery-write": ((LOG_DELIVERY, "WRITE"), (LOG_DELIVERY, "READ_ACP")),
}
"""name → what it grants beside its owner's full control; aws-exec-read is for a service that is not here"""

_CANNED_HEADER = "x-amz-acl"
_GRANT_HEADERS = {
    "x-amz-grant-read": "READ",
    "x-amz-grant-write": "WRITE",
    "x-amz-grant-read-acp": "READ_ACP",
    "x-amz-grant-write-acp": "WRITE_ACP",
    "x-amz-grant-full-control": FULL_CONTROL,
}
_GRANTEE = re.compile(r'\s*(id|emailaddress|uri)\s*=\s*(?:"([^"]*)"[ \t]*|([^",]*))', re.IGNORECASE)


class Grantee(NamedTuple):
    """As a client names one. kind: `id`, `emailaddress` or `uri`."""

    kind: str
    text: str


class Wish(NamedTuple):
    """The list that a request asks for: a canned one's name, or grants to be looked up. Both empty: none."""

    canned: str = ""
    grants: tuple[tuple[Grantee, str], ...] = ()
    is_explicit: bool = False
    """whether a document or headers list the grants, so that no grants means nobody, the owner included"""


NO_WISH = Wish()
Acl = tuple[Grant, ...]


def parse_wish(headers: Mapping[str, str]) -> Wish:
    """x-amz-acl, or the x-amz-grant-… headers. InvalidArgument, InvalidRequest."""
    canned = headers.get(_CANNED_HEADER, "")
    grants: list[tuple[Grantee, str]] = []
    for name, permission in _GRANT_HEADERS.items():
        if text := headers.get(name):
            grants += [(grantee, permission) for grantee in _parse_grantees(name, text)]
    if len(grants) > GRANTS_MAX:
        raise S3Error("InvalidRequest", f"An ACL has at most {GRANTS_MAX} grants")
    if not canned:
        return Wish("", tuple(grants), bool(grants))
    if grants:
        raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    if canned not in _CANNED:
        raise S3Error("InvalidArgument", ArgumentName=_CANNED_HEADER, ArgumentValue=canned[:256])
    return Wish(canned)


def _parse_grantees(name: str, text: str) -> list[Grantee]:
    """`id="…", emailAddress="…", uri="…"`, quotes at will."""
    found: list[Grantee] = []
    position = 0
    while True:
        match = _GRANTEE.match(text, position)
        named = (match[2] or match[3] or "").strip() if match else ""
        if match is None or not named:
            raise _bad_grant(name, text)
        found.append(Grantee(match[1].lower(), named))
        position = match.end()
        if position == len(text):
            return found
        if text[position] != "," or len(found) > GRANTS_MAX:
            raise _bad_grant(name, text)
        position += 1


def _bad_grant(name: str, text: str) -> S3Error:
    return S3Error("InvalidArgument", "Argument format not recognized", ArgumentName=name, ArgumentValue=text[:256])


def plan_canned(canned: str, owner_id: str, bucket_owner_id: str | None) -> Acl | None:
    """What a canned ACL grants. bucket_owner_id: None for the ACL of a bucket, where bucket-owner-… mean nothing."""
    grants = []
    for grantee, permission in _CANNED[canned]:
        if grantee != _OF_THE_BUCKETS_OWNER:
            grants.append(Grant(grantee, permission))
        elif bucket_owner_id is not None and bucket_owner_id != owner_id:
            grants.append(Grant(bucket_owner_id, permission))
    return (*grants, Grant(owner_id, FULL_CONTROL)) if grants else None


def find_group(uri: str) -> str:
    """The group of a URI. InvalidArgument."""
    try:
        return GROUP_URIS[uri]
    except KeyError:
        raise S3Error("InvalidArgument", "Invalid group uri", ArgumentName="uri", ArgumentValue=uri[:256]) from None


def simplify(acl: Acl, owner_id: str) -> Acl | None:
    """None for a list that says what holds without one."""
    return None if acl == (Grant(owner_id, FULL_CONTROL),) else acl


def expand(acl: Acl | None, owner_id: str) -> Acl:
    """The inverse, for showing: groups first."""
    if acl is None:
        return (Grant(owner_id, FULL_CONTROL),)
    return tuple(sorted(acl, key=lambda grant: not grant.grantee.startswith("group:")))


def grants_permission(acl: Sequence[Grant], caller: User, wanted: str, ignore_public: bool) -> bool:
    """Whether a list gives the caller READ, WRITE, READ_ACP or WRITE_ACP. ignore_public: groups count for nothing."""
    for grant in acl:
        if grant.permission not in (wanted, FULL_CONTROL) or not _is_grantee(grant.grantee, caller):
            continue
        if not (ignore_public and grant.grantee in PUBLIC_GROUPS):
            return True
    return False


def _is_grantee(grantee: str, caller: User) -> bool:
    if grantee == ALL_USERS:
        return True
    if is_anonymous(caller):
        return False
    return grantee in (caller.canonical_id, AUTHENTICATED_USERS)


def encode_acl(acl: Acl) -> bytes:
    """As a bucket's setting keeps it."""
    return msgspec.msgpack.encode(acl)


@lru_cache(ACLS_REMEMBERED_MAX)
def decode_acl(document: bytes) -> Acl:
    """The inverse."""
    return msgspec.msgpack.decode(document, type=tuple[Grant, ...])
