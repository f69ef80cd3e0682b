"""ListBuckets. Source: Amazon S3 API Reference, ListBuckets."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.documents import format_buckets
from s3gw.protocol.list_page import format_token, parse_count, parse_token
from s3gw.respond import XML_TYPE

PAGE_BUCKETS_MAX = 10_000


async def list_buckets(call: Call) -> Response:
    """The caller's own buckets, by name; paged when max-buckets asks for it."""
    query = call.query
    limit = max(1, parse_count(query, "max-buckets", PAGE_BUCKETS_MAX))
    token = query.get("continuation-token")
    after = parse_token(token).decode("utf-8", "replace") if token else ""
    region = query.get("bucket-region")
    prefix = query.get("prefix", "")
    found = await call.services.directory.buckets(call.user.canonical_id, prefix, after, limit + 1)
    page = found[:limit]
    following = format_token(page[-1].name.encode()) if len(found) > limit else None
    shown = [bucket for bucket in page if not region or bucket.region == region]
    return Response(200, [XML_TYPE], format_buckets(shown, call.user, prefix or None, following))
