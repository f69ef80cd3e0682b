"""SANS-IO. Heads of presigned requests that differ from an earlier one in path and signature alone, read in one go.

A client that presigns many requests sends the same query, but for the signature, and the same block of headers again
and again. An earlier request with just these bytes was taken apart by plain_head.py and verified by sigv4.py; what both
found is remembered, and of the next one only the path and the signature are left to look at, and still to be checked.
A path that is spelled in any other way than it is signed, or that may mean something else than a bucket and a key, is
for the road, as is every head that was not seen before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from s3gw.plain_head import HEAD_BYTES_MAX
from s3gw.protocol.presigned import PresignedTerms
from s3gw.protocol.routing import OBJECT_KEY_BYTES_MAX

REMEMBERED_MAX = 256

_LINE = re.compile(
    rb"(GET|HEAD|PUT) (/([a-z0-9][a-z0-9.-]{2,62})/([A-Za-z0-9._~/-]{1,%d}))"
    rb"\?([!-~]+)&X-Amz-Signature=([0-9a-f]{64}) HTTP/1\.1\r\n" % OBJECT_KEY_BYTES_MAX
)
"""the path is its own canonical form, and the first word of it names a bucket"""
_HEAD_END = b"\r\n\r\n"


class KnownHead(NamedTuple):
    """What requests have in common."""

    terms: PresignedTerms
    headers: Mapping[bytes, bytes]
    """by lower-case name"""
    length: int
    """of the body, in bytes; 0 for a read"""


class KnownRequest(NamedTuple):
    """A request whose signature is still to be checked."""

    head: KnownHead
    method: bytes
    path: bytes
    """plain, and so in its canonical form"""
    bucket_name: bytes
    object_key: bytes
    signature: bytes
    body_at: int
    """where in the data its body begins"""


class KnownHeads:
    """A bounded memory; first in, first out."""

    def __init__(self, count_max: int = REMEMBERED_MAX) -> None:
        self._count_max = count_max
        self._heads: dict[tuple[bytes, bytes, bytes], KnownHead] = {}
        """by method, query and headers, each as it was sent"""

    def __len__(self) -> int:
        return len(self._heads)

    def find(self, data: bytes) -> KnownRequest | None:
        """Of data that begins with a whole head which is known; None for any other, and where more has come than the
        request."""
        line = _LINE.match(data)
        if line is None:
            return None
        block_at = line.end()
        block_end = data.find(_HEAD_END, block_at, HEAD_BYTES_MAX)
        method, path, bucket_name, object_key, query, signature = line.groups()
        head = self._heads.get((method, query, data[block_at:block_end]))
        if head is None or block_end < 0:
            return None
        body_at = block_end + len(_HEAD_END)
        if len(data) - body_at > head.length:
            return None
        return KnownRequest(head, method, path, bucket_name, object_key, signature, body_at)

    def remember(self, data: bytes, head: KnownHead) -> None:
        """Of a request that was verified; a no-op for one that is no example for others."""
        line = _LINE.match(data)
        block_end = -1 if line is None else data.find(_HEAD_END, line.end(), HEAD_BYTES_MAX)
        if line is None or block_end < 0:
            return
        if len(self._heads) >= self._count_max:
            del self._heads[next(iter(self._heads))]
        self._heads[line[1], line[5], data[line.end() : block_end]] = head
