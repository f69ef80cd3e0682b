"""PURE. Lifecycle configurations as they are given back, and what they say of one object or upload in headers.

Source: Amazon S3 API Reference, GetBucketLifecycleConfiguration, PutObject (x-amz-expiration) and
CreateMultipartUpload (x-amz-abort-date).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from cluster.maintenance.lifecycle_rules import (
    LIFECYCLE_SETTING,
    Lifecycle,
    LifecycleRule,
    choose_abortion,
    choose_expiration,
    read_lifecycle,
)
from s3gw.protocol.dates import format_http_date, format_iso_date
from s3gw.protocol.tags import format_tag_elements
from s3gw.protocol.xml import document, element
from storage.model import Bucket

TIME_MS_MAX = 253_402_214_400_000
"""the last midnight that a date can say, that of 31 December 9999"""

Headers = list[tuple[bytes, bytes]]


def format_lifecycle(lifecycle: Lifecycle) -> bytes:
    """LifecycleConfiguration."""
    return document("LifecycleConfiguration", "".join(f"<Rule>{_format_rule(rule)}</Rule>" for rule in lifecycle.rules))


def _format_rule(rule: LifecycleRule) -> str:
    lines = [element("ID", rule.rule_id)]
    lines.append(_format_filter(rule) if rule.has_filter else f"{element('Prefix', rule.prefix or '')}")
    lines.append(element("Status", "Enabled" if rule.enabled else "Disabled"))
    expiration = _format_number("Days", rule.expiration_days)
    if rule.expiration_date_ms is not None:
        expiration = element("Date", format_iso_date(rule.expiration_date_ms))
    elif rule.expired_marker is not None:
        expiration = element("ExpiredObjectDeleteMarker", "true" if rule.expired_marker else "false")
    noncurrent = _format_number("NoncurrentDays", rule.noncurrent_days)
    noncurrent += _format_number("NewerNoncurrentVersions", rule.newer_noncurrent_versions)
    abort = _format_number("DaysAfterInitiation", rule.abort_upload_days)
    for name, inner in (
        ("Expiration", expiration),
        ("NoncurrentVersionExpiration", noncurrent),
        ("AbortIncompleteMultipartUpload", abort),
    ):
        if inner:
            lines.append(f"<{name}>{inner}</{name}>")
    return "".join(lines)


def _format_filter(rule: LifecycleRule) -> str:
    """One condition alone, several in an And; none at all is an empty Filter."""
    conditions = [] if rule.prefix is None else [element("Prefix", rule.prefix)]
    conditions += [format_tag_elements({name: rule.tags[name]}) for name in sorted(rule.tags)]
    for name, size in (("ObjectSizeGreaterThan", rule.size_greater_than), ("ObjectSizeLessThan", rule.size_less_than)):
        if size is not None:
            conditions.append(element(name, str(size)))
    inner = "".join(conditions)
    return f"<Filter><And>{inner}</And></Filter>" if len(conditions) > 1 else f"<Filter>{inner}</Filter>"


def _format_number(name: str, number: int) -> str:
    return element(name, str(number) if number else None)


def format_expiration(
    bucket: Bucket, object_key: bytes, size: int, tags: Mapping[str, str], last_modified_ms: int
) -> Headers:
    """x-amz-expiration of a current version; nothing in a bucket without rules, or when none ends the version.

    Always by the calendar, also where the worker was given shorter days.
    """
    stored = bucket.settings.get(LIFECYCLE_SETTING) if bucket.settings else None
    if stored is None:
        return []
    found = choose_expiration(read_lifecycle(stored), object_key, size, tags, last_modified_ms)
    if found is None:
        return []
    expiry_date, rule_id = _format_date(found[0]), quote(found[1], safe="")
    return [(b"x-amz-expiration", f'expiry-date="{expiry_date}", rule-id="{rule_id}"'.encode("ascii"))]


def format_abortion(bucket: Bucket, object_key: bytes, initiated_ms: int) -> Headers:
    """x-amz-abort-date and x-amz-abort-rule-id of an open upload, where a rule aborts it."""
    stored = bucket.settings.get(LIFECYCLE_SETTING) if bucket.settings else None
    found = None if stored is None else choose_abortion(read_lifecycle(stored), object_key, initiated_ms)
    if found is None:
        return []
    return [
        (b"x-amz-abort-date", _format_date(found[0]).encode("ascii")),
        (b"x-amz-abort-rule-id", quote(found[1], safe="").encode("ascii")),
    ]


def _format_date(at_ms: int) -> str:
    return format_http_date(min(at_ms, TIME_MS_MAX))
