"""PURE. What a browser's form says: who signed it, what object it means, and how it wants to be answered.

A form is signed by its policy alone. SigV4 forms carry `x-amz-signature`, SigV2 ones `signature`: the only place where
SigV2 is accepted. Source: Amazon S3 API Reference, "POST Object" and "Authenticating Requests: Browser-Based Uploads".
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from s3gw.protocol.claims import ALGORITHM, Credential, bad_credential, parse_credential
from s3gw.protocol.errors import S3Error
from s3gw.protocol.form_data import Form
from s3gw.protocol.routing import OBJECT_KEY_BYTES_MAX
from s3gw.protocol.sigv4 import derive_signing_key
from s3gw.protocol.tags import parse_object_tagging
from s3gw.protocol.xml import DECLARATION, element

_FILENAME = "${filename}"
_V4_FIELDS = ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature")
_V4_NAMES = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Signature")
_V2_FIELDS = ("awsaccesskeyid", "signature")
_V2_NAMES = ("AWSAccessKeyId", "Signature")
_PLAIN_HEADERS = (
    "cache-control",
    "content-type",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "expires",
)
_NOT_OF_THE_OBJECT = frozenset({*_V4_FIELDS, "x-amz-security-token", "x-amz-tagging", "x-amz-acl"})
_REDIRECTS = ("success_action_redirect", "redirect")
_STATUSES = {"200": 200, "201": 201, "204": 204}


class FormClaim(NamedTuple):
    """Who claims to have signed which policy. credential: None for SigV2."""

    access_key_id: str
    policy: str
    """base64, as it is signed"""
    signature: str
    credential: Credential | None


def expand_filename(form: Form) -> dict[str, str]:
    """The fields with `${filename}` replaced, before any condition is held against them."""
    return {
        name: text.replace(_FILENAME, form.filename) if _FILENAME in text else text
        for name, text in form.fields.items()
    }


def parse_form_key(fields: Mapping[str, str]) -> bytes:
    """The object's key. InvalidArgument, KeyTooLongError."""
    if "key" not in fields:
        raise _missing("key")
    object_key = fields["key"].encode()
    if not object_key:
        raise S3Error(
            "InvalidArgument",
            "User key must have a length greater than 0.",
            ArgumentName="key",
            ArgumentValue="",
        )
    if len(object_key) > OBJECT_KEY_BYTES_MAX:
        raise S3Error("KeyTooLongError", Size=str(len(object_key)), MaxSizeAllowed=str(OBJECT_KEY_BYTES_MAX))
    return object_key


def parse_form_claim(fields: Mapping[str, str], region: str) -> FormClaim | None:
    """Who signed the form; None for an anonymous one. InvalidArgument for half a signature, InvalidToken,
    AuthorizationQueryParametersError (a credential of another region among it)."""
    if "x-amz-security-token" in fields:
        raise S3Error("InvalidToken")
    signed_v4 = any(name in fields for name in _V4_FIELDS)
    if not signed_v4 and not any(name in fields for name in (*_V2_FIELDS, "policy")):
        return None
    if signed_v4:
        _require(fields, (*_V4_FIELDS, "policy"), (*_V4_NAMES, "Policy"))
        if any(name in fields for name in _V2_FIELDS):
            raise S3Error("InvalidArgument", "Only one auth mechanism allowed", ArgumentName="Signature")
        return _parse_v4(fields, region)
    _require(fields, (*_V2_FIELDS, "policy"), (*_V2_NAMES, "Policy"))
    return FormClaim(fields["awsaccesskeyid"], fields["policy"], fields["signature"], None)


def verify_form_claim(claim: FormClaim, secret_access_key: str) -> None:
    """SignatureDoesNotMatch unless the secret signed the policy."""
    policy, credential = claim.policy.encode(), claim.credential
    if credential is None:
        expected = b64encode(hmac.digest(secret_access_key.encode(), policy, "sha1"))
    else:
        signing_key = derive_signing_key(secret_access_key, credential.date, credential.region)
        expected = hmac.digest(signing_key, policy, "sha256").hex().encode()
    if not hmac.compare_digest(expected, claim.signature.strip().encode()):
        raise S3Error(
            "SignatureDoesNotMatch",
            AWSAccessKeyId=claim.access_key_id,
            StringToSign=claim.policy,
            SignatureProvided=claim.signature,
            StringToSignBytes=policy.hex(" "),
        )


def plan_form_headers(fields: Mapping[str, str]) -> dict[str, str]:
    """The headers of the PUT that a form stands for. InvalidArgument for what no header can carry, and the errors of
    a Tagging document."""
    headers: dict[str, str] = {}
    for name, text in fields.items():
        if name in _PLAIN_HEADERS or (name.startswith("x-amz-") and name not in _NOT_OF_THE_OBJECT):
            headers[name] = _header_text(name, text)
    if acl := fields.get("acl") or fields.get("x-amz-acl"):
        headers["x-amz-acl"] = _header_text("acl", acl)
    if tagging := fields.get("tagging"):
        headers["x-amz-tagging"] = urlencode(parse_object_tagging(tagging.encode()), quote_via=quote)
    return headers


def choose_redirect(fields: Mapping[str, str], bucket: str, object_key: bytes, etag: str) -> str | None:
    """Where a browser goes after a success; None when the form names nothing that is an address."""
    target = next((fields[name].strip() for name in _REDIRECTS if fields.get(name)), "")
    if not target.isascii() or any(ord(character) <= 0x20 or ord(character) == 0x7F for character in target):
        return None
    try:
        parts = urlsplit(target)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    told = urlencode({"bucket": bucket, "key": object_key, "etag": f'"{etag}"'}, quote_via=quote)
    return urlunsplit(parts._replace(query=f"{parts.query}&{told}" if parts.query else told))


def choose_status(fields: Mapping[str, str]) -> int:
    """success_action_status, 204 for any that is not offered."""
    return _STATUSES.get(fields.get("success_action_status", "").strip(), 204)


def format_post_response(location: str, bucket: str, object_key: bytes, etag: str) -> bytes:
    """PostResponse, the body of a 201; AWS puts it into no namespace."""
    key = object_key.decode("utf-8", "replace")
    return (
        f"{DECLARATION}<PostResponse>{element('Location', location)}{element('Bucket', bucket)}{element('Key', key)}"
        f"<ETag>&quot;{etag}&quot;</ETag></PostResponse>"
    ).encode()


def _parse_v4(fields: Mapping[str, str], region: str) -> FormClaim:
    if fields["x-amz-algorithm"] != ALGORITHM:
        raise S3Error(
            "InvalidArgument",
            f'X-Amz-Algorithm only supports "{ALGORITHM}"',
            ArgumentName="X-Amz-Algorithm",
            ArgumentValue=fields["x-amz-algorithm"][:64],
        )
    credential = parse_credential(fields["x-amz-credential"], region, bad_credential)
    if fields["x-amz-date"][:8] != credential.date:
        raise bad_credential(
            f'Invalid credential date "{credential.date}". This date is not the same as X-Amz-Date:'
            f' "{fields["x-amz-date"][:8]}".'
        )
    return FormClaim(credential.access_key_id, fields["policy"], fields["x-amz-signature"], credential)


def _require(fields: Mapping[str, str], names: tuple[str, ...], shown: tuple[str, ...]) -> None:
    for name, spelling in zip(names, shown, strict=True):
        if not fields.get(name):
            raise _missing(spelling)


def _missing(name: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields.",
        ArgumentName=name,
        ArgumentValue="",
    )


def _header_text(name: str, text: str) -> str:
    """As a header of that text would have come: its UTF-8 as latin-1. InvalidArgument for control characters."""
    text = text.strip()
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise S3Error("InvalidArgument", "A form field must not hold control characters.", ArgumentName=name)
    return text.encode().decode("latin-1")
