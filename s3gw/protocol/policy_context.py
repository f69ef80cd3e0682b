"""PURE. What a request is, by the condition keys of policies.

Source: IAM User Guide, "AWS global condition context keys"; Service Authorization Reference, "Condition keys for Amazon
S3". A key is looked up only when a policy asks for it. Names are matched in any case of letters; the name of a tag,
behind the slash, as it is written. Where a key has no value here the request does not have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from s3gw.protocol.claims import ALGORITHM, Claim
from s3gw.protocol.policy_conditions import parse_moment
from s3gw.protocol.principals import format_user_arn, is_anonymous
from storage.model import User

TLS_VERSION = "1.2"
"""the least that our own TLS speaks; a proxy's may differ"""
REQUEST_TAGS_MAX = 50
_DAY_S = 86400


class Facts(NamedTuple):
    """A request as policies see it."""

    caller: User
    claim: Claim
    headers: Mapping[str, str]
    """lower-case names"""
    query: Mapping[str, str]
    scheme: str
    client_address: str
    now_s: float
    region: str
    bucket_owner_id: str
    is_form: bool = False
    object_tags: Mapping[str, str] = {}
    """of the object that is there"""
    request_tags: Mapping[str, str] | None = None
    """where a body gives them; None: what x-amz-tagging says"""

    def find_values(self, key: str) -> Sequence[str]:
        """The values of a condition key, none when the request does not have it."""
        name, slash, rest = key.partition("/")
        name = name.lower()
        if slash:
            finder = _TAG_KEYS.get(name)
            value = finder(self).get(rest) if finder else None
            return () if value is None else (value,)
        if name.startswith("s3:x-amz-") and name not in _KEYS:
            return _one(self.headers.get(name[3:]))
        find = _KEYS.get(name)
        return find(self) if find else ()


def _one(value: str | None) -> Sequence[str]:
    return (value,) if value else ()


def _header(name: str) -> Callable[[Facts], Sequence[str]]:
    return lambda facts: _one(facts.headers.get(name))


def _parameter(name: str) -> Callable[[Facts], Sequence[str]]:
    """One of the query; unlike a header an empty one is there."""
    return lambda facts: (facts.query[name],) if name in facts.query else ()


def _always(value: str) -> Callable[[Facts], Sequence[str]]:
    return lambda _: (value,)


def _signed(find: Callable[[Facts], str]) -> Callable[[Facts], Sequence[str]]:
    return lambda facts: () if is_anonymous(facts.caller) else (find(facts),)


def _claimed(find: Callable[[Facts], str]) -> Callable[[Facts], Sequence[str]]:
    """Of the request's own signature; a form's stands in the form."""
    return lambda facts: (find(facts),) if facts.claim.access_key_id else ()


def _find_request_tags(facts: Facts) -> Mapping[str, str]:
    if facts.request_tags is not None:
        return facts.request_tags
    header = facts.headers.get("x-amz-tagging")
    if not header:
        return {}
    try:
        return dict(parse_qsl(header, keep_blank_values=True, max_num_fields=REQUEST_TAGS_MAX))
    except ValueError:  # refused when the tags themselves are parsed
        return {}


def _find_retention_days(facts: Facts) -> Sequence[str]:
    until_s = parse_moment(facts.headers.get("x-amz-object-lock-retain-until-date", ""))
    return () if until_s is None else (str(max(0, int((until_s - facts.now_s) // _DAY_S))),)


def _find_auth_type(facts: Facts) -> str:
    if facts.is_form:
        return "POST"
    return "REST-HEADER" if facts.claim.expires_s is None else "REST-QUERY-STRING"


def _format_time(now_s: float) -> str:
    return f"{datetime.fromtimestamp(now_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _format_copy_source(facts: Facts) -> Sequence[str]:
    """`bucket/key`, decoded."""
    source = facts.headers.get("x-amz-copy-source")
    return _one(unquote(source.replace("+", " ")).removeprefix("/") if source else None)


_KEYS: dict[str, Callable[[Facts], Sequence[str]]] = {
    "aws:currenttime": lambda facts: (_format_time(facts.now_s),),
    "aws:epochtime": lambda facts: (str(int(facts.now_s)),),
    "aws:principalaccount": _signed(lambda facts: facts.caller.canonical_id),
    "aws:principalarn": _signed(lambda facts: format_user_arn(facts.caller)),
    "aws:principalisawsservice": _always("false"),
    "aws:principaltype": lambda facts: ("Anonymous" if is_anonymous(facts.caller) else "User",),
    "aws:referer": _header("referer"),
    "aws:requestedregion": lambda facts: (facts.region,),
    "aws:resourceaccount": lambda facts: (facts.bucket_owner_id,),
    "aws:securetransport": lambda facts: ("true" if facts.scheme == "https" else "false",),
    "aws:sourceip": lambda facts: _one(facts.client_address),
    "aws:useragent": _header("user-agent"),
    "aws:userid": lambda facts: ("anonymous" if is_anonymous(facts.caller) else facts.caller.canonical_id,),
    "aws:username": _signed(lambda facts: facts.caller.name),
    "aws:viaawsservice": _always("false"),
    "s3:authtype": _signed(_find_auth_type),
    "s3:delimiter": _parameter("delimiter"),
    "s3:if-match": _header("if-match"),
    "s3:if-none-match": _header("if-none-match"),
    "s3:max-keys": _parameter("max-keys"),
    "s3:object-lock-legal-hold": _header("x-amz-object-lock-legal-hold"),
    "s3:object-lock-mode": _header("x-amz-object-lock-mode"),
    "s3:object-lock-remaining-retention-days": _find_retention_days,
    "s3:object-lock-retain-until-date": _header("x-amz-object-lock-retain-until-date"),
    "s3:prefix": _parameter("prefix"),
    "s3:requestobjecttagkeys": lambda facts: tuple(_find_request_tags(facts)),
    "s3:resourceaccount": lambda facts: (facts.bucket_owner_id,),
    "s3:signatureage": _claimed(lambda facts: str(max(0, int((facts.now_s - facts.claim.time_s) * 1000)))),
    "s3:signatureversion": _claimed(lambda _: ALGORITHM),
    "s3:tlsversion": lambda facts: (TLS_VERSION,) if facts.scheme == "https" else (),
    "s3:versionid": _parameter("versionId"),
    "s3:x-amz-copy-source": _format_copy_source,
}
"""lower-case key → the request's values; what begins with `s3:x-amz-` and is not here is the header of that name"""

_TAG_KEYS: dict[str, Callable[[Facts], Mapping[str, str]]] = {
    "s3:existingobjecttag": lambda facts: facts.object_tags,
    "s3:requestobjecttag": _find_request_tags,
}
