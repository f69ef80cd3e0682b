"""Get-, Put- and DeleteBucketLifecycle(Configuration). Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from cluster.maintenance.lifecycle_rules import LIFECYCLE_SETTING, encode_lifecycle, read_lifecycle
from s3gw.bucket_setting import read_setting, store_setting
from s3gw.call import Call, Response
from s3gw.protocol.lifecycle import parse_lifecycle
from s3gw.protocol.lifecycle_answers import format_lifecycle
from s3gw.respond import XML_TYPE

_MINIMUM_SIZE = "x-amz-transition-default-minimum-object-size"


async def get_bucket_lifecycle(call: Call) -> Response:
    """The rules, each with an id."""
    lifecycle = read_lifecycle(read_setting(call, LIFECYCLE_SETTING, "NoSuchLifecycleConfiguration"))
    mode = (_MINIMUM_SIZE.encode("ascii"), lifecycle.minimum_size_mode.encode("ascii"))
    return Response(200, [XML_TYPE, mode], format_lifecycle(lifecycle))


async def put_bucket_lifecycle(call: Call) -> Response:
    """Replace all rules; the worker of the master follows them from its next round on."""
    lifecycle = parse_lifecycle(await call.read_document(), call.headers.get(_MINIMUM_SIZE, ""))
    await store_setting(call, LIFECYCLE_SETTING, encode_lifecycle(lifecycle))
    return Response(200, [(_MINIMUM_SIZE.encode("ascii"), lifecycle.minimum_size_mode.encode("ascii"))])


async def delete_bucket_lifecycle(call: Call) -> Response:
    """204, also where there are no rules."""
    await store_setting(call, LIFECYCLE_SETTING, None)
    return Response(204)
