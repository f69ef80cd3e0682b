"""The document of DeleteObjects: targets with their conditions, and items that fail alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.delete_list import DeleteList, parse_delete_list
from s3gw.protocol.documents import DeleteOutcome
from s3gw.protocol.errors import S3Error
from storage.metadata.commands import Conditions, DeleteTarget

ID = "0000000000000001" + "ab" * 8


def parse(inner: str) -> DeleteList:
    """The list of a document with these elements."""
    return parse_delete_list(f"<Delete>{inner}</Delete>".encode())


@pytest.mark.parametrize(
    ("inner", "target"),
    [
        ("<Key>k</Key>", DeleteTarget(b"k")),
        ("<Key>k</Key><VersionId></VersionId>", DeleteTarget(b"k")),
        (f"<Key>k</Key><VersionId>{ID}</VersionId>", DeleteTarget(b"k", ID)),
        ("<Key>k</Key><VersionId>null</VersionId>", DeleteTarget(b"k", "null")),
        ('<Key>k</Key><ETag>"e"</ETag>', DeleteTarget(b"k", None, Conditions(if_match="e"))),
        ("<Key>k</Key><Size>0</Size>", DeleteTarget(b"k", None, Conditions(size=0))),
        (
            "<Key>k</Key><LastModifiedTime>Sun, 06 Nov 1994 08:49:37 GMT</LastModifiedTime>",
            DeleteTarget(b"k", None, Conditions(last_modified_s=784111777)),
        ),
        (
            "<Key>k</Key><ETag>*</ETag><Size>5</Size><LastModifiedTime>1994-11-06T08:49:37.5Z</LastModifiedTime>",
            DeleteTarget(b"k", None, Conditions("*", None, 5, 784111777)),
        ),
    ],
)
def test_targets(inner: str, target: DeleteTarget) -> None:
    """Each with the conditions of its own."""
    assert parse(f"<Object>{inner}</Object>") == DeleteList([target], False)


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        (f"<Key>{'k' * 1025}</Key>", "KeyTooLongError"),
        ("<Key>k</Key><VersionId>nonsense</VersionId>", "NoSuchVersion"),
        ("<Key>k</Key><Size>-1</Size>", "InvalidArgument"),
        (f"<Key>k</Key><Size>{'9' * 5000}</Size>", "InvalidArgument"),
        ("<Key>k</Key><LastModifiedTime>yesterday</LastModifiedTime>", "InvalidArgument"),
        ('<Key>k</Key><ETag>"a", "b"</ETag>', "InvalidArgument"),
    ],
)
def test_an_item_that_fails_alone(inner: str, code: str) -> None:
    """The rest of the list goes on."""
    items, _ = parse(f"<Object>{inner}</Object><Object><Key>other</Key></Object>")
    assert isinstance(items[0], DeleteOutcome) and items[0].code == code
    assert items[1] == DeleteTarget(b"other")


@pytest.mark.parametrize(("text", "quiet"), [("true", True), ("TRUE", True), ("false", False), ("", False)])
def test_quiet(text: str, quiet: bool) -> None:
    """Failures only."""
    assert parse(f"<Quiet>{text}</Quiet><Object><Key>k</Key></Object>").quiet is quiet


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"<Delete>{text}</Delete>".encode()))
def test_anything_else_is_malformed(raw: bytes) -> None:
    """S3's own error and no other."""
    with pytest.raises(S3Error, match="MalformedXML"):
        parse_delete_list(raw)
