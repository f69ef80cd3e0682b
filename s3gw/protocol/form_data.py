"""SANS-IO. A browser's form as it arrives: multipart/form-data, its fields bounded and kept, its file handed through.

    parser = FormParser(parse_boundary(content_type))
    pieces = parser.feed(data)          the file's bytes in this data; parser.form is there once the file has begun

The file is the last part that counts: whatever fields follow it are read over, as AWS does. Source: RFC 7578; Amazon S3
API Reference, "POST Object".
"""

from __future__ import annotations

from typing import NamedTuple

import multipart

from s3gw.protocol.errors import S3Error

FORM_HEAD_BYTES_MAX = 20_480
"""names and values of all fields before the file, as on AWS"""
FORM_PARTS_MAX = 256
BOUNDARY_BYTES_MAX = 70
"""RFC 2046 §5.1.1"""

_PART_HEADER_BYTES_MAX = 4096 + 128
_PART_HEADERS_MAX = 8
_HEAD_FRAMING_BYTES_MAX = FORM_PARTS_MAX * (BOUNDARY_BYTES_MAX + 256)
"""what delimiters and headers may come to on top of the fields"""
_FILE = "file"


class Form(NamedTuple):
    """All of a form but its file. fields: by lower-case name. filename: what the browser calls the file, its path cut
    off; `` when it gives none."""

    fields: dict[str, str]
    filename: str


class FormParser:
    """One form. S3Error: MalformedPOSTRequest, MaxPostPreDataLengthExceeded, InvalidArgument."""

    def __init__(self, boundary: bytes) -> None:
        self.form: Form | None = None
        """None until the file begins"""
        self._parser = multipart.PushMultipartParser(
            boundary,
            max_header_size=_PART_HEADER_BYTES_MAX,
            max_header_count=_PART_HEADERS_MAX,
            max_segment_count=FORM_PARTS_MAX,
        )
        self._fields: dict[str, str] = {}
        self._name = ""
        self._value: list[bytes] = []
        self._head_bytes = 0
        self._fed_bytes = 0
        self._file_ended = False

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the file that are in it. data: not empty."""
        if self.form is None:
            self._fed_bytes += len(data)
        pieces: list[bytes] = []
        try:
            for event in self._parser.parse(data):
                self._take(event, pieces)
        except multipart.MultipartError:
            raise S3Error("MalformedPOSTRequest") from None
        if self.form is None and self._fed_bytes > FORM_HEAD_BYTES_MAX + _HEAD_FRAMING_BYTES_MAX:
            raise S3Error("MaxPostPreDataLengthExceeded")
        return pieces

    def finish(self) -> None:
        """After the last data: MalformedPOSTRequest when the form breaks off, InvalidArgument when it has no file."""
        try:
            self._parser.close()
        except multipart.MultipartError:
            raise S3Error("MalformedPOSTRequest") from None
        if self.form is None:
            raise S3Error(
                "InvalidArgument",
                "POST requires exactly one file upload per request.",
                ArgumentName=_FILE,
                ArgumentValue="0",
            )

    def _take(self, event: multipart.MultipartSegment | bytes | bytearray | None, pieces: list[bytes]) -> None:
        if isinstance(event, multipart.MultipartSegment):
            if self.form is None:
                self._begin(event)
        elif self.form is None:
            if event is None:
                self._keep()
            else:
                self._count(len(event))
                self._value.append(bytes(event))
        elif event is None:
            self._file_ended = True
        elif not self._file_ended:
            pieces.append(bytes(event))

    def _begin(self, part: multipart.MultipartSegment) -> None:
        name = (part.name or "").lower()
        if name == _FILE:
            self.form = Form(self._fields, _cut_path(part.filename or ""))
            return
        self._count(len(name.encode()))
        self._name = name

    def _keep(self) -> None:
        if self._name in self._fields:
            raise S3Error(
                "InvalidArgument",
                "POST requires each form field at most once.",
                ArgumentName=self._name,
            )
        try:
            self._fields[self._name] = b"".join(self._value).decode()
        except UnicodeDecodeError:
            raise S3Error("MalformedPOSTRequest") from None
        self._value = []

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > FORM_HEAD_BYTES_MAX:
            raise S3Error("MaxPostPreDataLengthExceeded")


def parse_boundary(content_type: str) -> bytes:
    """Of `multipart/form-data; boundary=…`. PreconditionFailed for another type, MalformedPOSTRequest without one."""
    media_type, options = multipart.parse_options_header(content_type)
    if media_type != "multipart/form-data":
        raise S3Error("PreconditionFailed", Condition="Bucket POST must be of the enclosure-type multipart/form-data")
    boundary: bytes = options.get("boundary", "").encode("latin-1", "replace")
    if not 1 <= len(boundary) <= BOUNDARY_BYTES_MAX or b"\n" in boundary or b"\r" in boundary:
        raise S3Error("MalformedPOSTRequest")
    return boundary


def _cut_path(filename: str) -> str:
    """Only what follows the last slash or backslash: some browsers send the whole path."""
    return filename.replace("\\", "/").rpartition("/")[2]
