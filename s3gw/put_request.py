"""What a PUT of an object says beside its body; a browser's form stands for one and says it in the same words."""

from __future__ import annotations

from cluster.objectstore import PutRequest, PutResult
from s3gw.call import Call
from s3gw.protocol.attributes import parse_attributes
from s3gw.protocol.conditions import parse_write_conditions
from s3gw.protocol.encryption import CONTEXT, SSE_S3_LINES, choose_encryption, format_encryption
from s3gw.protocol.lifecycle_answers import format_expiration
from s3gw.respond import Headers, format_written
from s3gw.version_lock import lock_attributes, require_proof


async def plan_put(call: Call, proves_itself: bool) -> PutRequest:
    """Everything that call.headers asks for. proves_itself: the body comes with an MD5 or a checksum."""
    encryption = choose_encryption(call.headers, call.bucket)
    attributes = lock_attributes(call, encryption.apply(parse_attributes(call.headers)))
    require_proof(attributes, proves_itself)
    owner_id, attributes = call.choose_owner(call.user.canonical_id, await call.with_acl(attributes))
    return PutRequest(owner_id, attributes, parse_write_conditions(call.headers), encryption.seal)


def format_put(call: Call, request: PutRequest, result: PutResult) -> Headers:
    """The headers of the answer but for the ETag."""
    encryption = SSE_S3_LINES
    if request.attributes.sse:
        encryption = format_encryption(request.attributes.sse, request.seal, call.headers.get(CONTEXT, ""))
    lines = format_written(result.committed.version_id, result.checksum, encryption=encryption)
    if call.bucket.settings:
        tags, written_ms = request.attributes.tags, result.committed.last_modified_ms
        lines += format_expiration(call.bucket, call.object_key, result.size, tags, written_ms)
    return lines
