"""s3fs: a mounted bucket under cp -r, mv, chmod, ln, truncate and rm."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.endpoint import Endpoint
from tests.clients.material import MIB, relative_files
from tests.clients.mounts import mounted
from tests.clients.programs import run_program

Mount = Callable[[], AbstractContextManager[Path]]


@pytest.fixture
def mount(require_client: Callable[[str], str], endpoint: Endpoint, bucket: str, tmp_path: Path) -> Mount:
    """`with mount() as directory:` mounts the bucket; each mount starts with empty caches."""
    program = require_client("s3fs")
    require_client("fuse")
    passwords = tmp_path / "passwd-s3fs"
    passwords.touch(mode=0o600)
    passwords.write_text(f"{endpoint.access_key_id}:{endpoint.secret_access_key}\n")
    where = tmp_path / "mount"
    options = f"url={endpoint.url},use_path_request_style,passwd_file={passwords},multipart_size=5"
    command = [program, bucket, str(where), "-f", "-o", options]
    return lambda: mounted(command, where, endpoint.environment())


def keys_of(admin: Any, bucket: str) -> list[str]:
    """All object keys in the bucket, as the server lists them."""
    pages = admin.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def test_cp_mv_chmod_rm(mount: Mount, admin: Any, bucket: str, standard_library: Path) -> None:
    """A real tree copied in, compared, renamed, its mode changed, and removed; seen again after a new mount."""
    tree = standard_library / "json"
    with mount() as where:
        run_program(["cp", "-r", tree, where / "json"])
        run_program(["diff", "-r", tree, where / "json"])
        run_program(["mv", where / "json", where / "moved"])
        run_program(["chmod", "640", where / "moved" / "decoder.py"])
    assert "moved/" in keys_of(admin, bucket)
    with mount() as where:
        run_program(["diff", "-r", tree, where / "moved"])
        assert relative_files(where) == [f"moved/{name}" for name in relative_files(tree)]
        assert stat.S_IMODE((where / "moved" / "decoder.py").stat().st_mode) == 0o640
        run_program(["rm", "-r", where / "moved"])
        assert os.listdir(where) == []
    assert keys_of(admin, bucket) == []


@pytest.mark.same_over_https
def test_directory_markers(mount: Mount, admin: Any, bucket: str) -> None:
    """mkdir is a zero-byte object with a trailing slash that outlives its children."""
    with mount() as where:
        (where / "dir").mkdir()
        (where / "dir" / "child").write_text("child")
        (where / "dir" / "child").unlink()
        assert (where / "dir").is_dir()
    assert keys_of(admin, bucket) == ["dir/"]
    assert admin.head_object(Bucket=bucket, Key="dir/")["ContentLength"] == 0


def test_writes_in_place(mount: Mount, admin: Any, bucket: str) -> None:
    """Appends, writes in the middle and truncation give the same bytes as on a disk."""
    expected = bytearray(b"0123456789" * (3 * MIB))
    with mount() as where:
        path = where / "file"
        path.write_bytes(expected)
        with path.open("ab") as file:
            file.write(b"appended")
        with path.open("r+b") as file:
            file.seek(17 * MIB)
            file.write(b"in the middle")
    expected += b"appended"
    expected[17 * MIB : 17 * MIB + 13] = b"in the middle"
    assert admin.get_object(Bucket=bucket, Key="file")["Body"].read() == expected
    with mount() as where:
        assert (where / "file").read_bytes() == expected
        with (where / "file").open("r+b") as file:
            file.truncate(1000)
    assert admin.get_object(Bucket=bucket, Key="file")["Body"].read() == expected[:1000]


@pytest.mark.same_over_https
def test_links_times_and_attributes(mount: Mount) -> None:
    """Symbolic links, modification times and names beyond ASCII survive a new mount."""
    with mount() as where:
        (where / "größe 日本 +%").write_text("named")
        (where / "link").symlink_to("größe 日本 +%")
        os.utime(where / "größe 日本 +%", (1_700_000_000, 1_600_000_000))
    with mount() as where:
        assert (where / "link").read_text() == "named"
        assert os.readlink(where / "link") == "größe 日本 +%"
        assert int((where / "größe 日本 +%").stat().st_mtime) == 1_600_000_000


@pytest.mark.same_over_https
def test_what_another_client_wrote(mount: Mount, admin: Any, bucket: str) -> None:
    """Objects without any directory marker show up as files in directories."""
    admin.put_object(Bucket=bucket, Key="implicit/deep/file.txt", Body=b"from elsewhere")
    with mount() as where:
        assert (where / "implicit" / "deep" / "file.txt").read_bytes() == b"from elsewhere"
