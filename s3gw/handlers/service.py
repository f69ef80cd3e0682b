"""ListBuckets. Source: Amazon S3 API Reference, ListBuckets."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.documents import format_buckets
from s3gw.protocol.errors import S3Error
from s3gw.protocol.list_page import format_token, parse_token
from s3gw.respond import XML_TYPE

PAGE_BUCKETS_MAX = 10_000


async def list_buckets(call: Call) -> Response:
    """The caller's own buckets, by name; paged when max-buckets asks for it."""
    query = call.query
    limit = _parse_limit(query.get("max-buckets", ""))
    token = query.get("continuation-token")
    after = parse_token(token).decode("utf-8", "replace") if token else ""
    region = query.get("bucket-region")
    prefix = query.get("prefix", "")
    found = await call.services.directory.buckets(call.user.canonical_id, prefix, after, limit + 1)
    page = found[:limit]
    following = format_token(page[-1].name.encode()) if len(found) > limit else None
    shown = [bucket for bucket in page if not region or bucket.region == region]
    return Response(200, [XML_TYPE], format_buckets(shown, call.user, prefix or None, following))


def _parse_limit(text: str) -> int:
    """max-buckets: 1 to 10,000, and unlike the other listings' limits refused outside. InvalidArgument."""
    if not text:
        return PAGE_BUCKETS_MAX
    if text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= PAGE_BUCKETS_MAX:
        return int(text)
    raise S3Error(
        "InvalidArgument",
        f"Argument max-buckets must be an integer between 1 and {PAGE_BUCKETS_MAX}",
        ArgumentName="max-buckets",
        ArgumentValue=text[:64],
    )
