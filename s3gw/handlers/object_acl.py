"""GetObjectAcl and PutObjectAcl. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.acl_request import read_acl
from s3gw.call import Call, Response
from s3gw.protocol.acl import expand
from s3gw.protocol.acl_document import format_access_control_policy
from s3gw.protocol.authorize import find_bucket_rules
from s3gw.protocol.ownership import Ownership
from s3gw.protocol.versions import find_version_id
from s3gw.respond import XML_TYPE
from s3gw.version_answer import identify_version, refuse_marker
from storage.metadata.commands import ChangeObject
from storage.model import Version


async def get_object_acl(call: Call) -> Response:
    """Where ACLs do not count, what holds instead."""
    version = await _read_version(call)
    rules = find_bucket_rules(call.bucket.settings)
    owner_id, acl = version.owner_id, version.attributes.acl
    if rules.ownership is Ownership.BUCKET_OWNER_ENFORCED:
        owner_id, acl = call.bucket.owner_id, None
    grants = expand(acl, owner_id)
    names = await call.find_owner_names({owner_id} | {grant.grantee for grant in grants})
    return Response(
        200,
        [XML_TYPE, *identify_version(call.bucket, version.version_id)],
        format_access_control_policy(owner_id, grants, names),
    )


async def put_object_acl(call: Call) -> Response:
    """Replace it; the version, its owner and when it was modified stay."""
    version = await _read_version(call)
    acl = await read_acl(call, version.owner_id, call.bucket.owner_id)
    command = ChangeObject(call.bucket.bucket_id, call.object_key, find_version_id(call.query), acl=acl)
    await call.services.objects.change(command)
    return Response(200, identify_version(call.bucket, version.version_id))


async def _read_version(call: Call) -> Version:
    """The version that is asked for. MethodNotAllowed for a delete marker."""
    reading = await call.services.objects.head(call.bucket, call.object_key, find_version_id(call.query))
    version = reading.version
    if version.is_marker:
        raise refuse_marker(call)
    call.confirm(version)
    return version
