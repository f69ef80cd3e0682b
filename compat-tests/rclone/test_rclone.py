"""rclone: sync, check, copyto, moveto, rcat, lsf, deletes, and a mount."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.material import MIB, file_sha256, hostile_body, relative_files, write_random_file
from tests.clients.mounts import mounted
from tests.clients.programs import run_program

PLAIN_KEYS = (
    "a",
    "b/c",
    "plus+plus",
    "percent%20literal",
    "a space",
    "größe",
    "日本語/キー",
    "emoji-🧊",
    "q?&=1",
    "h#t",
)
"""Keys that are also file paths; rclone cannot name the others."""


@pytest.mark.parametrize("part", ["email", pytest.param(".", marks=pytest.mark.long)])
def test_the_standard_library_synced_and_checked(
    rclone: Any, bucket: str, standard_library: Path, tmp_path: Path, part: str
) -> None:
    """sync up, check by hash and by download, sync down without a difference; a second sync moves nothing."""
    tree, remote, target = standard_library / part, f"frost:{bucket}/lib", tmp_path / "stdlib"
    folder = Path("email/mime").relative_to(part)
    rclone.run("sync", tree, remote)
    rclone.run("check", tree, remote)
    rclone.run("check", "--download", tree / folder, f"{remote}/{folder}")
    again = run_program(
        [rclone.program, "sync", tree, remote, "--stats-one-line", "--stats=1h", "-v"], rclone.environment
    )
    assert b"Copied" not in again.stderr
    rclone.run("sync", remote, target)
    run_program(["diff", "-r", tree, target])


def test_sync_deletes_and_updates(rclone: Any, bucket: str, tmp_path: Path) -> None:
    """sync makes the remote equal: changed files replaced, removed ones deleted; times survive."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("kept", "changed", "removed"):
        (source / name).write_text("first")
    rclone.run("sync", source, f"frost:{bucket}")
    (source / "changed").write_text("second")
    (source / "removed").unlink()
    rclone.run("sync", source, f"frost:{bucket}")
    assert rclone.run("lsf", f"frost:{bucket}").split() == ["changed", "kept"]
    assert rclone.run("cat", f"frost:{bucket}/changed") == "second"
    rclone.run("copyto", f"frost:{bucket}/kept", tmp_path / "back")
    assert abs((tmp_path / "back").stat().st_mtime - (source / "kept").stat().st_mtime) < 1e-3


@pytest.mark.same_over_https
def test_streams_and_hostile_names(rclone: Any, bucket: str) -> None:
    """rcat stores a pipe, cat prints it, and lsf lists what was stored."""
    for name in PLAIN_KEYS:
        rclone.run("rcat", f"frost:{bucket}/{name}", stdin=hostile_body(name))
    for name in PLAIN_KEYS:
        assert rclone.run("cat", f"frost:{bucket}/{name}").encode() == hostile_body(name), name
    assert sorted(rclone.run("lsf", "-R", "--files-only", f"frost:{bucket}").splitlines()) == sorted(PLAIN_KEYS)


@pytest.mark.same_over_https
def test_moves_copies_and_purge(rclone: Any, bucket: str, new_bucket_name: Callable[[], str]) -> None:
    """Server-side copy and move between buckets, then purge."""
    other = new_bucket_name()
    rclone.run("mkdir", f"frost:{other}")
    rclone.run("rcat", f"frost:{bucket}/one", stdin=b"one")
    rclone.run("copyto", f"frost:{bucket}/one", f"frost:{other}/dir/copy")
    rclone.run("moveto", f"frost:{bucket}/one", f"frost:{other}/dir/moved")
    assert rclone.run("lsf", f"frost:{bucket}") == ""
    assert sorted(rclone.run("lsf", "-R", f"frost:{other}").split()) == ["dir/", "dir/copy", "dir/moved"]
    assert rclone.run("cat", f"frost:{other}/dir/moved") == "one"
    rclone.run("purge", f"frost:{other}")
    assert f"{other}/" not in rclone.run("lsf", "frost:").split()


def test_a_file_in_parts(rclone: Any, bucket: str, tmp_path: Path) -> None:
    """48 MiB by multipart, checked against rclone's own MD5 and copied inside the bucket in parts."""
    source = tmp_path / "up.bin"
    write_random_file(source, 48 * MIB)
    flags = ("--s3-upload-cutoff", "8Mi", "--s3-chunk-size", "8Mi", "--s3-copy-cutoff", "16Mi")
    rclone.run("copyto", source, f"frost:{bucket}/one", *flags)
    rclone.run("copyto", f"frost:{bucket}/one", f"frost:{bucket}/two", *flags)
    rclone.run("check", "--download", "--one-way", tmp_path, f"frost:{bucket}", "--include", "nothing")
    for name in ("one", "two"):
        target = tmp_path / name
        rclone.run("copyto", f"frost:{bucket}/{name}", target)
        assert file_sha256(target) == file_sha256(source)
        target.unlink()
    source.unlink()


@pytest.mark.long
def test_a_gibibyte(rclone: Any, bucket: str, gibibyte_file: tuple[Path, str], large_download: Path) -> None:
    """1 GiB in parallel parts, and back with the same SHA-256."""
    path, expected = gibibyte_file
    rclone.run("copyto", path, f"frost:{bucket}/gibibyte", "--s3-upload-concurrency", "4")
    rclone.run("copyto", f"frost:{bucket}/gibibyte", large_download)
    assert file_sha256(large_download) == expected


@pytest.mark.same_over_https
def test_mount(
    rclone: Any, require_client: Callable[[str], str], bucket: str, standard_library: Path, tmp_path: Path
) -> None:
    """A mounted bucket takes a real tree, renames and removals, and shows them to a second mount."""
    require_client("fuse")
    where, tree = tmp_path / "mount", standard_library / "email"
    cache = ("--vfs-cache-mode", "writes", "--vfs-write-back", "0s", "--cache-dir", str(tmp_path / "cache"))
    command = [rclone.program, "mount", f"frost:{bucket}", str(where), *cache]
    with mounted(command, where, rclone.environment):
        shutil.copytree(tree, where / "email", copy_function=shutil.copyfile)
        run_program(["diff", "-r", tree, where / "email"])
        (where / "email" / "charset.py").rename(where / "moved.py")
        (where / "email" / "header.py").unlink()
        with (where / "written").open("wb") as file:
            file.write(b"0123456789" * MIB)
    with mounted(command, where, rclone.environment):
        expected = {f"email/{name}" for name in relative_files(tree)} - {"email/charset.py", "email/header.py"}
        assert set(relative_files(where)) == expected | {"moved.py", "written"}
        assert (where / "moved.py").read_bytes() == (tree / "charset.py").read_bytes()
        assert (where / "written").read_bytes() == b"0123456789" * MIB
