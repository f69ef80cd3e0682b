"""ListMultipartUploads and ListParts. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.documents import format_parts, format_uploads
from s3gw.protocol.encryption import parse_customer_key
from s3gw.protocol.lifecycle_answers import format_abortion
from s3gw.protocol.list_page import parse_list_parts, parse_list_uploads
from s3gw.respond import XML_TYPE
from storage.metadata.interface import PartPage, UploadPage
from storage.model import Upload

_NO_UPLOADS = UploadPage((), (), None)


async def list_multipart_uploads(call: Call) -> Response:
    """Open uploads by (key, upload id)."""
    query = parse_list_uploads(call.query)
    page = _NO_UPLOADS
    if query.max_uploads:
        page = await call.services.objects.list_uploads(
            call.bucket,
            prefix=query.prefix,
            delimiter=query.delimiter,
            after=(query.key_marker, query.upload_id_marker),
            limit=query.max_uploads,
        )
    names = await call.find_owner_names({one for upload in page.uploads for one in _find_both(call, upload)})
    return Response(200, [XML_TYPE], format_uploads(call.bucket.name, query, page, names, call.find_upload_owner))


async def list_parts(call: Call) -> Response:
    """The parts of an upload so far, by number."""
    query = parse_list_parts(call.query)
    objects, upload_id = call.services.objects, call.query["uploadId"]
    if query.max_parts:
        customer_key = parse_customer_key(call.headers)
        page = await objects.list_parts(
            call.bucket, call.object_key, upload_id, query.after, query.max_parts, customer_key
        )
    else:
        page = PartPage(await objects.read_upload(call.bucket, call.object_key, upload_id), (), None)
    names = await call.find_owner_names(set(_find_both(call, page.upload)))
    headers = [XML_TYPE, *format_abortion(call.bucket, call.object_key, page.upload.initiated_ms)]
    return Response(200, headers, format_parts(call.bucket.name, query, page, names, call.find_upload_owner))


def _find_both(call: Call, upload: Upload) -> tuple[str, str]:
    """Who began the upload, and whom the object will belong to."""
    return upload.owner_id, call.find_upload_owner(upload)
