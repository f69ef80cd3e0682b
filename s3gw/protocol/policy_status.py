"""PURE. Whether a policy or an ACL makes a bucket public.

Source: Amazon S3 User Guide, "Blocking public access to your Amazon S3 storage", "The meaning of 'public'". A policy is
public unless each of its Allows is for named principals, or only holds for fixed values of one of the keys below.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from s3gw.protocol.policy import Effect, Policy, Statement
from s3gw.protocol.policy_conditions import Test
from storage.model import Grant

PUBLIC_GROUPS = frozenset({"group:AllUsers", "group:AuthenticatedUsers"})
IPV4_PREFIX_BITS_MIN = 8
IPV6_PREFIX_BITS_MIN = 32
"""a wider range is as good as everybody"""

_NARROWING_KEYS = frozenset(
    {
        "aws:sourcearn",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:sourceowner",
        "aws:sourceaccount",
        "aws:principalorgid",
        "aws:principalarn",
        "aws:principalaccount",
        "aws:userid",
        "aws:username",
        "s3:x-amz-server-side-encryption-aws-kms-key-id",
        "s3:dataaccesspointarn",
        "s3:dataaccesspointaccount",
    }
)
_NARROWING_OPERATORS = frozenset({"StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike"})


def is_policy_public(policy: Policy) -> bool:
    """Whether it allows anything to everybody."""
    return any(map(_is_public, policy.statements))


def is_acl_public(acl: Sequence[Grant]) -> bool:
    """Whether it grants anything to everybody, or to everybody who signs."""
    return any(grant.grantee in PUBLIC_GROUPS for grant in acl)


def _is_public(statement: Statement) -> bool:
    if statement.effect is not Effect.ALLOW or not statement.principals.everyone:
        return False
    return not any(map(_narrows, statement.tests))


def _narrows(test: Test) -> bool:
    """Whether only requests with one of a few fixed values pass."""
    if test.if_exists or test.negated or test.quantifier.value == "ForAllValues" or test.variables:
        return False
    key = test.key.lower()
    if key == "aws:sourceip":
        return test.operator == "IpAddress" and all(map(_is_narrow_range, test.texts))
    if key not in _NARROWING_KEYS or test.operator not in _NARROWING_OPERATORS:
        return False
    return test.operator.startswith("StringEquals") or not any("*" in text or "?" in text for text in test.texts)


def _is_narrow_range(text: str) -> bool:
    network = ipaddress.ip_network(text, strict=False)
    return network.prefixlen >= (IPV4_PREFIX_BITS_MIN if network.version == 4 else IPV6_PREFIX_BITS_MIN)
