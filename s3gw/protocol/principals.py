"""PURE. Who can ask, and how a bucket policy names them.

A Frostbyte user is an account of its own, so `arn:aws:iam::<canonical id>:root` and the bare canonical id mean the
user, and so does `arn:aws:iam::…:user/NAME`, whatever its account part says: there is one directory of users. AWS's
twelve digits name no account here and match nobody. Source: IAM User Guide, "AWS JSON policy elements: Principal".
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from s3gw.protocol.errors import S3Error
from storage.model import User

ANONYMOUS = User("65a011a29cdf8ec533ec3d1ccaae921c", "", "anonymous")
"""the caller of a request that is not signed, and the owner of what it uploads, under the canonical id that AWS gives
it; no user of the directory is it, since those are named"""

PRINCIPALS_MAX = 1024

_ARN = re.compile(
    r"arn:aws[a-z-]{0,16}:(iam|sts)::([^:]{0,256}):"
    r"(root|user/(?:[!-~]{0,512}/)?([^/*?]{1,256})|(?!user/)[a-z-]{1,32}/[!-~]{1,512})"
)
_BARE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@=+-]{0,255}")
_KINDS = ("AWS", "CanonicalUser", "Service", "Federated")


class Principals(NamedTuple):
    """Those whom a statement speaks of."""

    everyone: bool = False
    canonical_ids: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    """services, federations, roles: nobody who asks here"""

    def include(self, caller: User) -> bool:
        """Whether the caller is one of them; who does not sign is only ever everyone."""
        if self.everyone:
            return True
        return not is_anonymous(caller) and (caller.canonical_id in self.canonical_ids or caller.name in self.names)


def is_anonymous(caller: User) -> bool:
    """Whether nobody in particular is asking. A user who was given the same canonical id is somebody."""
    return caller is ANONYMOUS


def format_user_arn(user: User) -> str:
    """aws:PrincipalArn of a user."""
    return f"arn:aws:iam::{user.canonical_id}:user/{user.name}"


def parse_principals(given: Any) -> Principals:
    """`"*"` or `{"AWS" | "CanonicalUser" | "Service" | "Federated": one or several}`. MalformedPolicy."""
    if given == "*":
        return Principals(everyone=True)
    if not isinstance(given, dict) or not given:
        raise _invalid()
    everyone = False
    ids: set[str] = set()
    names: set[str] = set()
    others: set[str] = set()
    for kind, one_or_several in given.items():
        listed = one_or_several if isinstance(one_or_several, list) else [one_or_several]
        if kind not in _KINDS or not listed or len(listed) > PRINCIPALS_MAX:
            raise _invalid()
        for text in listed:
            if not isinstance(text, str) or not text or not text.isprintable():
                raise _invalid()
            if kind == "CanonicalUser":
                ids.add(text)
            elif kind != "AWS":
                others.add(text)
            elif text == "*":
                everyone = True
            else:
                _add_account(text, ids, names, others)
    return Principals(everyone, frozenset(ids), frozenset(names), frozenset(others))


def _add_account(text: str, ids: set[str], names: set[str], others: set[str]) -> None:
    match = _ARN.fullmatch(text)
    if match is None:
        if not _BARE_ID.fullmatch(text):
            raise _invalid()
        ids.add(text)
    elif match[3] == "root":
        if not match[2]:
            raise _invalid()
        ids.add(match[2])
    elif match[4] and match[1] == "iam":
        names.add(match[4])
    else:
        others.add(text)


def _invalid() -> S3Error:
    return S3Error("MalformedPolicy", "Invalid principal in policy")
