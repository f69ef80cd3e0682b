"""What a request is, by the condition keys of policies."""

from __future__ import annotations

from typing import Any

import pytest

from s3gw.protocol.claims import Claim, PayloadMode
from s3gw.protocol.policy_context import Facts
from s3gw.protocol.principals import ANONYMOUS
from tests.s3gw.gateway import ALICE, BOB

NOW_S = 1_800_000_000.0
CLAIM = Claim("bob", "20270115", "us-east-1", "", NOW_S - 2.5, (), "", "", PayloadMode.UNSIGNED)
FACTS = Facts(
    BOB,
    CLAIM,
    {
        "referer": "http://x/",
        "user-agent": "test",
        "if-match": '"e"',
        "x-amz-acl": "private",
        "x-amz-grant-read": "id=x",
        "x-amz-copy-source": "/b/a%20key?versionId=v",
        "x-amz-server-side-encryption": "AES256",
        "x-amz-storage-class": "",
        "x-amz-tagging": "a=1&b=&a=2",
        "x-amz-object-lock-mode": "GOVERNANCE",
        "x-amz-object-lock-retain-until-date": "2027-01-25T08:00:00Z",
    },
    {"prefix": "", "max-keys": "10", "versionId": "v"},
    "https",
    "10.0.0.1",
    NOW_S,
    "us-east-1",
    ALICE.canonical_id,
    object_tags={"Team": "ice"},
)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("aws:CurrentTime", ["2027-01-15T08:00:00Z"]),
        ("aws:EpochTime", ["1800000000"]),
        ("aws:PrincipalAccount", [BOB.canonical_id]),
        ("aws:PrincipalArn", [f"arn:aws:iam::{BOB.canonical_id}:user/bob"]),
        ("aws:PrincipalType", ["User"]),
        ("aws:Referer", ["http://x/"]),
        ("AWS:REFERER", ["http://x/"]),
        ("aws:RequestedRegion", ["us-east-1"]),
        ("aws:ResourceAccount", [ALICE.canonical_id]),
        ("aws:SecureTransport", ["true"]),
        ("aws:SourceIp", ["10.0.0.1"]),
        ("aws:UserAgent", ["test"]),
        ("aws:userid", [BOB.canonical_id]),
        ("aws:username", ["bob"]),
        ("aws:SourceVpc", []),
        ("s3:authType", ["REST-HEADER"]),
        ("s3:delimiter", []),
        ("s3:prefix", [""]),
        ("s3:max-keys", ["10"]),
        ("s3:if-match", ['"e"']),
        ("s3:if-none-match", []),
        ("s3:signatureversion", ["AWS4-HMAC-SHA256"]),
        ("s3:signatureAge", ["2500"]),
        ("s3:TlsVersion", ["1.2"]),
        ("s3:VersionId", ["v"]),
        ("s3:x-amz-acl", ["private"]),
        ("s3:x-amz-grant-read", ["id=x"]),
        ("s3:x-amz-grant-write", []),
        ("s3:x-amz-copy-source", ["b/a key?versionId=v"]),
        ("s3:x-amz-server-side-encryption", ["AES256"]),
        ("s3:x-amz-storage-class", []),
        ("s3:object-lock-mode", ["GOVERNANCE"]),
        ("s3:object-lock-legal-hold", []),
        ("s3:object-lock-remaining-retention-days", ["10"]),
        ("s3:ExistingObjectTag/Team", ["ice"]),
        ("s3:existingobjecttag/Team", ["ice"]),
        ("s3:ExistingObjectTag/team", []),
        ("s3:RequestObjectTag/a", ["2"]),
        ("s3:RequestObjectTag/b", [""]),
        ("s3:RequestObjectTagKeys", ["a", "b"]),
        ("s3:Nothing/x", []),
        ("nonsense", []),
    ],
)
def test_every_key(key: str, expected: list[str]) -> None:
    """In any case of letters; the name of a tag as it is."""
    assert list(FACTS.find_values(key)) == expected


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"caller": ANONYMOUS}, "aws:username", []),
        ({"caller": ANONYMOUS}, "aws:PrincipalArn", []),
        ({"caller": ANONYMOUS}, "aws:PrincipalType", ["Anonymous"]),
        ({"caller": ANONYMOUS}, "aws:userid", ["anonymous"]),
        ({"caller": ANONYMOUS}, "s3:authType", []),
        ({"claim": CLAIM._replace(access_key_id="")}, "s3:signatureversion", []),
        ({"claim": CLAIM._replace(access_key_id="")}, "s3:signatureAge", []),
        ({"claim": CLAIM._replace(expires_s=60)}, "s3:authType", ["REST-QUERY-STRING"]),
        ({"is_form": True}, "s3:authType", ["POST"]),
        ({"scheme": "http"}, "aws:SecureTransport", ["false"]),
        ({"scheme": "http"}, "s3:TlsVersion", []),
        ({"client_address": ""}, "aws:SourceIp", []),
        ({"request_tags": {"z": "1"}}, "s3:RequestObjectTag/z", ["1"]),
        ({"request_tags": {"z": "1"}}, "s3:RequestObjectTag/a", []),
        ({"request_tags": {}}, "s3:RequestObjectTagKeys", []),
        ({"headers": {"x-amz-tagging": "&".join(["a=b"] * 60)}}, "s3:RequestObjectTagKeys", []),
        ({"headers": {"x-amz-object-lock-retain-until-date": "?"}}, "s3:object-lock-remaining-retention-days", []),
        (
            {"headers": {"x-amz-object-lock-retain-until-date": "2020-01-01"}},
            "s3:object-lock-remaining-retention-days",
            ["0"],
        ),
    ],
)
def test_other_requests(changes: dict[str, Any], key: str, expected: list[str]) -> None:
    """Unsigned, presigned, over plain HTTP, with tags in the body."""
    assert list(FACTS._replace(**changes).find_values(key)) == expected
