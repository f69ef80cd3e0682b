"""Small documents of a bucket that are kept as they are put: tags, CORS, default encryption, who pays, acceleration.

Source: Amazon S3 API Reference, the actions Get-, Put- and DeleteBucket… of these names. What is stored is the document
in the form that a GET gives back, so that reading one costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from s3gw.bucket_setting import read_setting, store_setting
from s3gw.call import Call, Response
from s3gw.protocol.bucket_encryption import format_bucket_encryption, parse_bucket_encryption
from s3gw.protocol.cors import format_cors, parse_cors
from s3gw.protocol.payment import (
    PAYER_DEFAULT,
    format_acceleration,
    format_request_payment,
    parse_acceleration,
    parse_request_payment,
)
from s3gw.protocol.tags import format_tags, parse_bucket_tagging
from s3gw.respond import XML_TYPE


class _Kind(NamedTuple):
    """One sub-resource."""

    plan: Callable[[bytes, str], bytes | None]
    """(body, bucket name) → what to store; None: that is the state of a bucket without the document"""
    put_status: int = 200
    absent_code: str = ""
    """what a GET is refused with where nothing is stored"""
    absent: bytes = b""
    """what a GET gives where nothing is stored"""


def _plan_tagging(body: bytes, _: str) -> bytes | None:
    tags = parse_bucket_tagging(body)
    return format_tags(tags) if tags else None


def _plan_cors(body: bytes, _: str) -> bytes:
    return format_cors(parse_cors(body))


def _plan_encryption(body: bytes, _: str) -> bytes:
    return format_bucket_encryption(parse_bucket_encryption(body))


def _plan_request_payment(body: bytes, _: str) -> bytes | None:
    payer = parse_request_payment(body)
    return None if payer == PAYER_DEFAULT else format_request_payment(payer)


def _plan_acceleration(body: bytes, bucket: str) -> bytes:
    return format_acceleration(parse_acceleration(body, bucket))


_KINDS = {
    "tagging": _Kind(_plan_tagging, 204, "NoSuchTagSet"),
    "cors": _Kind(_plan_cors, 200, "NoSuchCORSConfiguration"),
    "encryption": _Kind(_plan_encryption, absent_code="ServerSideEncryptionConfigurationNotFoundError"),
    "requestPayment": _Kind(_plan_request_payment, absent=format_request_payment(PAYER_DEFAULT)),
    "accelerate": _Kind(_plan_acceleration, absent=format_acceleration("")),
}
"""sub-resource → its kind; it is also the name of the bucket setting"""


async def get_bucket_document(call: Call) -> Response:
    """As it was put, or as AWS answers for a bucket without one."""
    name = call.route.subresource
    kind = _KINDS[name]
    if kind.absent_code:
        return Response(200, [XML_TYPE], read_setting(call, name, kind.absent_code))
    return Response(200, [XML_TYPE], call.bucket.settings.get(name, kind.absent))


async def put_bucket_document(call: Call) -> Response:
    """Replace the document."""
    kind = _KINDS[call.route.subresource]
    document = kind.plan(await call.read_document(), call.bucket.name)
    await store_setting(call, call.route.subresource, document)
    return Response(kind.put_status)


async def delete_bucket_document(call: Call) -> Response:
    """204, also where there is none."""
    await store_setting(call, call.route.subresource, None)
    return Response(204)


async def delete_nothing(_: Call) -> Response:
    """A sub-resource that cannot be configured here: there is nothing to delete, as on a bucket that never had one."""
    return Response(204)
