"""What makes a bucket public, by AWS's meaning of the word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from s3gw.protocol.policy import parse_policy
from s3gw.protocol.policy_status import is_acl_public, is_policy_public
from storage.model import Grant

STATEMENT: dict[str, Any] = {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "arn:aws:s3:::b/*"}


def is_public(*changes: dict[str, Any]) -> bool:
    """Whether a policy of the plain statement with these changes, one statement each, is public."""
    statements = [STATEMENT | one for one in changes]
    body = json.dumps({"Version": "2012-10-17", "Statement": statements}).encode()
    return is_policy_public(parse_policy(body, "b"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"Principal": {"AWS": "*"}}, True),
        ({"Principal": {"AWS": ["123456789012", "*"]}}, True),
        ({"Principal": {"AWS": "arn:aws:iam::123456789012:root"}}, False),
        ({"Effect": "Deny"}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/32"}}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.0/32", "0.0.0.0/0"]}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/1"}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "2000::/8"}}}, True),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}}, False),
        ({"Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/32"}}}, True),
        ({"Condition": {"IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/32"}}}, True),
        ({"Condition": {"StringEquals": {"aws:SourceIp": "10.0.0.1"}}}, True),
        ({"Condition": {"StringEquals": {"aws:SourceVpc": "vpc-1"}}}, False),
        ({"Condition": {"StringLike": {"aws:SourceVpc": "vpc-*"}}}, True),
        ({"Condition": {"StringLike": {"aws:SourceVpc": "vpc-1"}}}, False),
        ({"Condition": {"StringNotEquals": {"aws:SourceVpc": "vpc-1"}}}, True),
        ({"Condition": {"ForAllValues:StringEquals": {"aws:SourceVpc": "vpc-1"}}}, True),
        ({"Condition": {"StringEquals": {"aws:userid": "${aws:userid}"}}}, True),
        ({"Condition": {"StringEquals": {"aws:username": "bob"}}}, False),
        ({"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:s3:::other"}}}, False),
        ({"Condition": {"StringEquals": {"s3:x-amz-acl": "private"}}}, True),
        ({"Condition": {"StringEquals": {"s3:x-amz-acl": "private", "aws:SourceVpce": "v"}}}, False),
    ],
)
def test_public_policies(changes: dict[str, Any], expected: bool) -> None:
    """For everybody, and not only from fixed places."""
    assert is_public(changes) is expected


def test_one_public_statement_is_enough() -> None:
    """Wherever it stands."""
    private = {"Principal": {"AWS": "123456789012"}}
    assert is_public(private, {}) and is_public({}, private) and not is_public(private, private)


@pytest.mark.parametrize(
    ("grantee", "expected"),
    [("group:AllUsers", True), ("group:AuthenticatedUsers", True), ("group:LogDelivery", False), ("a" * 64, False)],
)
def test_public_lists(grantee: str, expected: bool) -> None:
    """Whatever is granted."""
    assert is_acl_public((Grant("b" * 64, "FULL_CONTROL"), Grant(grantee, "READ_ACP"))) is expected
