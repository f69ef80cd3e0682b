"""PURE. The two smallest documents of a bucket: who pays for requests, and whether transfers are accelerated.

Source: Amazon S3 API Reference, PutBucketRequestPayment and PutBucketAccelerateConfiguration. Nobody is charged here
and there is nothing to accelerate: both are kept and given back, so that tools which set them find what they set.
"""

from __future__ import annotations

from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import Element, document, element, parse_xml

PAYER_DEFAULT = "BucketOwner"
_PAYERS = (PAYER_DEFAULT, "Requester")
_STATES = ("Enabled", "Suspended")


def parse_request_payment(body: bytes) -> str:
    """RequestPaymentConfiguration → `BucketOwner` or `Requester`. MalformedXML."""
    return _only_text(parse_xml(body, "RequestPaymentConfiguration"), "Payer", _PAYERS)


def format_request_payment(payer: str) -> bytes:
    """RequestPaymentConfiguration."""
    return document("RequestPaymentConfiguration", element("Payer", payer))


def parse_acceleration(body: bytes, bucket: str) -> str:
    """AccelerateConfiguration → `Enabled` or `Suspended`. MalformedXML; InvalidRequest for a name with dots."""
    state = _only_text(parse_xml(body, "AccelerateConfiguration"), "Status", _STATES)
    if "." in bucket:
        raise S3Error(
            "InvalidRequest", "S3 Transfer Acceleration is not supported for buckets with periods (.) in their names"
        )
    return state


def format_acceleration(state: str) -> bytes:
    """AccelerateConfiguration; `` for a bucket that never had one."""
    return document("AccelerateConfiguration", element("Status", state or None))


def _only_text(root: Element, name: str, allowed: tuple[str, ...]) -> str:
    text = root.child_text(name)
    if text not in allowed or len(root.children) != 1:
        raise S3Error("MalformedXML")
    return text
