"""ListObjects and ListObjectsV2. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.documents import format_list_v1, format_list_v2
from s3gw.protocol.list_page import ListQuery, parse_list_v1, parse_list_v2
from s3gw.respond import XML_TYPE
from storage.metadata.interface import HeadPage

_EMPTY = HeadPage((), (), None)


async def list_objects(call: Call) -> Response:
    """V1: goes on by marker, names the owners."""
    query = parse_list_v1(call.query)
    page = await _fetch_page(call, query)
    owners = await call.find_owner_names({entry.owner_id for entry in page.entries})
    return Response(200, [XML_TYPE], format_list_v1(call.bucket.name, query, page, owners))


async def list_objects_v2(call: Call) -> Response:
    """V2: goes on by token, names the owners when asked."""
    query = parse_list_v2(call.query)
    page = await _fetch_page(call, query)
    owner_ids = {entry.owner_id for entry in page.entries} if query.fetch_owner else set()
    owners = await call.find_owner_names(owner_ids)
    return Response(200, [XML_TYPE], format_list_v2(call.bucket.name, query, page, owners))


async def _fetch_page(call: Call, query: ListQuery) -> HeadPage:
    if query.max_keys == 0:
        return _EMPTY
    return await call.services.objects.list(
        call.bucket, prefix=query.prefix, after=query.after, delimiter=query.delimiter, limit=query.max_keys
    )
