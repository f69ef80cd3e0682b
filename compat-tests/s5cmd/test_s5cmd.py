"""s5cmd: mb, cp, sync, ls, mv, rm, cat, pipe, run and du."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.material import file_sha256, hostile_body, relative_files
from tests.clients.programs import run_program

PIPED_KEYS = ("a", "a/b", "plus+plus", "percent%20literal", "a space", "größe", "日本語/キー", "emoji-🧊", "hash#tag")
"""Hostile keys without s5cmd's own wildcards."""


def test_mb_ls_rb(s5cmd: Any, new_bucket_name: Callable[[], str]) -> None:
    """A bucket is made, listed and removed."""
    name = new_bucket_name()
    s5cmd.run("mb", f"s3://{name}")
    assert name.encode() in s5cmd.run("ls")
    s5cmd.run("rb", f"s3://{name}")
    assert name.encode() not in s5cmd.run("ls")


def test_pipe_and_cat(s5cmd: Any, bucket: str) -> None:
    """pipe stores standard input, cat prints it; hostile keys keep their bodies apart."""
    for name in PIPED_KEYS:
        s5cmd.run("pipe", f"s3://{bucket}/{name}", stdin=hostile_body(name))
    for name in PIPED_KEYS:
        assert s5cmd.run("cat", f"s3://{bucket}/{name}") == hostile_body(name), name
    listed = [entry["key"].removeprefix(f"s3://{bucket}/") for entry in s5cmd.listing(f"s3://{bucket}/*")]
    assert sorted(listed) == sorted(PIPED_KEYS)


def test_wildcards_move_and_remove(s5cmd: Any, bucket: str, tmp_path: Path) -> None:
    """Copies inside the bucket, moves and removals by wildcard."""
    for name in ("one.txt", "two.txt", "three.log"):
        (tmp_path / name).write_text(name)
    s5cmd.run("cp", f"{tmp_path}/*.txt", f"s3://{bucket}/texts/")
    s5cmd.run("cp", tmp_path / "three.log", f"s3://{bucket}/three.log")
    s5cmd.run("cp", f"s3://{bucket}/texts/*", f"s3://{bucket}/copies/")
    s5cmd.run("mv", f"s3://{bucket}/three.log", f"s3://{bucket}/moved.log")
    s5cmd.run("rm", f"s3://{bucket}/texts/*")
    listed = [entry["key"].removeprefix(f"s3://{bucket}/") for entry in s5cmd.listing(f"s3://{bucket}/*")]
    assert sorted(listed) == ["copies/one.txt", "copies/two.txt", "moved.log"]
    assert s5cmd.run("cat", f"s3://{bucket}/copies/two.txt") == b"two.txt"


@pytest.mark.same_over_https
def test_many_commands_in_one_run(s5cmd: Any, bucket: str, tmp_path: Path) -> None:
    """`run` takes many commands from a file and does them in parallel."""
    source = tmp_path / "source"
    source.write_text("x" * 100)
    commands = tmp_path / "commands"
    commands.write_text("".join(f"cp {source} s3://{bucket}/run/{number:03}\n" for number in range(200)))
    s5cmd.run("run", commands)
    assert len(s5cmd.listing(f"s3://{bucket}/run/*")) == 200
    assert s5cmd.run("du", f"s3://{bucket}/run/*").split()[0] == b"20000"


@pytest.mark.same_over_https
@pytest.mark.parametrize("part", ["encodings", pytest.param(".", marks=pytest.mark.long)])
def test_the_standard_library_up_and_down(
    s5cmd: Any, bucket: str, standard_library: Path, tmp_path: Path, part: str
) -> None:
    """sync up and down without a difference; a second sync moves nothing; rm empties the bucket."""
    tree, target = standard_library / part, tmp_path / "stdlib"
    s5cmd.run("sync", f"{tree}/", f"s3://{bucket}/lib/")
    assert s5cmd.run("sync", f"{tree}/", f"s3://{bucket}/lib/") == b""
    s5cmd.run("sync", f"s3://{bucket}/lib/*", f"{target}/")
    run_program(["diff", "-r", tree, target])
    assert len(s5cmd.listing(f"s3://{bucket}/lib/*")) == len(relative_files(tree))
    s5cmd.run("rm", f"s3://{bucket}/*")
    s5cmd.run("ls", f"s3://{bucket}/*", statuses=(1,))


@pytest.mark.same_over_https
def test_a_gibibyte(s5cmd: Any, bucket: str, gibibyte_file: tuple[Path, str], large_download: Path) -> None:
    """1 GiB in parallel parts up, and in parallel ranges down, with the same SHA-256."""
    path, expected = gibibyte_file
    s5cmd.run("cp", path, f"s3://{bucket}/gibibyte")
    s5cmd.run("cp", f"s3://{bucket}/gibibyte", large_download)
    assert file_sha256(large_download) == expected


def test_what_is_missing_fails(s5cmd: Any, bucket: str) -> None:
    """A key that is not there ends with an error, as scripts rely on."""
    s5cmd.run("cat", f"s3://{bucket}/absent", statuses=(1,))
