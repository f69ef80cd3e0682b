"""PURE. Who may do what: one function over the caller, the bucket with its policy and ACL, and the object.

The rules are asked in the order of RULES and the first that has an opinion decides; where none has, the answer is no.
An explicit Deny comes before every Allow, a policy's Allow before ACLs. Source: Amazon S3 User Guide, "How Amazon S3
authorizes a request" and "Access control list (ACL) overview". Where Frostbyte's accounts make a difference: a user is
an account, the root user of the store may do everything in it (locks are not decided here), and identity policies do
not exist yet: their rules would stand beside that of the bucket's policy.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import NamedTuple

from s3gw.protocol.acl import Acl, decode_acl, grants_permission
from s3gw.protocol.ownership import OWNERSHIP_SETTING, Ownership, find_ownership
from s3gw.protocol.permissions import BUCKET_ACL, OBJECT_ACL, OWNERS_ALWAYS, TAG_CONDITIONED
from s3gw.protocol.policy import RESOURCE_PREFIX, Effect, Policy, evaluate_policy, find_policy
from s3gw.protocol.policy_conditions import FindValues
from s3gw.protocol.policy_status import is_policy_public
from s3gw.protocol.principals import is_anonymous
from s3gw.protocol.public_access_block import (
    NOTHING_BLOCKED,
    PUBLIC_ACCESS_SETTING,
    PublicAccessBlock,
    find_public_access_block,
)
from storage.model import Bucket, User

POLICY_SETTING = "policy"
ACL_SETTING = "acl"
BY_BUCKET_ACL = "the bucket's ACL"
"""the reason of a Decision"""
ANYONE_SIGNED = frozenset({"s3:ListAllMyBuckets", "s3:CreateBucket"})
"""what every user may do: it touches no bucket of anybody else"""


class Verdict(enum.Enum):
    """of one rule, or of all. NEEDS_OBJECT: only the owner, ACL or tags of the object can tell."""

    ALLOW = "allowed"
    DENY = "denied"
    NOT_ALLOWED = "not allowed"
    """no rule said yes and none forbade it"""
    NEEDS_OBJECT = "undecided"


class Decision(NamedTuple):
    """The outcome, and the rule that made it."""

    verdict: Verdict
    reason: str

    @property
    def allowed(self) -> bool:
        """Whether it may be done."""
        return self.verdict is Verdict.ALLOW


class BucketRules(NamedTuple):
    """What a bucket's settings say of access."""

    policy: Policy | None = None
    acl: Acl | None = None
    """None: private"""
    block: PublicAccessBlock = NOTHING_BLOCKED
    ownership: Ownership = Ownership.OBJECT_WRITER


class Target(NamedTuple):
    """The object that is there. owner_id ``: there is none."""

    owner_id: str = ""
    acl: Acl | None = None


MISSING = Target()


class Asked(NamedTuple):
    """One question. target None: the object was not looked at."""

    caller: User
    permission: str
    bucket_owner_id: str
    resource: str
    """an ARN"""
    rules: BucketRules
    target: Target | None
    find_values: FindValues


_NO_SETTINGS = BucketRules()


def find_bucket_rules(settings: Mapping[str, bytes]) -> BucketRules:
    """What a bucket's settings say; every document is parsed once for all requests."""
    if not settings:
        return _NO_SETTINGS
    policy, acl = settings.get(POLICY_SETTING), settings.get(ACL_SETTING)
    return BucketRules(
        None if policy is None else find_policy(policy),
        None if acl is None else decode_acl(acl),
        find_public_access_block(settings.get(PUBLIC_ACCESS_SETTING)),
        find_ownership(settings.get(OWNERSHIP_SETTING)),
    )


def format_resource(bucket: str, object_key: bytes) -> str:
    """The ARN of a bucket, or of an object in it."""
    if not object_key:
        return RESOURCE_PREFIX + bucket
    return f"{RESOURCE_PREFIX}{bucket}/{object_key.decode('utf-8', 'replace')}"


def owns_everything(caller: User, bucket: Bucket) -> bool:
    """Whether nothing but the ACLs of other people's objects can refuse the caller anything in this bucket: the short
    way of almost every request."""
    if caller.is_root:
        return True
    return caller.canonical_id == bucket.owner_id and POLICY_SETTING not in bucket.settings and not is_anonymous(caller)


def authorize_without_bucket(caller: User, permission: str) -> Decision:
    """What touches no bucket that is there. Who does not sign has no buckets, and is told so."""
    if permission == "s3:ListAllMyBuckets" or (permission in ANYONE_SIGNED and not is_anonymous(caller)):
        return Decision(Verdict.ALLOW, "every user may")
    return Decision(Verdict.NOT_ALLOWED, "only users may")


def authorize(asked: Asked) -> Decision:
    """The decision. NEEDS_OBJECT only where target is None."""
    for name, rule in RULES:
        opinion = rule(asked)
        if opinion is not None:
            verdict, detail = opinion
            return Decision(verdict, f"{name}: {detail}" if detail else name)
    return Decision(Verdict.NOT_ALLOWED, "nothing allows it")


# ------------------------------------------------------------------ the rules

_Opinion = tuple[Verdict, str] | None
_ALLOW: _Opinion = (Verdict.ALLOW, "")


def _is_owner(asked: Asked) -> bool:
    return asked.caller.canonical_id == asked.bucket_owner_id and not is_anonymous(asked.caller)


def _root(asked: Asked) -> _Opinion:
    return _ALLOW if asked.caller.is_root else None


def _owner_of_the_policy(asked: Asked) -> _Opinion:
    return _ALLOW if asked.permission in OWNERS_ALWAYS and _is_owner(asked) else None


def _existing_tags(asked: Asked) -> _Opinion:
    """The policy cannot be asked before the tags are known that it speaks of."""
    policy = asked.rules.policy
    if policy is None or not policy.asks_for_existing_tags:
        return None
    if asked.target is None and asked.permission in TAG_CONDITIONED:
        return Verdict.NEEDS_OBJECT, ""
    return None


def _policy(asked: Asked) -> _Opinion:
    policy = asked.rules.policy
    if policy is None:
        return None
    opinion = evaluate_policy(policy, asked.caller, asked.permission, asked.resource, asked.find_values)
    if opinion.effect is Effect.DENY:
        return Verdict.DENY, opinion.reason
    if opinion.effect is Effect.ALLOW:
        restricted = asked.rules.block.restrict_public_buckets and is_policy_public(policy)
        if not restricted or _is_owner(asked):
            return Verdict.ALLOW, opinion.reason
    return None


def _bucket_owner(asked: Asked) -> _Opinion:
    """Everything, but what the ACL of somebody else's object decides."""
    if not _is_owner(asked):
        return None
    target = asked.target
    if target is None or target.owner_id in ("", asked.bucket_owner_id) or not _acls_count(asked):
        return _ALLOW
    return None if asked.permission in OBJECT_ACL else _ALLOW


def _bucket_acl(asked: Asked) -> _Opinion:
    acl, wanted = asked.rules.acl, BUCKET_ACL.get(asked.permission)
    if acl is None or wanted is None or not _acls_count(asked):
        return None
    return _ALLOW if grants_permission(acl, asked.caller, wanted, asked.rules.block.ignore_public_acls) else None


def _object_acl(asked: Asked) -> _Opinion:
    """The owner of an object may always read and write its ACL, and has full control where it has none."""
    wanted = OBJECT_ACL.get(asked.permission)
    if wanted is None or not _acls_count(asked):
        return None
    target, caller = asked.target, asked.caller
    if target is None:
        return Verdict.NEEDS_OBJECT, ""
    is_owner = target.owner_id == caller.canonical_id and not is_anonymous(caller)
    if is_owner and (target.acl is None or wanted.endswith("_ACP")):
        return _ALLOW
    if target.acl is None:
        return None
    return _ALLOW if grants_permission(target.acl, caller, wanted, asked.rules.block.ignore_public_acls) else None


def _acls_count(asked: Asked) -> bool:
    return asked.rules.ownership is not Ownership.BUCKET_OWNER_ENFORCED


RULES: tuple[tuple[str, Callable[[Asked], _Opinion]], ...] = (
    ("the root user", _root),
    ("the owner keeps the policy", _owner_of_the_policy),
    ("the policy asks for tags", _existing_tags),
    ("the bucket's policy", _policy),
    ("the bucket's owner", _bucket_owner),
    (BY_BUCKET_ACL, _bucket_acl),
    ("the object's ACL", _object_acl),
)
"""(name, rule), in order"""
