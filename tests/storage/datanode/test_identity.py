"""Identity: made once and durably, never mistaken, and no directory of another cluster is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.files import DiskFiles
from storage.datanode.identity import (
    IDENTITY_FILE,
    Identity,
    WrongDirectory,
    find_failure_domain,
    find_identity,
    mark_format,
    store_identity,
)

CLUSTER, OTHER = "a" * 32, "b" * 32
FILES = DiskFiles()


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    """And found again, by whoever asks for its cluster."""
    assert find_identity(FILES, tmp_path, CLUSTER) is None
    made = store_identity(FILES, tmp_path, CLUSTER)
    assert find_identity(FILES, tmp_path, CLUSTER) == made
    assert find_identity(FILES, tmp_path, CLUSTER, made.node_id) == made
    with pytest.raises(FileExistsError):
        store_identity(FILES, tmp_path, CLUSTER)


def test_an_operator_may_choose_the_id(tmp_path: Path) -> None:
    """So that the node's key can be derived before the first start."""
    assert store_identity(FILES, tmp_path, CLUSTER, "1" * 32) == Identity("1" * 32, CLUSTER)
    with pytest.raises(WrongDirectory, match="belongs to node 1111"):
        find_identity(FILES, tmp_path, CLUSTER, "2" * 32)


def test_a_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    """By name."""
    store_identity(FILES, tmp_path, OTHER)
    with pytest.raises(WrongDirectory, match=f"belongs to cluster {OTHER}, not to {CLUSTER}"):
        find_identity(FILES, tmp_path, CLUSTER)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"{}",
        b"[" * 4000,
        b'{"format_version": 1, "node_id": 5, "cluster_id": 6}',
        b'{"format_version": 1, "node_id": "../x", "cluster_id": "%s"}' % CLUSTER.encode(),
        b" " * 5000,
    ],
)
def test_a_damaged_identity_is_no_new_node(tmp_path: Path, content: bytes) -> None:
    """A node that forgot its name must not take another."""
    (tmp_path / IDENTITY_FILE).write_bytes(content)
    with pytest.raises(WrongDirectory, match="damaged"):
        find_identity(FILES, tmp_path, CLUSTER)


@given(
    st.binary(max_size=300) | st.dictionaries(st.text(max_size=9), st.integers()).map(lambda d: json.dumps(d).encode())
)
def test_any_content_is_an_identity_or_wrong(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Never another exception."""
    directory = tmp_path_factory.mktemp("d")
    (directory / IDENTITY_FILE).write_bytes(content)
    with pytest.raises(WrongDirectory):
        find_identity(FILES, directory, CLUSTER)


def test_a_later_format_is_left_alone(tmp_path: Path) -> None:
    """This program does not know what else it means."""
    document = {"format_version": 3, "node_id": "1" * 32, "cluster_id": CLUSTER}
    (tmp_path / IDENTITY_FILE).write_text(json.dumps(document))
    with pytest.raises(WrongDirectory, match="format 3"):
        find_identity(FILES, tmp_path, CLUSTER)


def test_an_earlier_format_is_read_and_marked(tmp_path: Path) -> None:
    """Once, and nothing else of it changes."""
    identity = Identity("1" * 32, CLUSTER)
    path = tmp_path / IDENTITY_FILE
    path.write_text(json.dumps({"format_version": 1, **identity._asdict()}))
    assert find_identity(FILES, tmp_path, CLUSTER) == identity
    mark_format(FILES, tmp_path, identity)
    marked = path.stat().st_ino
    assert json.loads(path.read_text())["format_version"] == 2
    assert find_identity(FILES, tmp_path, CLUSTER) == identity
    mark_format(FILES, tmp_path, identity)
    assert path.stat().st_ino == marked


def test_the_failure_domain_shows_zone_host_and_disk(tmp_path: Path) -> None:
    """In three levels, whatever the machine is called."""
    device = os.stat(tmp_path).st_dev
    assert find_failure_domain(tmp_path, "rack-1", "host-1") == f"rack-1/host-1/{device}"
    assert find_failure_domain(tmp_path, "rack-1").count("/") == 2
