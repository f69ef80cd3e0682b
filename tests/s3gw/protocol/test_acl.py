"""Access control lists: canned, in headers, and what they give to whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.acl import (
    GRANTS_MAX,
    GROUP_URIS,
    NO_WISH,
    PERMISSIONS,
    Acl,
    Grantee,
    Wish,
    decode_acl,
    encode_acl,
    expand,
    find_group,
    grants_permission,
    parse_wish,
    plan_canned,
    simplify,
)
from s3gw.protocol.errors import S3Error
from s3gw.protocol.principals import ANONYMOUS
from storage.model import Grant, User
from tests.s3gw.gateway import ALICE, BOB

OWNER, OTHER = ALICE.canonical_id, BOB.canonical_id
ALL, SIGNED, LOGS = "group:AllUsers", "group:AuthenticatedUsers", "group:LogDelivery"
FULL = Grant(OWNER, "FULL_CONTROL")


@pytest.mark.parametrize(
    ("canned", "of_a_bucket", "of_an_object"),
    [
        ("private", None, None),
        ("public-read", (Grant(ALL, "READ"), FULL), (Grant(ALL, "READ"), FULL)),
        ("public-read-write", (Grant(ALL, "READ"), Grant(ALL, "WRITE"), FULL), None),
        ("authenticated-read", (Grant(SIGNED, "READ"), FULL), (Grant(SIGNED, "READ"), FULL)),
        ("aws-exec-read", None, None),
        ("bucket-owner-read", None, (Grant(OTHER, "READ"), FULL)),
        ("bucket-owner-full-control", None, (Grant(OTHER, "FULL_CONTROL"), FULL)),
        ("log-delivery-write", (Grant(LOGS, "WRITE"), Grant(LOGS, "READ_ACP"), FULL), None),
    ],
)
def test_canned_lists(canned: str, of_a_bucket: Acl | None, of_an_object: Acl | None) -> None:
    """Of Alice's bucket, and of her object in Bob's; her own bucket's owner she is herself."""
    assert parse_wish({"x-amz-acl": canned}) == Wish(canned)
    assert plan_canned(canned, OWNER, None) == of_a_bucket
    if of_an_object or canned in ("private", "aws-exec-read"):
        assert plan_canned(canned, OWNER, OTHER) == of_an_object
    if canned.startswith("bucket-owner"):
        assert plan_canned(canned, OWNER, OWNER) is None


@pytest.mark.parametrize(
    ("headers", "grants"),
    [
        ({}, ()),
        ({"x-amz-grant-read": ""}, ()),
        ({"x-amz-grant-read": "id=abc"}, ((Grantee("id", "abc"), "READ"),)),
        ({"x-amz-grant-read": 'id="abc"'}, ((Grantee("id", "abc"), "READ"),)),
        ({"x-amz-grant-read": ' ID = " a,b " '}, ((Grantee("id", "a,b"), "READ"),)),
        (
            {"x-amz-grant-write": 'id=a, emailAddress="b@c",uri=http://d'},
            (
                (Grantee("id", "a"), "WRITE"),
                (Grantee("emailaddress", "b@c"), "WRITE"),
                (Grantee("uri", "http://d"), "WRITE"),
            ),
        ),
        (
            {"x-amz-grant-full-control": "id=a", "x-amz-grant-read-acp": "id=b", "x-amz-grant-write-acp": "id=c"},
            (
                (Grantee("id", "b"), "READ_ACP"),
                (Grantee("id", "c"), "WRITE_ACP"),
                (Grantee("id", "a"), "FULL_CONTROL"),
            ),
        ),
    ],
)
def test_grants_in_headers(headers: dict[str, str], grants: tuple[tuple[Grantee, str], ...]) -> None:
    """With quotes or without, several in one."""
    assert parse_wish(headers) == (Wish("", grants, is_explicit=True) if grants else NO_WISH)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-acl": "public"}, "InvalidArgument"),
        ({"x-amz-acl": "private", "x-amz-grant-read": "id=a"}, "InvalidRequest"),
        ({"x-amz-grant-read": "abc"}, "InvalidArgument"),
        ({"x-amz-grant-read": "id="}, "InvalidArgument"),
        ({"x-amz-grant-read": 'id=""'}, "InvalidArgument"),
        ({"x-amz-grant-read": "name=bob"}, "InvalidArgument"),
        ({"x-amz-grant-read": "id=a,"}, "InvalidArgument"),
        ({"x-amz-grant-read": 'id="a" id="b"'}, "InvalidArgument"),
        ({"x-amz-grant-read": 'id="a'}, "InvalidArgument"),
        ({"x-amz-grant-read": ",".join(["id=a"] * 60), "x-amz-grant-write": ",".join(["id=a"] * 60)}, "InvalidRequest"),
        ({"x-amz-grant-read": ",".join(["id=a"] * (GRANTS_MAX + 10))}, "InvalidArgument"),
    ],
)
def test_wishes_that_are_refused(headers: dict[str, str], code: str) -> None:
    """With AWS's codes."""
    with pytest.raises(S3Error) as caught:
        parse_wish(headers)
    assert caught.value.code == code


@given(st.text(st.sampled_from('id=", emailAddressuri\t;'), max_size=60))
def test_any_header_is_grants_or_refused(text: str) -> None:
    """Never another exception, and never a grantee without a name."""
    try:
        wish = parse_wish({"x-amz-grant-read": text})
    except S3Error as error:
        assert error.code in ("InvalidArgument", "InvalidRequest")
    else:
        assert all(grantee.text.strip() for grantee, _ in wish.grants)


def test_groups() -> None:
    """By AWS's addresses."""
    assert {find_group(uri) for uri in GROUP_URIS} == {ALL, SIGNED, LOGS}
    with pytest.raises(S3Error, match="InvalidArgument"):
        find_group("http://acs.amazonaws.com/groups/global/Nobody")


@pytest.mark.parametrize(
    ("grantee", "caller", "ignore_public", "expected"),
    [
        (OTHER, BOB, False, True),
        (OTHER, BOB, True, True),
        (OTHER, ALICE, False, False),
        (ALL, BOB, False, True),
        (ALL, ANONYMOUS, False, True),
        (ALL, ANONYMOUS, True, False),
        (SIGNED, BOB, False, True),
        (SIGNED, BOB, True, False),
        (SIGNED, ANONYMOUS, False, False),
        (LOGS, BOB, False, False),
        (ANONYMOUS.canonical_id, ANONYMOUS, False, False),
    ],
)
def test_who_is_granted(grantee: str, caller: User, ignore_public: bool, expected: bool) -> None:
    """A user, everybody, everybody who signs; groups count for nothing where public lists are ignored."""
    assert grants_permission((Grant(grantee, "READ"),), caller, "READ", ignore_public) is expected


@given(st.sampled_from(PERMISSIONS), st.sampled_from(PERMISSIONS[:-1]))
def test_what_is_granted(granted: str, wanted: str) -> None:
    """The permission itself, or full control."""
    acl = (Grant(OTHER, granted),)
    assert grants_permission(acl, BOB, wanted, False) is (granted in (wanted, "FULL_CONTROL"))


GRANTS = st.builds(Grant, st.sampled_from([OWNER, OTHER, ALL, SIGNED]), st.sampled_from(PERMISSIONS))


@given(st.lists(GRANTS, max_size=6).map(tuple))
def test_lists_are_kept_and_shown(acl: Acl) -> None:
    """The same grants come back; groups are shown first; the plain list is none."""
    assert decode_acl(encode_acl(acl)) == acl
    shown = expand(simplify(acl, OWNER), OWNER)
    assert sorted(shown, key=repr) == sorted(acl, key=repr)
    assert [grant.grantee.startswith("group:") for grant in shown] == sorted(
        (grant.grantee.startswith("group:") for grant in shown), reverse=True
    )


def test_the_plain_list_is_none() -> None:
    """And none is shown as the plain list; an empty one is not plain: not even its owner is in it."""
    assert simplify((FULL,), OWNER) is None and expand(None, OWNER) == (FULL,)
    assert simplify((), OWNER) == () and simplify((FULL,), OTHER) == (FULL,)
