"""The table "S3 operation × status" of docs/s3-compatibility.md, made from the router and from the client tests.

    python -m tests.clients.operations_table

An operation works when a test of compat-tests reads its effect back and says so, by the marker
`@pytest.mark.s3_operation("PutObjectTagging")`. Tests are read, not run, here; that they pass the test run says.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from s3gw.protocol.operations import Operation
from s3gw.protocol.routing import list_rules

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "s3-compatibility.md"
CLIENT_TESTS = ROOT / "compat-tests"
MARKER = "s3_operation"

WORKS = "works"
OFFERED = "offered; no client test reads its effect back yet"
NOT_CONFIGURED = "answers as where nothing is configured"
NOT_OFFERED = "not offered: 501 NotImplemented"

_SHARED = frozenset({Operation.GET_BUCKET_SETTING, Operation.DELETE_BUCKET_SETTING, Operation.NOT_IMPLEMENTED})
_FIXED = frozenset({Operation.GET_BUCKET_SETTING, Operation.DELETE_BUCKET_SETTING, Operation.GET_OBJECT_TORRENT})
_NAMES = {
    "location": {"GET": "GetBucketLocation"},
    "website": {"GET": "GetBucketWebsite", "PUT": "PutBucketWebsite", "DELETE": "DeleteBucketWebsite"},
    "replication": {"GET": "GetBucketReplication", "PUT": "PutBucketReplication", "DELETE": "DeleteBucketReplication"},
    "logging": {"GET": "GetBucketLogging", "PUT": "PutBucketLogging"},
    "notification": {"GET": "GetBucketNotificationConfiguration", "PUT": "PutBucketNotificationConfiguration"},
    "abac": {"GET": "GetBucketAbac", "PUT": "PutBucketAbac"},
    "metadataConfiguration": {
        "GET": "GetBucketMetadataConfiguration",
        "POST": "CreateBucketMetadataConfiguration",
        "DELETE": "DeleteBucketMetadataConfiguration",
    },
    "metadataTable": {
        "GET": "GetBucketMetadataTableConfiguration",
        "POST": "CreateBucketMetadataTableConfiguration",
        "DELETE": "DeleteBucketMetadataTableConfiguration",
    },
    "metadataInventoryTable": {"PUT": "UpdateBucketMetadataInventoryTableConfiguration"},
    "metadataJournalTable": {"PUT": "UpdateBucketMetadataJournalTableConfiguration"},
    "session": {"GET": "CreateSession"},
    "restore": {"POST": "RestoreObject"},
    "select": {"POST": "SelectObjectContent"},
    "renameObject": {"PUT": "RenameObject"},
    "encryption": {"PUT": "UpdateObjectEncryption"},
} | {
    name: {verb.upper(): f"{verb}Bucket{words}Configuration" for verb in ("Get", "Put", "Delete")}
    for name, words in (
        ("analytics", "Analytics"),
        ("inventory", "Inventory"),
        ("metrics", "Metrics"),
        ("intelligent-tiering", "IntelligentTiering"),
    )
}
"""AWS's names of what several rows of the router share one operation for: sub-resource → method → action"""

_HEAD = """# S3 compatibility

What becomes of each S3 operation here. The table is made from the router and from the client tests by
`python -m tests.clients.operations_table`; a test fails while it is out of date. "works" means that a test with a real
client read the effect back, not only the answer or the configuration echoed. How the conformance suite of Ceph's S3
gateway goes is in [compat-tests/s3-tests/RESULTS.md](../compat-tests/s3-tests/RESULTS.md).

Not in the table: IAM, STS, S3 Control, S3 Tables, S3 Vectors and directory buckets. Requests that name a sub-resource
which AWS does not know are treated as AWS treats them: the parameter is ignored.

## Where the answer is Ceph's and not AWS's
AWS and the conformance suite of Ceph's gateway contradict each other here, and the suite was followed:
- GET or HEAD of a part that is not there: 400 InvalidPart (AWS: 416 InvalidPartNumber).
- A checksum header that is no base64 of a digest: BadDigest (AWS: InvalidRequest; 400 both).
- CompleteMultipartUpload may leave out the checksums of its parts where a composite one was asked for (AWS:
  InvalidRequest).
- A presigned address with a negative X-Amz-Expires: 403, it has expired (AWS: 400).
- GetBucketEncryption where nothing was put: ServerSideEncryptionConfigurationNotFoundError (AWS: AES256). Everything is
  sealed in any case.
- WRITE of an ACL covers tags that come with an upload (AWS: needs s3:PutObjectTagging by a policy).
- GetObjectTorrent: 404 NoSuchKey.

## Operations
"""


class Row(NamedTuple):
    """One operation."""

    action: str
    request: str
    status: str
    tests: tuple[str, ...] = ()


def collect_marked(paths: Sequence[Path]) -> dict[str, set[str]]:
    """Operation → the test files that say they read its effect back. ValueError for an operation that is none."""
    known = {row.action for row in list_rows({})}
    marked: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        for action in _read_markers(ast.parse(path.read_text())):
            if action not in known:
                raise ValueError(f"{path}: {action} is no operation of the router")
            marked[action].add(path.relative_to(CLIENT_TESTS).as_posix())
    return marked


def list_rows(marked: Mapping[str, set[str]]) -> list[Row]:
    """Every operation of the router, by name."""
    requests: dict[str, list[str]] = defaultdict(list)
    operations: dict[str, Operation] = {}
    for place, subresource, method, rule in list_rules():
        if rule.operation is Operation.METHOD_NOT_ALLOWED:
            continue
        action = _NAMES[subresource][method] if rule.operation in _SHARED else rule.operation.value
        operations[action] = rule.operation
        requests[action].append(f"{method} {place}{f'?{subresource}' if subresource else ''}")
    return [
        Row(
            action,
            ", ".join(requests[action]),
            _judge(operations[action], action in marked),
            tuple(sorted(marked.get(action, ()))),
        )
        for action in sorted(operations)
    ]


def render_page(rows: Sequence[Row]) -> str:
    """The whole of docs/s3-compatibility.md."""
    counts = [f"{sum(row.status == status for row in rows)} {status}" for status in (WORKS, OFFERED, NOT_CONFIGURED)]
    counts.append(f"{sum(row.status == NOT_OFFERED for row in rows)} not offered")
    lines = [f"{len(rows)} operations: {'; '.join(counts)}.", "", "| operation | request | status | read back by |"]
    lines.append("|---|---|---|---|")
    lines += [f"| {row.action} | `{row.request}` | {row.status} | {', '.join(row.tests)} |" for row in rows]
    return _HEAD + "\n".join(lines) + "\n"


def make_page() -> str:
    """The page as it should be now."""
    return render_page(list_rows(collect_marked(sorted(CLIENT_TESTS.rglob("test_*.py")))))


def _judge(operation: Operation, is_marked: bool) -> str:
    if operation is Operation.NOT_IMPLEMENTED:
        return NOT_OFFERED
    if is_marked:
        return WORKS
    return NOT_CONFIGURED if operation in _FIXED else OFFERED


def _read_markers(tree: ast.AST) -> Iterator[str]:
    """The arguments of every `….mark.s3_operation(…)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == MARKER:
            for argument in node.args:
                if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                    raise ValueError(f"line {node.lineno}: {MARKER} takes the names of operations")
                yield argument.value


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(make_page())
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} is written\n")
