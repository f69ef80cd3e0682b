"""The decision: every rule, in every order that matters, and properties that hold whatever the settings are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.acl import PERMISSIONS as ACL_PERMISSIONS
from s3gw.protocol.acl import Acl, encode_acl
from s3gw.protocol.authorize import (
    MISSING,
    RULES,
    Asked,
    BucketRules,
    Decision,
    Target,
    Verdict,
    authorize,
    authorize_without_bucket,
    find_bucket_rules,
    format_resource,
    owns_everything,
)
from s3gw.protocol.ownership import Ownership, format_ownership_controls
from s3gw.protocol.permissions import BUCKET_ACL, OBJECT_ACL, OWNERS_ALWAYS, PERMISSIONS
from s3gw.protocol.policy import find_policy
from s3gw.protocol.principals import ANONYMOUS
from s3gw.protocol.public_access_block import ALL_BLOCKED, PublicAccessBlock, format_public_access_block
from storage.model import Bucket, Grant, User
from tests.s3gw.gateway import ALICE, BOB, ROOT

OWNER = ALICE
ALL, SIGNED = "group:AllUsers", "group:AuthenticatedUsers"
CALLERS = {"owner": ALICE, "bob": BOB, "root": ROOT, "anonymous": ANONYMOUS}


def policy(*statements: dict[str, Any]) -> bytes:
    """A document of statements that are for everybody and everything unless they say otherwise."""
    plain = {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [plain | one for one in statements]}).encode()


ALLOW, DENY = policy({}), policy({"Effect": "Deny"})
ALLOW_BOB = policy({"Principal": {"AWS": BOB.canonical_id}})
TAGGED = policy({"Condition": {"StringEquals": {"s3:ExistingObjectTag/open": "yes"}}})
READ_BY_ALL: Acl = (Grant(ALL, "READ"),)


def ask(
    caller: User,
    permission: str,
    *,
    document: bytes | None = None,
    acl: Acl | None = None,
    block: PublicAccessBlock | None = None,
    ownership: Ownership = Ownership.OBJECT_WRITER,
    target: Target | None = None,
    tags: dict[str, str] | None = None,
) -> Decision:
    """The decision on Alice's bucket b and its object k."""
    rules = BucketRules(
        None if document is None else find_policy(document), acl, block or PublicAccessBlock(), ownership
    )
    values = {f"s3:ExistingObjectTag/{name}": (text,) for name, text in (tags or {}).items()}
    resource = format_resource("b", b"k" if "Object" in permission else b"")
    asked = Asked(caller, permission, OWNER.canonical_id, resource, rules, target, lambda key: values.get(key, ()))
    return authorize(asked)


def own(acl: Acl | None = None, owner: User = ALICE) -> Target:
    """An object that is there."""
    return Target(owner.canonical_id, acl)


@pytest.mark.parametrize(
    ("who", "permission", "settings", "expected"),
    [
        # nobody said anything
        ("owner", "s3:GetObject", {}, Verdict.ALLOW),
        ("owner", "s3:PutBucketPolicy", {}, Verdict.ALLOW),
        ("root", "s3:GetObject", {}, Verdict.ALLOW),
        ("bob", "s3:PutObject", {}, Verdict.NOT_ALLOWED),
        ("bob", "s3:ListBucket", {}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetObject", {}, Verdict.NEEDS_OBJECT),
        ("bob", "s3:GetObjectTagging", {}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetObject", {"target": own()}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetObject", {"target": MISSING}, Verdict.NOT_ALLOWED),
        ("anonymous", "s3:GetObject", {"target": own()}, Verdict.NOT_ALLOWED),
        ("anonymous", "s3:PutObject", {}, Verdict.NOT_ALLOWED),
        # a policy allows
        ("bob", "s3:PutObject", {"document": ALLOW}, Verdict.ALLOW),
        ("bob", "s3:GetObject", {"document": ALLOW}, Verdict.ALLOW),
        ("anonymous", "s3:GetObject", {"document": ALLOW}, Verdict.ALLOW),
        ("bob", "s3:PutObject", {"document": ALLOW_BOB}, Verdict.ALLOW),
        ("anonymous", "s3:PutObject", {"document": ALLOW_BOB}, Verdict.NOT_ALLOWED),
        # a policy denies
        ("owner", "s3:GetObject", {"document": DENY}, Verdict.DENY),
        ("owner", "s3:DeleteBucket", {"document": DENY}, Verdict.DENY),
        ("owner", "s3:GetBucketPolicy", {"document": DENY}, Verdict.ALLOW),
        ("owner", "s3:PutBucketPolicy", {"document": DENY}, Verdict.ALLOW),
        ("owner", "s3:DeleteBucketPolicy", {"document": DENY}, Verdict.ALLOW),
        ("bob", "s3:DeleteBucketPolicy", {"document": DENY}, Verdict.DENY),
        ("root", "s3:GetObject", {"document": DENY}, Verdict.ALLOW),
        ("bob", "s3:GetObject", {"document": DENY, "target": own(READ_BY_ALL)}, Verdict.DENY),
        ("bob", "s3:ListBucket", {"document": DENY, "acl": READ_BY_ALL}, Verdict.DENY),
        ("bob", "s3:GetObject", {"document": policy({}, {"Effect": "Deny"})}, Verdict.DENY),
        # a public policy where public buckets are restricted
        (
            "bob",
            "s3:PutObject",
            {"document": ALLOW, "block": PublicAccessBlock(restrict_public_buckets=True)},
            Verdict.NOT_ALLOWED,
        ),
        (
            "owner",
            "s3:PutObject",
            {"document": ALLOW, "block": PublicAccessBlock(restrict_public_buckets=True)},
            Verdict.ALLOW,
        ),
        (
            "bob",
            "s3:PutObject",
            {"document": ALLOW_BOB, "block": PublicAccessBlock(restrict_public_buckets=True)},
            Verdict.ALLOW,
        ),
        (
            "bob",
            "s3:PutObject",
            {"document": ALLOW, "block": PublicAccessBlock(block_public_policy=True)},
            Verdict.ALLOW,
        ),
        # a bucket's ACL
        ("bob", "s3:ListBucket", {"acl": READ_BY_ALL}, Verdict.ALLOW),
        ("anonymous", "s3:ListBucketVersions", {"acl": READ_BY_ALL}, Verdict.ALLOW),
        ("anonymous", "s3:ListBucket", {"acl": (Grant(SIGNED, "READ"),)}, Verdict.NOT_ALLOWED),
        ("bob", "s3:ListBucket", {"acl": (Grant(SIGNED, "READ"),)}, Verdict.ALLOW),
        ("bob", "s3:PutObject", {"acl": READ_BY_ALL}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetObject", {"acl": READ_BY_ALL, "target": own()}, Verdict.NOT_ALLOWED),
        ("bob", "s3:PutObject", {"acl": (Grant(ALL, "WRITE"),)}, Verdict.ALLOW),
        ("bob", "s3:DeleteObject", {"acl": (Grant(ALL, "WRITE"),)}, Verdict.ALLOW),
        ("bob", "s3:DeleteObjectVersion", {"acl": (Grant(ALL, "FULL_CONTROL"),)}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetBucketAcl", {"acl": (Grant(BOB.canonical_id, "READ_ACP"),)}, Verdict.ALLOW),
        ("bob", "s3:PutBucketAcl", {"acl": (Grant(BOB.canonical_id, "READ_ACP"),)}, Verdict.NOT_ALLOWED),
        ("bob", "s3:PutBucketAcl", {"acl": (Grant(BOB.canonical_id, "FULL_CONTROL"),)}, Verdict.ALLOW),
        ("bob", "s3:DeleteBucket", {"acl": (Grant(BOB.canonical_id, "FULL_CONTROL"),)}, Verdict.NOT_ALLOWED),
        ("owner", "s3:ListBucket", {"acl": ()}, Verdict.ALLOW),
        ("bob", "s3:ListBucket", {"acl": READ_BY_ALL, "block": ALL_BLOCKED}, Verdict.NOT_ALLOWED),
        (
            "bob",
            "s3:ListBucket",
            {"acl": (Grant(BOB.canonical_id, "READ"),), "block": ALL_BLOCKED},
            Verdict.ALLOW,
        ),
        (
            "bob",
            "s3:ListBucket",
            {"acl": READ_BY_ALL, "ownership": Ownership.BUCKET_OWNER_ENFORCED},
            Verdict.NOT_ALLOWED,
        ),
        # an object's ACL
        ("anonymous", "s3:GetObject", {"target": own(READ_BY_ALL)}, Verdict.ALLOW),
        ("anonymous", "s3:GetObjectVersion", {"target": own(READ_BY_ALL)}, Verdict.ALLOW),
        ("anonymous", "s3:GetObject", {"target": own(READ_BY_ALL), "block": ALL_BLOCKED}, Verdict.NOT_ALLOWED),
        ("anonymous", "s3:GetObject", {"target": own((Grant(SIGNED, "READ"),))}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetObject", {"target": own((Grant(SIGNED, "READ"),))}, Verdict.ALLOW),
        ("bob", "s3:GetObjectAcl", {"target": own((Grant(ALL, "READ"),))}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetObjectAcl", {"target": own((Grant(ALL, "READ_ACP"),))}, Verdict.ALLOW),
        ("bob", "s3:PutObjectAcl", {"target": own((Grant(BOB.canonical_id, "WRITE_ACP"),))}, Verdict.ALLOW),
        ("bob", "s3:PutObject", {"target": own((Grant(BOB.canonical_id, "FULL_CONTROL"),))}, Verdict.NOT_ALLOWED),
        (
            "bob",
            "s3:GetObject",
            {"target": own(READ_BY_ALL), "ownership": Ownership.BUCKET_OWNER_ENFORCED},
            Verdict.NOT_ALLOWED,
        ),
        # an object of somebody else's in the bucket
        ("bob", "s3:GetObject", {"target": own(owner=BOB)}, Verdict.ALLOW),
        ("bob", "s3:PutObjectAcl", {"target": own(owner=BOB)}, Verdict.ALLOW),
        ("bob", "s3:GetObject", {"target": own((), BOB)}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetObjectAcl", {"target": own((), BOB)}, Verdict.ALLOW),
        ("bob", "s3:DeleteObject", {"target": own(owner=BOB)}, Verdict.NOT_ALLOWED),
        ("owner", "s3:GetObject", {"target": own(owner=BOB)}, Verdict.NOT_ALLOWED),
        ("owner", "s3:GetObject", {"target": None}, Verdict.ALLOW),
        ("owner", "s3:GetObjectAcl", {"target": own(owner=BOB)}, Verdict.NOT_ALLOWED),
        ("owner", "s3:GetObject", {"target": own((Grant(ALICE.canonical_id, "READ"),), BOB)}, Verdict.ALLOW),
        ("owner", "s3:DeleteObject", {"target": own(owner=BOB)}, Verdict.ALLOW),
        ("owner", "s3:GetObjectTagging", {"target": own(owner=BOB)}, Verdict.ALLOW),
        ("owner", "s3:GetObject", {"target": own(owner=BOB), "document": ALLOW}, Verdict.ALLOW),
        ("root", "s3:GetObject", {"target": own(owner=BOB)}, Verdict.ALLOW),
        (
            "owner",
            "s3:GetObject",
            {"target": own(owner=BOB), "ownership": Ownership.BUCKET_OWNER_ENFORCED},
            Verdict.ALLOW,
        ),
        (
            "bob",
            "s3:GetObject",
            {"target": own(owner=BOB), "ownership": Ownership.BUCKET_OWNER_ENFORCED},
            Verdict.NOT_ALLOWED,
        ),
        ("anonymous", "s3:GetObject", {"target": own(owner=ANONYMOUS)}, Verdict.NOT_ALLOWED),
        ("anonymous", "s3:PutObjectAcl", {"target": own(owner=ANONYMOUS)}, Verdict.NOT_ALLOWED),
        # a policy that asks for the object's tags
        ("bob", "s3:GetObject", {"document": TAGGED}, Verdict.NEEDS_OBJECT),
        ("owner", "s3:GetObject", {"document": TAGGED}, Verdict.NEEDS_OBJECT),
        ("root", "s3:GetObject", {"document": TAGGED}, Verdict.ALLOW),
        ("bob", "s3:PutObject", {"document": TAGGED}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetObject", {"document": TAGGED, "target": own(), "tags": {"open": "yes"}}, Verdict.ALLOW),
        ("bob", "s3:GetObject", {"document": TAGGED, "target": own(), "tags": {"open": "no"}}, Verdict.NOT_ALLOWED),
        ("bob", "s3:GetObject", {"document": TAGGED, "target": MISSING}, Verdict.NOT_ALLOWED),
    ],
)
def test_decisions(who: str, permission: str, settings: dict[str, Any], expected: Verdict) -> None:
    """One row for each thing that a rule says, and for each that comes before another."""
    assert ask(CALLERS[who], permission, **settings).verdict is expected


def test_the_reason_names_the_rule() -> None:
    """What the log says of it."""
    assert ask(BOB, "s3:GetObject", document=ALLOW).reason == "the bucket's policy: statement 1"
    assert ask(BOB, "s3:ListBucket", acl=READ_BY_ALL).reason == "the bucket's ACL"
    assert ask(BOB, "s3:PutObject").reason == "nothing allows it"
    assert len({name for name, _ in RULES}) == len(RULES)


GRANTS = st.builds(Grant, st.sampled_from([ALL, SIGNED, BOB.canonical_id]), st.sampled_from(ACL_PERMISSIONS))
ACLS = st.none() | st.lists(GRANTS, max_size=3).map(tuple)
SETTINGS = st.fixed_dictionaries(
    {
        "document": st.sampled_from([None, ALLOW, DENY, ALLOW_BOB, TAGGED]),
        "acl": ACLS,
        "block": st.builds(PublicAccessBlock, st.booleans(), st.booleans(), st.booleans(), st.booleans()),
        "ownership": st.sampled_from(Ownership),
        "target": st.none() | st.builds(own, ACLS, st.sampled_from([ALICE, BOB])),
    }
)


@given(SETTINGS, st.sampled_from(sorted(PERMISSIONS)))
def test_whatever_is_set(settings: dict[str, Any], permission: str) -> None:
    """Root may; a Deny is a Deny for everybody else, but for the owner's policy; the unsigned get no more than Bob."""
    assert ask(ROOT, permission, **settings).allowed
    verdicts = {name: ask(caller, permission, **settings).verdict for name, caller in CALLERS.items()}
    if settings["document"] == DENY:
        assert verdicts["bob"] is verdicts["anonymous"] is Verdict.DENY
        assert verdicts["owner"] is (Verdict.ALLOW if permission in OWNERS_ALWAYS else Verdict.DENY)
    if verdicts["anonymous"] is Verdict.ALLOW:
        assert verdicts["bob"] is Verdict.ALLOW
    if settings["target"] is not None:
        assert Verdict.NEEDS_OBJECT not in verdicts.values()


@given(SETTINGS, st.sampled_from(sorted(PERMISSIONS)))
def test_locked_down_means_nobody_else(settings: dict[str, Any], permission: str) -> None:
    """With everything public blocked and ACLs off, only what a policy that is not public says lets anybody in."""
    locked = settings | {"block": ALL_BLOCKED, "ownership": Ownership.BUCKET_OWNER_ENFORCED}
    assert not ask(ANONYMOUS, permission, **locked).allowed
    if settings["document"] != ALLOW_BOB:
        assert not ask(BOB, permission, **locked).allowed
    if settings["document"] is None:
        assert ask(ALICE, permission, **locked).allowed


@given(SETTINGS, st.sampled_from(sorted(set(BUCKET_ACL) | set(OBJECT_ACL))), st.sampled_from(["owner", "bob"]))
def test_looking_at_the_object_decides(settings: dict[str, Any], permission: str, who: str) -> None:
    """Whatever is said without a look stays, unless it was the bucket's owner on somebody else's object."""
    unseen = ask(CALLERS[who], permission, **(settings | {"target": None}))
    seen = ask(CALLERS[who], permission, **settings)
    if unseen.verdict is Verdict.NEEDS_OBJECT or settings["target"] is None:
        return
    foreign = who == "owner" and settings["target"].owner_id != OWNER.canonical_id
    assert seen.verdict is unseen.verdict or foreign


def test_the_rules_of_a_bucket() -> None:
    """By its settings, each on its own."""
    assert find_bucket_rules({}) == BucketRules() == find_bucket_rules({"cors": b"x"})
    rules = find_bucket_rules(
        {
            "policy": ALLOW,
            "acl": encode_acl(READ_BY_ALL),
            "publicAccessBlock": format_public_access_block(ALL_BLOCKED),
            "ownershipControls": format_ownership_controls(Ownership.BUCKET_OWNER_PREFERRED),
        }
    )
    assert rules == BucketRules(find_policy(ALLOW), READ_BY_ALL, ALL_BLOCKED, Ownership.BUCKET_OWNER_PREFERRED)


def test_the_short_way() -> None:
    """Root always, the owner where there is no policy, nobody else."""
    plain = Bucket(1, "b", ALICE.canonical_id, "us-east-1", 0, "bk")
    ruled = Bucket(1, "b", ALICE.canonical_id, "us-east-1", 0, "bk", settings={"policy": ALLOW})
    of_nobody = Bucket(1, "b", ANONYMOUS.canonical_id, "us-east-1", 0, "bk")
    assert [owns_everything(caller, plain) for caller in CALLERS.values()] == [True, False, True, False]
    assert [owns_everything(caller, ruled) for caller in CALLERS.values()] == [False, False, True, False]
    assert not owns_everything(ANONYMOUS, of_nobody)


@pytest.mark.parametrize(
    ("who", "permission", "allowed"),
    [
        ("bob", "s3:CreateBucket", True),
        ("bob", "s3:ListAllMyBuckets", True),
        ("anonymous", "s3:ListAllMyBuckets", True),
        ("anonymous", "s3:CreateBucket", False),
        ("bob", "s3:GetObject", False),
        ("root", "s3:GetObject", False),
    ],
)
def test_without_a_bucket(who: str, permission: str, allowed: bool) -> None:
    """Every user may make buckets; who does not sign has none, and may hear so."""
    assert authorize_without_bucket(CALLERS[who], permission).allowed is allowed


def test_resources() -> None:
    """ARNs, whatever is in a key."""
    assert format_resource("b", b"") == "arn:aws:s3:::b"
    assert format_resource("b", "ä/x".encode()) == "arn:aws:s3:::b/ä/x"
