"""aws s3api: single operations with JSON answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.clients.material import MIB, hostile_body
from tests.clients.programs import ProgramFailed

COMMAND_LINE_KEYS = (
    "a",
    "a/b",
    "a//b",
    "/leading",
    "trailing/",
    "plus+plus",
    "percent%20literal",
    "a space",
    "question?query=1&b=2",
    "hash#fragment",
    "quote'double\"back`tick",
    "<xml>&amp;</xml>",
    "größe",
    "日本語/キー",
    "emoji-🧊",
)
"""One program start per call is slow, so a selection of the hostile keys."""


def test_object_operations(aws: Any, bucket: str, tmp_path: Path) -> None:
    """put-object, head-object, get-object with a range, copy-object and delete-object."""
    source, target = tmp_path / "up", tmp_path / "down"
    source.write_bytes(b"0123456789")
    where = ("--bucket", bucket, "--key")
    put = aws.s3api(
        "put-object", *where, "object", "--body", source, "--metadata", "color=blue", "--content-type", "x/y"
    )
    assert put["ETag"] == f'"{hashlib.md5(b"0123456789").hexdigest()}"'
    head = aws.s3api("head-object", *where, "object")
    assert (head["ContentLength"], head["ContentType"], head["Metadata"]) == (10, "x/y", {"color": "blue"})
    part = aws.s3api("get-object", *where, "object", "--range", "bytes=2-4", target)
    assert (part["ContentRange"], target.read_bytes()) == ("bytes 2-4/10", b"234")
    aws.s3api("copy-object", *where, "copy", "--copy-source", f"{bucket}/object")
    aws.s3api("delete-object", *where, "object")
    listed = aws.s3api("list-objects-v2", "--bucket", bucket)
    assert [entry["Key"] for entry in listed["Contents"]] == ["copy"]


@pytest.mark.same_over_https
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums(aws: Any, bucket: str, tmp_path: Path, algorithm: str) -> None:
    """--checksum-algorithm sends a checksum (a trailer over https) and reads verify it."""
    source, target = tmp_path / "up", tmp_path / "down"
    source.write_bytes(b"checked" * 50_000)
    where = ("--bucket", bucket, "--key", "object")
    put = aws.s3api("put-object", *where, "--body", source, "--checksum-algorithm", algorithm)
    got = aws.s3api("get-object", *where, "--checksum-mode", "ENABLED", target)
    assert put[f"Checksum{algorithm}"] == got[f"Checksum{algorithm}"]
    assert target.read_bytes() == source.read_bytes()


def test_multipart_by_hand(aws: Any, bucket: str, tmp_path: Path) -> None:
    """create, upload two parts, list, complete, abort of another."""
    where = ("--bucket", bucket, "--key", "object")
    upload_id = aws.s3api("create-multipart-upload", *where)["UploadId"]
    parts = []
    for number, size in ((1, 5 * MIB), (2, 17)):
        body = tmp_path / f"part-{number}"
        body.write_bytes(bytes([number]) * size)
        sent = aws.s3api("upload-part", *where, "--upload-id", upload_id, "--part-number", number, "--body", body)
        parts.append(f"{{PartNumber={number},ETag={sent['ETag']}}}")
    listed = aws.s3api("list-parts", *where, "--upload-id", upload_id)["Parts"]
    assert [part["Size"] for part in listed] == [5 * MIB, 17]
    structure = f"Parts=[{','.join(parts)}]"
    done = aws.s3api("complete-multipart-upload", *where, "--upload-id", upload_id, "--multipart-upload", structure)
    assert done["ETag"].endswith('-2"')
    other = aws.s3api("create-multipart-upload", *where)["UploadId"]
    aws.s3api("abort-multipart-upload", *where, "--upload-id", other)
    assert not (aws.s3api("list-multipart-uploads", "--bucket", bucket) or {}).get("Uploads")
    assert aws.s3api("head-object", *where)["ContentLength"] == 5 * MIB + 17


@pytest.mark.same_over_https
@pytest.mark.timeout(300)
def test_hostile_keys(aws: Any, bucket: str, tmp_path: Path) -> None:
    """Keys with everything a shell and a URL make special are written, listed by pages and read."""
    source, target = tmp_path / "up", tmp_path / "down"
    for name in COMMAND_LINE_KEYS:
        source.write_bytes(hostile_body(name))
        aws.s3api("put-object", "--bucket", bucket, "--key", name, "--body", source)
    listed = aws.s3api("list-objects-v2", "--bucket", bucket, "--page-size", "4")
    expected = sorted(COMMAND_LINE_KEYS, key=lambda name: name.encode())
    assert [entry["Key"] for entry in listed["Contents"]] == expected
    for name in COMMAND_LINE_KEYS:
        aws.s3api("get-object", "--bucket", bucket, "--key", name, target)
        assert target.read_bytes() == hostile_body(name), name


@pytest.mark.same_over_https
def test_errors_reach_the_user(aws: Any, bucket: str, tmp_path: Path) -> None:
    """The code of the error stands in what the user reads."""
    with pytest.raises(ProgramFailed, match="NoSuchKey"):
        aws.s3api("get-object", "--bucket", bucket, "--key", "absent", tmp_path / "down")
    with pytest.raises(ProgramFailed, match="PreconditionFailed"):
        aws.s3("cp", "-", f"s3://{bucket}/once", stdin=b"1")
        aws.s3api("put-object", "--bucket", bucket, "--key", "once", "--if-none-match", "*")
