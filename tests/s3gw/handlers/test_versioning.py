"""Versioning through the socket: states, versions by their ids, markers, null versions, and the listing of them all."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.s3gw.gateway import ALICE, Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

Line = tuple[str, str, bool, bool]
"""key, version id, whether it is a marker, whether it is the latest"""


def set_state(s3: Any, bucket: str, status: str) -> None:
    """Enabled or Suspended."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def put(s3: Any, bucket: str, name: str, body: bytes = b"x") -> str:
    """The version id of a new object; `` where none was told."""
    return str(s3.put_object(Bucket=bucket, Key=name, Body=body).get("VersionId", ""))


def read(s3: Any, bucket: str, name: str, **version: str) -> bytes:
    """A whole object."""
    body: bytes = s3.get_object(Bucket=bucket, Key=name, **version)["Body"].read()
    return body


def lines_of(page: dict[str, Any]) -> list[Line]:
    """What a page lists, the versions before the markers, as boto3 gives them."""
    return [
        (one["Key"], one["VersionId"], kind == "DeleteMarkers", one["IsLatest"])
        for kind in ("Versions", "DeleteMarkers")
        for one in page.get(kind, [])
    ]


def list_all(s3: Any, bucket: str, **arguments: Any) -> list[Line]:
    """Everything, page after page."""
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, **arguments)
    return [line for page in pages for line in lines_of(page)]


def test_states(s3: Any, bucket: str) -> None:
    """None, then whatever was put last."""
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    for status in ("Suspended", "Enabled", "Enabled", "Suspended"):
        set_state(s3, bucket, status)
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedXML"),
        (b"<VersioningConfiguration/>", "IllegalVersioningConfigurationException"),
        (b"<VersioningConfiguration><Status>On</Status></VersioningConfiguration>", "MalformedXML"),
    ],
)
def test_states_that_are_none(gateway: Gateway, s3: Any, bucket: str, body: bytes, code: str) -> None:
    """Refused, and the bucket stays as it was."""
    assert send(gateway, "PUT", f"/{bucket}?versioning", body).code == code
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)


def test_mfa_delete_is_refused(s3: Any, bucket: str) -> None:
    """With an MFA header or without; nothing is enabled by the way."""
    configuration = {"Status": "Enabled", "MFADelete": "Enabled"}
    for mfa in ({}, {"MFA": "arn:aws:iam::123456789012:mfa/x 123456"}):
        refused = refusal(s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=configuration, **mfa)
        assert (refused.code, refused.status) == ("NotImplemented", 501)
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)


def test_versions_are_read_by_their_ids(s3: Any, bucket: str) -> None:
    """The current one without; GET, HEAD and tags of each."""
    set_state(s3, bucket, "Enabled")
    ids = [
        s3.put_object(Bucket=bucket, Key="k", Body=body, Tagging=f"n={number}")["VersionId"]
        for number, body in enumerate((b"one", b"two!"))
    ]
    assert read(s3, bucket, "k") == b"two!"
    for number, version_id in enumerate(ids):
        assert read(s3, bucket, "k", VersionId=version_id) == (b"one", b"two!")[number]
        head = s3.head_object(Bucket=bucket, Key="k", VersionId=version_id)
        assert (head["VersionId"], head["ContentLength"]) == (version_id, 3 + number)
        tags = s3.get_object_tagging(Bucket=bucket, Key="k", VersionId=version_id)
        assert tags["TagSet"] == [{"Key": "n", "Value": str(number)}]


def test_a_marker_hides_and_its_removal_shows_again(s3: Any, bucket: str) -> None:
    """404 with the marker's id while it is current; then what was there before."""
    set_state(s3, bucket, "Enabled")
    version_id = put(s3, bucket, "k", b"still here")
    marked = s3.delete_object(Bucket=bucket, Key="k")
    assert marked["DeleteMarker"] is True
    for action in (s3.get_object, s3.head_object):
        refused = refusal(action, Bucket=bucket, Key="k")
        assert refused.status == 404
        assert refused.headers["x-amz-delete-marker"] == "true"
        assert refused.headers["x-amz-version-id"] == marked["VersionId"]
    assert read(s3, bucket, "k", VersionId=version_id) == b"still here"
    removed = s3.delete_object(Bucket=bucket, Key="k", VersionId=marked["VersionId"])
    assert (removed["DeleteMarker"], removed["VersionId"]) == (True, marked["VersionId"])
    assert read(s3, bucket, "k") == b"still here"


def test_a_marker_is_no_object(s3: Any, bucket: str) -> None:
    """405 with Last-Modified and what is allowed, when it is asked for by its id."""
    set_state(s3, bucket, "Enabled")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    for action in (s3.get_object, s3.head_object):
        refused = refusal(action, Bucket=bucket, Key="k", VersionId=marker)
        assert refused.status == 405
        assert (refused.headers["allow"], refused.headers["x-amz-delete-marker"]) == ("DELETE", "true")
        assert refused.headers["last-modified"].endswith("GMT")
    source = {"Bucket": bucket, "Key": "k", "VersionId": marker}
    assert refusal(s3.copy_object, Bucket=bucket, Key="c", CopySource=source).code == "InvalidRequest"


def test_a_key_that_never_was(s3: Any, bucket: str) -> None:
    """404, and no marker is to blame."""
    refused = refusal(s3.head_object, Bucket=bucket, Key="none")
    assert (refused.status, refused.headers["x-amz-delete-marker"]) == (404, "false")


def test_version_ids_that_are_none(s3: Any, bucket: str) -> None:
    """One of this form is NoSuchVersion, anything else InvalidArgument."""
    set_state(s3, bucket, "Enabled")
    put(s3, bucket, "k")
    assert refusal(s3.get_object, Bucket=bucket, Key="k", VersionId="0" * 32).code == "NoSuchVersion"
    assert refusal(s3.get_object, Bucket=bucket, Key="k", VersionId="x").code == "InvalidArgument"
    assert refusal(s3.delete_object, Bucket=bucket, Key="k", VersionId="x").code == "InvalidArgument"
    assert s3.delete_object(Bucket=bucket, Key="k", VersionId="0" * 32)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert read(s3, bucket, "k") == b"x"


def test_null_versions(s3: Any, bucket: str) -> None:
    """What was there before stays as null; a suspended bucket replaces just that, and nothing else."""
    put(s3, bucket, "k", b"before")
    set_state(s3, bucket, "Enabled")
    version_id = put(s3, bucket, "k", b"versioned")
    assert read(s3, bucket, "k", VersionId="null") == b"before"
    set_state(s3, bucket, "Suspended")
    assert put(s3, bucket, "k", b"suspended") == ""
    assert s3.head_object(Bucket=bucket, Key="k")["VersionId"] == "null"
    assert list_all(s3, bucket) == [("k", "null", False, True), ("k", version_id, False, False)]
    marked = s3.delete_object(Bucket=bucket, Key="k")
    assert (marked["DeleteMarker"], marked["VersionId"]) == (True, "null")
    assert sorted(list_all(s3, bucket)) == sorted([("k", version_id, False, False), ("k", "null", True, True)])
    s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    assert read(s3, bucket, "k") == b"versioned"


def test_an_older_version_copied_onto_its_key_is_current_again(s3: Any, bucket: str) -> None:
    """As a new version; the old one stays where it was."""
    set_state(s3, bucket, "Enabled")
    old = put(s3, bucket, "k", b"old")
    put(s3, bucket, "k", b"new")
    answer = s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k", "VersionId": old})
    assert answer["CopySourceVersionId"] == old != answer["VersionId"]
    assert read(s3, bucket, "k") == b"old"
    assert len(list_all(s3, bucket)) == 3


def test_a_part_copied_from_a_version(s3: Any, bucket: str) -> None:
    """The version that was named, not the current one."""
    set_state(s3, bucket, "Enabled")
    old = put(s3, bucket, "k", b"old")
    put(s3, bucket, "k", b"new")
    upload = {"Bucket": bucket, "Key": "m"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    source = {"Bucket": bucket, "Key": "k", "VersionId": old}
    part = s3.upload_part_copy(**upload, PartNumber=1, CopySource=source)
    assert part["CopySourceVersionId"] == old
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]}
    done = s3.complete_multipart_upload(**upload, MultipartUpload=parts)
    assert read(s3, bucket, "m", VersionId=done["VersionId"]) == b"old"


def test_a_bucket_with_versions_is_not_empty(s3: Any, bucket: str) -> None:
    """Markers count as well."""
    set_state(s3, bucket, "Enabled")
    s3.delete_object(Bucket=bucket, Key="k")
    assert refusal(s3.delete_bucket, Bucket=bucket).code == "BucketNotEmpty"
    (marker,) = list_all(s3, bucket)
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker[1])
    s3.delete_bucket(Bucket=bucket)


# ------------------------------------------------------------------ the listing


@pytest.fixture(scope="module")
def stacked(s3: Any) -> tuple[str, list[Line]]:
    """A bucket of many versions and markers, and its lines in the order of a listing."""
    bucket = "stacked"
    s3.create_bucket(Bucket=bucket)
    put(s3, bucket, "a")
    set_state(s3, bucket, "Enabled")
    stacks: dict[str, list[tuple[str, bool]]] = {"a": [("null", False)]}
    for name, count in (("a", 2), ("a/b", 3), ("dir/1", 2), ("dir/2", 1), ("e +é", 2), ("z", 1)):
        stack = stacks.setdefault(name, [])
        stack += [(put(s3, bucket, name), False) for _ in range(count)]
        if name in ("a/b", "dir/2", "z"):
            stack.append((s3.delete_object(Bucket=bucket, Key=name)["VersionId"], True))
    lines = [
        (name, version_id, is_marker, number == 0)
        for name in sorted(stacks, key=str.encode)
        for number, (version_id, is_marker) in enumerate(reversed(stacks[name]))
    ]
    return bucket, lines


def in_pages_order(lines: list[Line]) -> list[Line]:
    """The versions before the markers, as boto3 shows a single page."""
    return sorted(lines, key=lambda line: line[2])


def test_everything_in_one_page(s3: Any, stacked: tuple[str, list[Line]]) -> None:
    """By key, the newest first, one latest a key; with owner, size and ETag."""
    bucket, lines = stacked
    page = s3.list_object_versions(Bucket=bucket)
    assert lines_of(page) == in_pages_order(lines)
    assert page["IsTruncated"] is False and "NextKeyMarker" not in page
    owner = {"ID": ALICE.canonical_id, "DisplayName": "Alice"}
    assert all(one["Owner"] == owner for one in page["Versions"] + page["DeleteMarkers"])
    assert {(one["Size"], one["StorageClass"], one["ETag"]) for one in page["Versions"]} == {
        (1, "STANDARD", '"9dd4e461268c8034f5c8564e155c67a6"')
    }


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pages_of_every_size(s3: Any, stacked: tuple[str, list[Line]], size: int) -> None:
    """Every line once, whatever the pages cut in two."""
    bucket, lines = stacked
    found: list[Line] = []
    marker: dict[str, str] = {}
    for _ in range(len(lines) + 1):
        page = s3.list_object_versions(Bucket=bucket, MaxKeys=size, **marker)
        assert len(lines_of(page)) <= size
        found += lines_of(page)
        if not page["IsTruncated"]:
            break
        marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
    assert sorted(found) == sorted(lines)
    if size == 1:
        assert found == lines


@pytest.mark.parametrize("size", [1, 2, 100])
def test_rolled_up(s3: Any, stacked: tuple[str, list[Line]], size: int) -> None:
    """Common prefixes count as one line each and stand once over all pages."""
    bucket, lines = stacked
    prefixes: list[str] = []
    found: list[Line] = []
    paginator = s3.get_paginator("list_object_versions")
    for page in paginator.paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": size}):
        prefixes += [one["Prefix"] for one in page.get("CommonPrefixes", [])]
        found += lines_of(page)
    assert prefixes == ["a/", "dir/"]
    assert sorted(found) == sorted(line for line in lines if "/" not in line[0])


def test_a_prefix(s3: Any, stacked: tuple[str, list[Line]]) -> None:
    """Only what begins with it, with and without a delimiter."""
    bucket, lines = stacked
    wanted = [line for line in lines if line[0].startswith("dir/")]
    assert list_all(s3, bucket, Prefix="dir/") == in_pages_order(wanted)
    assert list_all(s3, bucket, Prefix="dir/", Delimiter="/") == in_pages_order(wanted)
    assert list_all(s3, bucket, Prefix="nothing") == []


def test_a_key_marker_alone(s3: Any, stacked: tuple[str, list[Line]]) -> None:
    """Goes on behind all versions of that key."""
    bucket, lines = stacked
    page = s3.list_object_versions(Bucket=bucket, KeyMarker="dir/1")
    assert lines_of(page) == in_pages_order([line for line in lines if line[0].encode() > b"dir/1"])


def test_no_line_at_all(s3: Any, stacked: tuple[str, list[Line]]) -> None:
    """max-keys=0 is an empty page and no truncated one."""
    page = s3.list_object_versions(Bucket=stacked[0], MaxKeys=0)
    assert (lines_of(page), page["IsTruncated"], page["MaxKeys"]) == ([], False, 0)


def test_names_are_url_encoded_on_demand(gateway: Gateway, stacked: tuple[str, list[Line]]) -> None:
    """A plus and a blank stay apart, and the client hears which encoding it was."""
    answer = send(gateway, "GET", f"/{stacked[0]}?versions&encoding-type=url&prefix=e%20")
    assert b"<EncodingType>url</EncodingType>" in answer.body
    assert answer.body.count(b"<Key>e%20%2B%C3%A9</Key>") == 2


@pytest.mark.parametrize("query", ["version-id-marker=null", "key-marker=a&version-id-marker=x", "max-keys=-1"])
def test_pages_that_are_none(gateway: Gateway, stacked: tuple[str, list[Line]], query: str) -> None:
    """InvalidArgument."""
    answer = send(gateway, "GET", f"/{stacked[0]}?versions&{query}")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_versions_of_a_bucket_that_was_never_versioned(s3: Any, bucket: str) -> None:
    """Each object is its null version."""
    put(s3, bucket, "k")
    assert list_all(s3, bucket) == [("k", "null", False, True)]


def test_a_bucket_is_emptied_by_its_listing(s3: Any, bucket: str) -> None:
    """What clean-up scripts do."""
    set_state(s3, bucket, "Enabled")
    for name, _ in itertools.product("abc", range(2)):
        put(s3, bucket, name)
    s3.delete_object(Bucket=bucket, Key="a")
    targets = [{"Key": name, "VersionId": version_id} for name, version_id, _, _ in list_all(s3, bucket)]
    assert len(targets) == 7
    assert "Errors" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": targets})
    s3.delete_bucket(Bucket=bucket)
