"""boto3: listings, their pages and delimiters, and the keys that break servers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.clients.material import CONTROL_KEYS, HOSTILE_KEYS, hostile_body

pytestmark = pytest.mark.same_over_https

TREE = ["a", "a/b", "a/c/d", "b/1", "b/2", "b/3", "c", "dir/", "dir/x", "z//y", "z/y"]


def fill(s3: Any, bucket: str, keys: list[str]) -> None:
    """Write one small object under each key, several at a time."""
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(s3.put_object, Bucket=bucket, Key=name, Body=b".") for name in keys]:
            done.result()


def bytewise(keys: list[str]) -> list[str]:
    """The order of S3: by the bytes of UTF-8."""
    return sorted(keys, key=lambda name: name.encode())


def test_order_sizes_and_owner(s3: Any, bucket: str) -> None:
    """Keys come in bytewise order with size and ETag; the owner when asked for."""
    fill(s3, bucket, TREE)
    answer = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)
    assert [entry["Key"] for entry in answer["Contents"]] == bytewise(TREE)
    assert answer["KeyCount"] == len(TREE)
    assert not answer["IsTruncated"]
    assert {entry["Size"] for entry in answer["Contents"]} == {1}
    assert all(entry["Owner"]["ID"] for entry in answer["Contents"])


@pytest.mark.parametrize(
    ("prefix", "objects", "prefixes"),
    [
        ("", ["a", "c"], ["a/", "b/", "dir/", "z/"]),
        ("a", ["a"], ["a/"]),
        ("a/", ["a/b"], ["a/c/"]),
        ("dir/", ["dir/", "dir/x"], []),
        ("z/", ["z/y"], ["z//"]),
        ("nothing", [], []),
    ],
)
def test_delimiter(s3: Any, bucket: str, prefix: str, objects: list[str], prefixes: list[str]) -> None:
    """Keys below a delimiter fold into common prefixes, `a` beside `a/b`, markers listed."""
    fill(s3, bucket, TREE)
    for operation in (s3.list_objects, s3.list_objects_v2):
        answer = operation(Bucket=bucket, Prefix=prefix, Delimiter="/")
        assert [entry["Key"] for entry in answer.get("Contents", [])] == objects
        assert [entry["Prefix"] for entry in answer.get("CommonPrefixes", [])] == prefixes


@pytest.mark.s3_operation("ListObjects", "ListObjectsV2")
@pytest.mark.parametrize("page_size", [1, 2, 3, 7])
@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
def test_pages_repeat_and_miss_nothing(s3: Any, bucket: str, operation: str, page_size: int) -> None:
    """Page after page, with a delimiter, every key and every prefix comes exactly once."""
    fill(s3, bucket, TREE)
    pages = s3.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": page_size})
    seen: list[str] = []
    for page in pages:
        found = [entry["Key"] for entry in page.get("Contents", [])]
        found += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        assert len(found) <= page_size
        seen += found
    assert sorted(seen) == ["a", "a/", "b/", "c", "dir/", "z/"]


def test_start_after_and_max_keys_zero(s3: Any, bucket: str) -> None:
    """StartAfter is exclusive; MaxKeys=0 is an empty page that is not truncated."""
    fill(s3, bucket, ["1", "2", "3"])
    assert [e["Key"] for e in s3.list_objects_v2(Bucket=bucket, StartAfter="1")["Contents"]] == ["2", "3"]
    assert [e["Key"] for e in s3.list_objects(Bucket=bucket, Marker="2")["Contents"]] == ["3"]
    empty = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert ("Contents" in empty, empty["IsTruncated"]) == (False, False)


def test_more_than_a_page(s3: Any, bucket: str) -> None:
    """1,203 objects are two pages of at most 1,000, and DeleteObjects takes a page at once."""
    names = [f"many/{number:05}" for number in range(1203)]
    fill(s3, bucket, names)
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket))
    assert [page["KeyCount"] for page in pages] == [1000, 203]
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == names
    first = [{"Key": name} for name in names[:1000]]
    assert len(s3.delete_objects(Bucket=bucket, Delete={"Objects": first})["Deleted"]) == 1000
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 203


def test_hostile_keys(s3: Any, bucket: str) -> None:
    """Every hostile key is an object of its own: written, listed, read, copied and deleted."""
    for name in HOSTILE_KEYS:
        s3.put_object(Bucket=bucket, Key=name, Body=hostile_body(name))
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert listed == bytewise(list(HOSTILE_KEYS))
    for name in HOSTILE_KEYS:
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == hostile_body(name), name
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": name})
        assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == hostile_body(name), name
    doomed = [{"Key": name} for name in (*HOSTILE_KEYS, "copy")]
    assert "Errors" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": doomed})
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_hostile_keys_page_by_page(s3: Any, bucket: str) -> None:
    """Markers and tokens carry every hostile key: pages of one, by both listing versions."""
    fill(s3, bucket, list(HOSTILE_KEYS))
    for operation in ("list_objects", "list_objects_v2"):
        pages = s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 1})
        listed = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        assert listed == bytewise(list(HOSTILE_KEYS)), operation


def test_control_characters(s3: Any, bucket: str) -> None:
    """Keys that XML 1.0 cannot carry are listed url-encoded and deleted one by one."""
    for name in CONTROL_KEYS:
        s3.put_object(Bucket=bucket, Key=name, Body=hostile_body(name))
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == bytewise(list(CONTROL_KEYS))
    for name in CONTROL_KEYS:
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == hostile_body(name)
        s3.delete_object(Bucket=bucket, Key=name)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_a_key_that_is_too_long(s3: Any, bucket: str) -> None:
    """1,025 bytes are KeyTooLongError."""
    with pytest.raises(s3.exceptions.ClientError) as refused:
        s3.put_object(Bucket=bucket, Key="x" * 1025, Body=b"")
    assert refused.value.response["Error"]["Code"] == "KeyTooLongError"
