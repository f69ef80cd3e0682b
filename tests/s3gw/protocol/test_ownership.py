"""Who owns what is written into a bucket, and the four locks on public access."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.acl import Acl
from s3gw.protocol.errors import S3Error
from s3gw.protocol.ownership import (
    Ownership,
    check_acl_supported,
    find_ownership,
    format_ownership_controls,
    parse_ownership_controls,
    parse_ownership_header,
    plan_owner,
)
from s3gw.protocol.public_access_block import (
    NOTHING_BLOCKED,
    PublicAccessBlock,
    find_public_access_block,
    format_public_access_block,
    parse_public_access_block,
)
from storage.model import Grant

WRITER, OWNER = "w" * 64, "o" * 64
GIVEN: Acl = (Grant(OWNER, "FULL_CONTROL"), Grant(WRITER, "FULL_CONTROL"))
PUBLIC: Acl = (Grant("group:AllUsers", "READ"), Grant(WRITER, "FULL_CONTROL"))


@pytest.mark.parametrize("ownership", Ownership)
def test_ownership_documents(ownership: Ownership) -> None:
    """What is put comes back, and is found again in the setting."""
    document = format_ownership_controls(ownership)
    assert parse_ownership_controls(document) is find_ownership(document) is ownership
    assert parse_ownership_header(ownership.value) is ownership


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<OwnershipControls/>",
        b"<OwnershipControls><Rule/></OwnershipControls>",
        b"<OwnershipControls><Rule><ObjectOwnership>Mine</ObjectOwnership></Rule></OwnershipControls>",
        b"<OwnershipControls>"
        + b"<Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule>" * 2
        + b"</OwnershipControls>",
    ],
)
def test_ownership_documents_that_are_refused(body: bytes) -> None:
    """One rule, of one of the three."""
    with pytest.raises(S3Error, match="MalformedXML"):
        parse_ownership_controls(body)
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_ownership_header("Mine")


def test_a_bucket_without_the_setting() -> None:
    """The writer owns, ACLs count, nothing is blocked."""
    assert find_ownership(None) is Ownership.OBJECT_WRITER
    assert find_public_access_block(None) is NOTHING_BLOCKED


@pytest.mark.parametrize(
    ("ownership", "acl", "expected"),
    [
        (Ownership.OBJECT_WRITER, None, (WRITER, None)),
        (Ownership.OBJECT_WRITER, GIVEN, (WRITER, GIVEN)),
        (Ownership.BUCKET_OWNER_PREFERRED, None, (WRITER, None)),
        (Ownership.BUCKET_OWNER_PREFERRED, PUBLIC, (WRITER, PUBLIC)),
        (Ownership.BUCKET_OWNER_PREFERRED, GIVEN, (OWNER, None)),
        (Ownership.BUCKET_OWNER_ENFORCED, None, (OWNER, None)),
        (Ownership.BUCKET_OWNER_ENFORCED, PUBLIC, (OWNER, None)),
    ],
)
def test_who_owns(ownership: Ownership, acl: Acl | None, expected: tuple[str, Acl | None]) -> None:
    """Given to the bucket's owner with bucket-owner-full-control, or his in any case."""
    assert plan_owner(ownership, WRITER, OWNER, acl) == expected
    assert plan_owner(ownership, OWNER, OWNER, None) == (OWNER, None)


@pytest.mark.parametrize(
    ("ownership", "acl", "canned", "refused"),
    [
        (Ownership.OBJECT_WRITER, PUBLIC, "public-read", False),
        (Ownership.BUCKET_OWNER_PREFERRED, PUBLIC, "public-read", False),
        (Ownership.BUCKET_OWNER_ENFORCED, PUBLIC, "public-read", True),
        (Ownership.BUCKET_OWNER_ENFORCED, PUBLIC, "", True),
        (Ownership.BUCKET_OWNER_ENFORCED, (), "", True),
        (Ownership.BUCKET_OWNER_ENFORCED, GIVEN, "bucket-owner-full-control", False),
        (Ownership.BUCKET_OWNER_ENFORCED, (Grant(OWNER, "FULL_CONTROL"),), "", False),
        (Ownership.BUCKET_OWNER_ENFORCED, (Grant(OWNER, "FULL_CONTROL"),), "private", True),
        (Ownership.BUCKET_OWNER_ENFORCED, (Grant(WRITER, "FULL_CONTROL"),), "", True),
    ],
)
def test_lists_where_none_count(ownership: Ownership, acl: Acl, canned: str, refused: bool) -> None:
    """Only what would say no more than what holds anyway."""
    if refused:
        with pytest.raises(S3Error, match="AccessControlListNotSupported"):
            check_acl_supported(ownership, OWNER, acl, canned)
    else:
        check_acl_supported(ownership, OWNER, acl, canned)


@given(st.builds(PublicAccessBlock, st.booleans(), st.booleans(), st.booleans(), st.booleans()))
def test_public_access_blocks(block: PublicAccessBlock) -> None:
    """What is put comes back, each switch on its own."""
    document = format_public_access_block(block)
    assert parse_public_access_block(document) == find_public_access_block(document) == block


@pytest.mark.parametrize(
    "inner",
    ["<Other>true</Other>", "<BlockPublicAcls>yes</BlockPublicAcls>", "<BlockPublicAcls>true</BlockPublicAcls>" * 2],
)
def test_public_access_blocks_that_are_refused(inner: str) -> None:
    """A typing mistake must not leave something open."""
    body = f"<PublicAccessBlockConfiguration>{inner}</PublicAccessBlockConfiguration>".encode()
    with pytest.raises(S3Error, match="MalformedXML"):
        parse_public_access_block(body)


def test_what_a_block_leaves_out_is_off() -> None:
    """As on AWS."""
    body = b"<PublicAccessBlockConfiguration><IgnorePublicAcls>TRUE</IgnorePublicAcls></PublicAccessBlockConfiguration>"
    assert parse_public_access_block(body) == PublicAccessBlock(ignore_public_acls=True)
