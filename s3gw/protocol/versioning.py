"""PURE. The versioning state of a bucket as a document. Source: Amazon S3 API Reference, PutBucketVersioning.

MFA delete asks for a device of the root account; there is none here, so enabling it is refused and never pretended.
"""

from __future__ import annotations

from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import document, element, parse_xml
from storage.model import Versioning

_STATES = {state.value: state for state in (Versioning.ENABLED, Versioning.SUSPENDED)}


def parse_versioning(raw: bytes) -> Versioning:
    """VersioningConfiguration → the state asked for.

    MalformedXML, IllegalVersioningConfigurationException (no Status), NotImplemented (MfaDelete enabled).
    """
    root = parse_xml(raw, "VersioningConfiguration")
    mfa_delete = (root.child_text("MfaDelete") or "Disabled").strip()
    if mfa_delete == "Enabled":
        raise S3Error("NotImplemented", "MFA delete is not implemented: this server knows no authentication devices")
    if mfa_delete != "Disabled":
        raise S3Error("MalformedXML")
    status = (root.child_text("Status") or "").strip()
    if not status:
        raise S3Error("IllegalVersioningConfigurationException", "The Versioning element must be specified")
    try:
        return _STATES[status]
    except KeyError:
        raise S3Error("MalformedXML") from None


def format_versioning(versioning: Versioning) -> bytes:
    """VersioningConfiguration; empty for a bucket that was never versioned."""
    return document("VersioningConfiguration", element("Status", versioning.value or None))
