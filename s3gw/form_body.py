"""A browser's form: its head first, then its file as a body that is stored while it comes.

    upload = await read_form(receive, headers)      reads up to where the file begins
    body = upload.open_file(headers, policy)        cluster.body.OpenEndedBody, bounded and verified

A request's length says how long the form is, not how long its file: fields that a browser adds behind the file (the
button that was pressed) are read over. So the last TAIL_BYTES_MAX of a file are held in memory until it has ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping

from cluster.body import BLOCK_BYTES_MAX, TAIL_BYTES_MAX, BodyDigests
from s3gw.body import OBJECT_BYTES_MAX, check_checksum, check_md5, parse_content_md5
from s3gw.digester import Digester
from s3gw.patience import PatientReceiver, Receive
from s3gw.protocol.checksums import (
    DEFAULT_ALGORITHM,
    encode_digest,
    new_hasher,
    parse_requested_checksum,
)
from s3gw.protocol.errors import S3Error
from s3gw.protocol.form_data import Form, FormParser, parse_boundary
from s3gw.protocol.post_policy import PostPolicy, check_post_length
from storage.model import Checksum

_END_BYTES_MIN = len("\r\n----")
"""of the delimiter behind the file, beside the boundary"""


async def read_form(receive: Receive, headers: Mapping[bytes, bytes]) -> FormUpload:
    """Read up to where the file begins. S3Error: as FormParser, and MissingContentLength, PreconditionFailed."""
    boundary = parse_boundary(headers.get(b"content-type", b"").decode("latin-1"))
    length = headers.get(b"content-length", b"").strip()
    if not length.isdigit() or len(length) > 19:
        raise S3Error("MissingContentLength")
    upload = FormUpload(PatientReceiver(receive), FormParser(boundary), int(length), len(boundary))
    await upload.read_head()
    return upload


class FormUpload:
    """A form whose head was read."""

    def __init__(self, receiver: PatientReceiver, parser: FormParser, length: int, boundary_bytes: int) -> None:
        self._receiver = receiver
        self._parser = parser
        self._length = length
        self._end_bytes = _END_BYTES_MIN + boundary_bytes
        self._received_bytes = 0
        self._ended = False
        self._pieces: list[bytes] = []

    @property
    def form(self) -> Form:
        """Everything but the file."""
        assert self._parser.form is not None
        return self._parser.form

    async def read_head(self) -> None:
        """Until the file begins."""
        while self._parser.form is None:
            if self._ended:
                self._parser.finish()
            self._pieces = await self._next_pieces()

    def open_file(self, headers: Mapping[str, str], policy: PostPolicy | None) -> FormFile:
        """The file as a body. headers: as the form's fields say. EntityTooLarge, EntityTooSmall, InvalidDigest,
        InvalidRequest (checksums)."""
        come = sum(map(len, self._pieces))
        left = self._length - self._received_bytes
        longest = max(come + left - (0 if self._ended else self._end_bytes), come)
        shortest = come if self._ended else max(come + left - TAIL_BYTES_MAX, 0)
        if shortest > OBJECT_BYTES_MAX:
            raise S3Error("EntityTooLarge", ProposedSize=str(shortest), MaxSizeAllowed=str(OBJECT_BYTES_MAX))
        if policy is not None:
            check_post_length(policy, shortest, longest)
        encoded = {name.encode(): text.encode("latin-1") for name, text in headers.items()}
        return FormFile(self, shortest, encoded, policy)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file, to the end of the request."""
        while True:
            for piece in self._pieces:
                yield piece
            if self._ended:
                self._parser.finish()
                return
            self._pieces = await self._next_pieces()

    async def _next_pieces(self) -> list[bytes]:
        data, self._ended = await self._receiver.next_bytes()
        self._received_bytes += len(data)
        return self._parser.feed(bytes(data)) if data else []


class FormFile:
    """Implements cluster.body.OpenEndedBody."""

    def __init__(
        self, upload: FormUpload, length: int, headers: Mapping[bytes, bytes], policy: PostPolicy | None
    ) -> None:
        self.length = length
        self.tail = b""
        self._pieces = upload.pieces()
        self._policy = policy
        self._content_md5 = parse_content_md5(headers)
        self._requested = parse_requested_checksum(headers)
        self._algorithm = self._requested.algorithm if self._requested else DEFAULT_ALGORITHM
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._checksum = new_hasher(self._algorithm)
        self._digester = Digester([self._md5, self._checksum])
        self._rest = b""

    @property
    def proves_itself(self) -> bool:
        """Whether the form brings an MD5 or a checksum of its file."""
        return self._content_md5 is not None or self._requested is not None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """What is sure of the file."""
        left = self.length
        while left > 0:
            piece = await anext(self._pieces, b"")
            if not piece:
                raise S3Error("MalformedPOSTRequest")  # more follows the file than any form of a browser has there
            self._rest = piece[left:]
            piece = piece[:left] if self._rest else piece
            left -= len(piece)
            await self._digester.add(piece)
            for start in range(0, len(piece), BLOCK_BYTES_MAX):
                yield piece[start : start + BLOCK_BYTES_MAX]

    async def finish(self) -> BodyDigests:
        """Read the tail, then verify length and checksums: EntityTooLarge, EntityTooSmall, BadDigest."""
        held = [self._rest] if self._rest else []
        size = self.length + len(self._rest)
        async for piece in self._pieces:
            held.append(piece)
            size += len(piece)
            assert size - self.length <= TAIL_BYTES_MAX, "the request is longer than it says"
        self.tail = b"".join(held)
        if self._policy is not None:
            check_post_length(self._policy, size, size)
        await self._digester.add(self.tail)
        await self._digester.finish()
        md5, digest = self._md5.digest(), self._checksum.digest()
        check_md5(self._content_md5, md5)
        check_checksum(self._algorithm, self._requested.value if self._requested else None, digest)
        return BodyDigests(md5, Checksum(self._algorithm, encode_digest(digest)))
