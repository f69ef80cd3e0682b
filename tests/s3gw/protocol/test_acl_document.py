"""AccessControlPolicy documents, in and out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.acl import GRANTS_MAX, GROUP_URIS, PERMISSIONS, Grantee
from s3gw.protocol.acl_document import format_access_control_policy, parse_access_control_policy
from s3gw.protocol.errors import S3Error
from storage.model import Grant

OWNER = "a" * 64
XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
GRANT = (
    f'<Grant><Grantee {XSI} xsi:type="CanonicalUser"><ID>b</ID><DisplayName>B</DisplayName></Grantee>'
    "<Permission>READ</Permission></Grant>"
)


def policy(grants: str, owner: str = f"<Owner><ID>{OWNER}</ID></Owner>") -> bytes:
    """A document with this inside."""
    return f"<AccessControlPolicy>{owner}<AccessControlList>{grants}</AccessControlList></AccessControlPolicy>".encode()


def test_the_three_kinds_of_grantee() -> None:
    """By id, by e-mail address, by the address of a group; with a prefix of the client's choice."""
    uri = next(iter(GROUP_URIS))
    wish = parse_access_control_policy(
        policy(
            GRANT + f'<Grant><Grantee {XSI.replace("xsi", "i")} i:type="AmazonCustomerByEmail">'
            "<EmailAddress> c@d </EmailAddress></Grantee><Permission>WRITE_ACP</Permission></Grant>"
            f'<Grant><Grantee {XSI} xsi:type="Group"><URI>{uri}</URI></Grantee><Permission>FULL_CONTROL</Permission>'
            "</Grant>"
        ),
        OWNER,
    )
    assert wish.is_explicit and wish.grants == (
        (Grantee("id", "b"), "READ"),
        (Grantee("emailaddress", "c@d"), "WRITE_ACP"),
        (Grantee("uri", uri), "FULL_CONTROL"),
    )


def test_nobody_at_all() -> None:
    """An empty list is a list: it takes everything from everybody."""
    wish = parse_access_control_policy(policy(""), OWNER)
    assert wish.is_explicit and wish.grants == ()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedACLError"),
        (b"<x/>", "MalformedACLError"),
        (b"<AccessControlPolicy/>", "MalformedACLError"),
        (b"<AccessControlPolicy><Owner><ID>x</ID></Owner></AccessControlPolicy>", "MalformedACLError"),
        (policy(GRANT, ""), "MalformedACLError"),
        (policy(GRANT, "<Owner/>"), "MalformedACLError"),
        (policy(GRANT, "<Owner><ID>b</ID></Owner>"), "AccessDenied"),
        (policy(GRANT.replace("READ", "LOOK")), "MalformedACLError"),
        (policy(GRANT.replace("CanonicalUser", "Somebody")), "MalformedACLError"),
        (policy(GRANT.replace('xsi:type="CanonicalUser"', "")), "MalformedACLError"),
        (policy(GRANT.replace("<ID>b</ID>", "")), "MalformedACLError"),
        (policy(GRANT.replace("<ID>b</ID>", "<ID>b</ID><ID>c</ID>")), "MalformedACLError"),
        (policy(GRANT.replace("Grant>", "Gift>")), "MalformedACLError"),
        (policy("<Grant><Permission>READ</Permission></Grant>"), "MalformedACLError"),
        (policy(GRANT * (GRANTS_MAX + 1)), "MalformedACLError"),
        (b"<!DOCTYPE x>" + policy(GRANT), "MalformedACLError"),
    ],
)
def test_documents_that_are_refused(body: bytes, code: str) -> None:
    """With AWS's codes."""
    with pytest.raises(S3Error) as caught:
        parse_access_control_policy(body, OWNER)
    assert caught.value.code == code


@given(
    st.lists(
        st.builds(
            Grant,
            st.sampled_from(sorted(GROUP_URIS.values())) | st.text("abc<&>é", min_size=1, max_size=9),
            st.sampled_from(PERMISSIONS),
        ),
        max_size=8,
    )
)
def test_what_is_shown_is_what_can_be_put(grants: list[Grant]) -> None:
    """A client that reads a list and writes it back changes nothing."""
    body = format_access_control_policy(OWNER, tuple(grants), {OWNER: "A & B"})
    wish = parse_access_control_policy(body, OWNER)
    found = [
        Grant(GROUP_URIS[grantee.text] if grantee.kind == "uri" else grantee.text, permission)
        for grantee, permission in wish.grants
    ]
    assert found == grants and "A &amp; B" in body.decode()
