"""docs/s3-compatibility.md is what the router and the client tests say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from s3gw.protocol.operations import Operation
from tests.clients.operations_table import (
    CLIENT_TESTS,
    NOT_OFFERED,
    OFFERED,
    PAGE,
    WORKS,
    _read_markers,
    collect_marked,
    list_rows,
    make_page,
)

SHARED = {
    "GetBucketSetting",
    "DeleteBucketSetting",
    "NotImplemented",
    "MethodNotAllowed",
}


def test_the_page_is_up_to_date() -> None:
    """Run `python -m tests.clients.operations_table` when it is not."""
    assert PAGE.read_text() == make_page()


def test_every_operation_has_a_row() -> None:
    """By AWS's name; what several share is told apart."""
    actions = {row.action for row in list_rows({})}
    assert {operation.value for operation in Operation} - SHARED <= actions
    assert not SHARED & actions
    assert {"GetBucketWebsite", "DeleteBucketInventoryConfiguration", "SelectObjectContent"} <= actions


def test_statuses() -> None:
    """A test that says so makes an operation work, but none that is not offered."""
    rows = {row.action: row for row in list_rows({"PutObject": {"a.py", "b.py"}, "SelectObjectContent": {"a.py"}})}
    assert (rows["PutObject"].status, rows["PutObject"].tests) == (WORKS, ("a.py", "b.py"))
    assert rows["GetObject"].status == OFFERED
    assert rows["SelectObjectContent"].status == NOT_OFFERED
    assert rows["CopyObject"].request == "PUT /bucket/key with x-amz-copy-source"


def test_markers_are_read() -> None:
    """On functions, on modules, with one name or several."""
    source = """
import pytest
pytestmark = [pytest.mark.s3_operation("GetObject")]
@pytest.mark.s3_operation("PutObject", "HeadObject")
def test_it(): ...
"""
    assert sorted(_read_markers(ast.parse(source))) == ["GetObject", "HeadObject", "PutObject"]


def test_a_name_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A spelling mistake must not pass for a test."""
    path = CLIENT_TESTS / "boto3" / "test_objects.py"
    assert "PutObject" in collect_marked([path])
    wrong = tmp_path / "test_wrong.py"
    wrong.write_text('import pytest\npytestmark = pytest.mark.s3_operation("PutObjekt")\n')
    with pytest.raises(ValueError, match="PutObjekt"):
        collect_marked([wrong])
