"""The permissions of S3, and which of them a request needs."""

from __future__ import annotations

import pytest

from s3gw.protocol.operations import Operation
from s3gw.protocol.permissions import (
    BUCKET_ACL,
    OBJECT_ACL,
    OBJECT_PERMISSIONS,
    OWNERS_ALWAYS,
    PERMISSIONS,
    TAG_CONDITIONED,
    VERSIONED,
    choose_permission,
    is_known,
    names_grants,
    plan_permissions,
)
from s3gw.protocol.subresources import BUCKET_SUBRESOURCES, OBJECT_SUBRESOURCES


def test_a_policy_can_name_what_every_route_asks_for() -> None:
    """Otherwise nobody could be allowed it."""
    asked = {
        rule.permission
        for table in (BUCKET_SUBRESOURCES, OBJECT_SUBRESOURCES)
        for methods in table.values()
        for rule in methods.values()
        if rule.operation is not Operation.NOT_IMPLEMENTED
    }
    assert asked <= PERMISSIONS


def test_the_tables_speak_of_permissions_that_exist() -> None:
    """And those of objects of objects."""
    assert set(VERSIONED) | set(VERSIONED.values()) <= OBJECT_PERMISSIONS
    assert set(BUCKET_ACL) | OWNERS_ALWAYS <= PERMISSIONS
    assert set(OBJECT_ACL) | TAG_CONDITIONED <= OBJECT_PERMISSIONS
    assert all(is_known(name.upper()) for name in PERMISSIONS) and not is_known("s3:GetObjects")


@pytest.mark.parametrize(
    ("permission", "version_id", "expected"),
    [
        ("s3:GetObject", None, "s3:GetObject"),
        ("s3:GetObject", "null", "s3:GetObjectVersion"),
        ("s3:DeleteObject", "v", "s3:DeleteObjectVersion"),
        ("s3:PutObjectAcl", "v", "s3:PutObjectVersionAcl"),
        ("s3:GetObjectTagging", "v", "s3:GetObjectVersionTagging"),
        ("s3:DeleteObjectTagging", "v", "s3:DeleteObjectVersionTagging"),
        ("s3:PutObjectRetention", "v", "s3:PutObjectRetention"),
        ("s3:ListBucket", "v", "s3:ListBucket"),
    ],
)
def test_a_named_version_needs_a_permission_of_its_own(permission: str, version_id: str | None, expected: str) -> None:
    """Where there is one."""
    assert choose_permission(permission, version_id) == expected


@pytest.mark.parametrize(
    ("permission", "headers", "expected"),
    [
        ("s3:PutObject", {}, ()),
        ("s3:PutObject", {"x-amz-tagging": ""}, ()),
        ("s3:PutObject", {"x-amz-tagging": "a=b"}, ("s3:PutObjectTagging",)),
        (
            "s3:PutObject",
            {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": "2030-01-01T00:00:00Z"},
            ("s3:PutObjectRetention",),
        ),
        ("s3:PutObject", {"x-amz-object-lock-legal-hold": "ON"}, ("s3:PutObjectLegalHold",)),
        ("s3:GetObject", {"x-amz-tagging": "a=b"}, ()),
        ("s3:GetObjectAttributes", {}, ("s3:GetObject",)),
        ("s3:GetObjectVersionAttributes", {}, ("s3:GetObjectVersion",)),
    ],
)
def test_what_else_a_request_needs(permission: str, headers: dict[str, str], expected: tuple[str, ...]) -> None:
    """By the headers that do more than write."""
    assert plan_permissions(permission, headers) == expected


def test_which_headers_name_grants() -> None:
    """An empty one does not."""
    assert names_grants({"x-amz-acl": "private"}) and names_grants({"x-amz-grant-write-acp": "id=x"})
    assert not names_grants({"x-amz-acl": "", "x-amz-tagging": "a=b"})
