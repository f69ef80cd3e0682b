"""Reading an object's sub-resources. Source: Amazon S3 API Reference, GetObjectAcl, -Retention, …"""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.documents import format_access_list
from s3gw.protocol.errors import S3Error
from s3gw.protocol.versions import find_version_id
from s3gw.respond import XML_TYPE, Headers
from storage.model import Versioning


async def get_object_setting(call: Call) -> Response:
    """One sub-resource of an existing object in its present state."""
    reading = await call.services.objects.head(call.bucket, call.object_key, find_version_id(call.query))
    version = reading.version
    if version.is_marker:
        raise S3Error("MethodNotAllowed").with_headers({"x-amz-delete-marker": "true"})
    headers: Headers = [XML_TYPE]
    if call.bucket.versioning is not Versioning.UNVERSIONED:
        headers.append((b"x-amz-version-id", version.version_id.encode("ascii")))
    if call.route.subresource == "acl":
        owners = await call.find_owner_names({version.owner_id})
        return Response(200, headers, format_access_list(version.owner_id, owners))
    raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")
