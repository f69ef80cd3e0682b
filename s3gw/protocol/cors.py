"""PURE. Cross-origin rules of a bucket: from and to a CORSConfiguration, and what they make of a browser's request.

Source: Amazon S3 User Guide, "Using cross-origin resource sharing (CORS)" and "CORS configuration"; API Reference,
PutBucketCors. The first rule wins whose origin, method and headers all fit; patterns hold at most one `*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import Element, document, element, parse_xml
from storage.model import Bucket

CORS_SETTING = "cors"
"""the name of the bucket setting"""
DOCUMENT_BYTES_MAX = 64 * 1024
RULES_MAX = 100
RULE_ID_CHARACTERS_MAX = 255
REQUESTED_HEADERS_MAX = 128
"""names in Access-Control-Request-Headers; a browser asks for a few, and more are not granted"""
MAX_AGE_S_MAX = (1 << 31) - 1

METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "HEAD"})
VARY = (b"vary", b"Origin, Access-Control-Request-Headers, Access-Control-Request-Method")

_PREFLIGHT = "OPTIONS"
_DOCUMENTS_REMEMBERED = 256
_ELEMENTS = frozenset({"ID", "AllowedOrigin", "AllowedMethod", "AllowedHeader", "ExposeHeader", "MaxAgeSeconds"})

Headers = list[tuple[bytes, bytes]]


class CorsRule(NamedTuple):
    """One rule. allowed_headers are matched without regard to case."""

    allowed_origins: tuple[str, ...]
    allowed_methods: tuple[str, ...]
    allowed_headers: tuple[str, ...] = ()
    exposed_headers: tuple[str, ...] = ()
    max_age_s: int | None = None
    rule_id: str | None = None


class Grant(NamedTuple):
    """A rule that lets a request pass. origin: what Access-Control-Allow-Origin says, `*` or the request's own."""

    rule: CorsRule
    origin: str


# ------------------------------------------------------------------ documents


def parse_cors(body: bytes) -> tuple[CorsRule, ...]:
    """A CORSConfiguration. MalformedXML, InvalidRequest."""
    if len(body) > DOCUMENT_BYTES_MAX:
        raise S3Error("InvalidRequest", f"The CORS configuration is larger than {DOCUMENT_BYTES_MAX} bytes")
    return _read_rules(body)


@lru_cache(maxsize=_DOCUMENTS_REMEMBERED)
def read_cors(stored: bytes) -> tuple[CorsRule, ...]:
    """The rules of a bucket's setting, parsed once for each document. It may be longer than what was sent."""
    return _read_rules(stored)


def _read_rules(body: bytes) -> tuple[CorsRule, ...]:
    root = parse_xml(body, "CORSConfiguration")
    if not root.children or any(child.name != "CORSRule" for child in root.children):
        raise S3Error("MalformedXML")
    if len(root.children) > RULES_MAX:
        raise S3Error(
            "InvalidRequest", f"The number of CORS rules should not exceed allowed limit of {RULES_MAX} rules."
        )
    return tuple(_read_rule(child) for child in root.children)


def format_cors(rules: Sequence[CorsRule]) -> bytes:
    """CORSConfiguration: what is stored and given back."""
    return document("CORSConfiguration", "".join(f"<CORSRule>{_format_rule(rule)}</CORSRule>" for rule in rules))


def _format_rule(rule: CorsRule) -> str:
    lines = [element("ID", rule.rule_id)]
    lines += [element("AllowedHeader", name) for name in rule.allowed_headers]
    lines += [element("AllowedMethod", method) for method in rule.allowed_methods]
    lines += [element("AllowedOrigin", origin) for origin in rule.allowed_origins]
    lines += [element("ExposeHeader", name) for name in rule.exposed_headers]
    lines.append(element("MaxAgeSeconds", None if rule.max_age_s is None else str(rule.max_age_s)))
    return "".join(lines)


def _read_rule(rule: Element) -> CorsRule:
    if any(child.name not in _ELEMENTS for child in rule.children):
        raise S3Error("MalformedXML")
    texts = {name: tuple(child.text.strip() for child in rule.all(name)) for name in _ELEMENTS}
    origins, methods = texts["AllowedOrigin"], texts["AllowedMethod"]
    if not origins or not methods or not all(origins):
        raise S3Error("MalformedXML")
    for method in methods:
        if method not in METHODS:
            raise S3Error(
                "InvalidRequest",
                f"Found unsupported HTTP method in CORS config. Unsupported method is {method}",
            )
    for name in ("AllowedOrigin", "AllowedHeader"):
        for text in texts[name]:
            if text.count("*") > 1:
                raise S3Error("InvalidRequest", f'{name} "{text}" can not have more than one wildcard.')
    for text in texts["ExposeHeader"]:
        if "*" in text:
            raise S3Error(
                "InvalidRequest",
                f'ExposeHeader "{text}" contains wildcard. We currently do not support wildcard for ExposeHeader.',
            )
    for text in (*origins, *texts["AllowedHeader"], *texts["ExposeHeader"]):
        # They are said again in response headers.
        if not text.isascii() or not text.isprintable():
            raise S3Error("InvalidRequest", "CORS rules are written in printable ASCII")
    rule_id = rule.child_text("ID")
    if rule_id is not None and len(rule_id) > RULE_ID_CHARACTERS_MAX:
        raise S3Error("InvalidRequest", f"The ID of a CORS rule has at most {RULE_ID_CHARACTERS_MAX} characters")
    max_age_s = _read_max_age(rule.child_text("MaxAgeSeconds"))
    return CorsRule(origins, methods, texts["AllowedHeader"], texts["ExposeHeader"], max_age_s, rule_id)


def _read_max_age(text: str | None) -> int | None:
    if text is None:
        return None
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > MAX_AGE_S_MAX:
        raise S3Error("MalformedXML")
    return int(text)


# ------------------------------------------------------------------ requests


def evaluate_cors(
    rules: Sequence[CorsRule], origin: str, method: str, requested_headers: Sequence[str] = ()
) -> Grant | None:
    """The first rule that lets the origin use the method and send these headers; None when there is none."""
    for rule in rules:
        if method not in rule.allowed_methods:
            continue
        pattern = next((it for it in rule.allowed_origins if _fits(it, origin)), None)
        if pattern is None:
            continue
        allowed = [it.lower() for it in rule.allowed_headers] if requested_headers else []
        if all(any(_fits(it, name) for it in allowed) for name in requested_headers):
            return Grant(rule, "*" if pattern == "*" else origin)
    return None


def parse_requested_headers(header: str) -> tuple[str, ...] | None:
    """Access-Control-Request-Headers → lower-case names; None for more than are ever granted."""
    names = header.lower().split(",", REQUESTED_HEADERS_MAX)
    if len(names) > REQUESTED_HEADERS_MAX:
        return None
    return tuple(name for part in names if (name := part.strip()))


def format_grant(grant: Grant, requested_headers: Sequence[str] = ()) -> Headers:
    """Access-Control-* of an answer, and Vary. requested_headers: of a preflight, which are all granted."""
    rule = grant.rule
    lines: Headers = [(b"access-control-allow-origin", grant.origin.encode("latin-1", "replace"))]
    lines.append((b"access-control-allow-methods", ", ".join(rule.allowed_methods).encode("ascii")))
    if requested_headers:
        lines.append((b"access-control-allow-headers", ", ".join(requested_headers).encode("latin-1", "replace")))
    if rule.exposed_headers:
        lines.append((b"access-control-expose-headers", ", ".join(rule.exposed_headers).encode("ascii")))
    if rule.max_age_s is not None:
        lines.append((b"access-control-max-age", b"%d" % rule.max_age_s))
    if grant.origin != "*":
        lines.append((b"access-control-allow-credentials", b"true"))
    lines.append(VARY)
    return lines


def plan_cross_origin(bucket: Bucket, method: str, headers: Mapping[str, str]) -> Headers:
    """What any answer to a request with an Origin says, an error as well; a preflight is answered by its handler.

    A request that carries Access-Control-Request-Method is judged by that method, as AWS does.
    """
    stored, origin = bucket.settings.get(CORS_SETTING), headers.get("origin", "")
    if stored is None or not origin or method == _PREFLIGHT:
        return []
    grant = evaluate_cors(read_cors(stored), origin, headers.get("access-control-request-method") or method)
    return [VARY] if grant is None else format_grant(grant)


def _fits(pattern: str, text: str) -> bool:
    """Whether a pattern with at most one `*` describes the text. Linear."""
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(before) + len(after) and text.startswith(before) and text.endswith(after)
