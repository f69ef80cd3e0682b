"""PURE. AccessControlPolicy, in and out. Source: Amazon S3 API Reference, PutBucketAcl and GetBucketAcl."""

from __future__ import annotations

from collections.abc import Mapping

from s3gw.protocol.acl import GRANTS_MAX, GROUP_URIS, PERMISSIONS, Acl, Grantee, Wish
from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import Element, document, escape, parse_xml

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_URIS = {group: uri for uri, group in GROUP_URIS.items()}
_GRANTEES = {
    "CanonicalUser": ("id", "ID"),
    "AmazonCustomerByEmail": ("emailaddress", "EmailAddress"),
    "Group": ("uri", "URI"),
}
"""xsi:type → how the grantee is named, and by which element"""


def parse_access_control_policy(body: bytes, owner_id: str) -> Wish:
    """The grants of a document. MalformedACLError; AccessDenied where it names another owner than there is."""
    try:
        root = parse_xml(body, "AccessControlPolicy")
        owner, listed = root.child("Owner"), root.child("AccessControlList")
        if owner is None or listed is None:
            raise S3Error("MalformedACLError")
        grants = tuple(_parse_grant(element) for element in listed.children)
        named = owner.child_text("ID")
    except S3Error as error:
        if error.code != "MalformedXML":
            raise
        raise S3Error("MalformedACLError") from None
    if len(grants) > GRANTS_MAX or not named:
        raise S3Error("MalformedACLError")
    if named.strip() != owner_id:
        raise S3Error("AccessDenied")
    return Wish("", grants, is_explicit=True)


def _parse_grant(element: Element) -> tuple[Grantee, str]:
    grantee, permission = element.child("Grantee"), (element.child_text("Permission") or "").strip()
    if element.name != "Grant" or grantee is None or permission not in PERMISSIONS:
        raise S3Error("MalformedACLError")
    attributes = grantee.attributes or {}
    kind = next((text for name, text in attributes.items() if name.rpartition(":")[2] == "type"), "")
    if kind not in _GRANTEES:
        raise S3Error("MalformedACLError")
    named_by, child = _GRANTEES[kind]
    text = (grantee.child_text(child) or "").strip()
    if not text:
        raise S3Error("MalformedACLError")
    return Grantee(named_by, text), permission


def format_access_control_policy(owner_id: str, acl: Acl, names: Mapping[str, str]) -> bytes:
    """acl: expanded. names: display names by canonical id."""
    grants = "".join(
        f"<Grant>{_format_grantee(grant.grantee, names)}<Permission>{grant.permission}</Permission></Grant>"
        for grant in acl
    )
    return document(
        "AccessControlPolicy",
        f"<Owner>{_format_user(owner_id, names)}</Owner><AccessControlList>{grants}</AccessControlList>",
    )


def _format_grantee(grantee: str, names: Mapping[str, str]) -> str:
    uri = _URIS.get(grantee)
    kind, inner = ("CanonicalUser", _format_user(grantee, names)) if uri is None else ("Group", f"<URI>{uri}</URI>")
    return f'<Grantee xmlns:xsi="{_XSI}" xsi:type="{kind}">{inner}</Grantee>'


def _format_user(canonical_id: str, names: Mapping[str, str]) -> str:
    name = names.get(canonical_id, canonical_id)
    return f"<ID>{escape(canonical_id)}</ID><DisplayName>{escape(name)}</DisplayName>"
