"""PURE. Who can ask: users, and whoever does not sign. Source: Amazon S3 User Guide, "Access control list overview"."""

from __future__ import annotations

from storage.model import User

ANONYMOUS = User("65a011a29cdf8ec533ec3d1ccaae921c", "", "anonymous")
"""the caller of a request that is not signed, and the owner of what it uploads, under the canonical id that AWS gives
it; no user of the directory is it, since those are named"""


def is_anonymous(caller: User) -> bool:
    """Whether nobody in particular is asking. A user who was given the same canonical id is somebody."""
    return caller is ANONYMOUS
