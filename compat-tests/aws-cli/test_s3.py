"""aws s3: mb, cp, mv, ls, rm, rb, sync and presign as a user types them."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.endpoint import Endpoint
from tests.clients.material import MIB, file_sha256, write_random_file
from tests.clients.programs import run_program


@pytest.mark.same_over_https
def test_mb_ls_rb(aws: Any, new_bucket_name: Callable[[], str]) -> None:
    """A bucket is made, listed, refused while full, and removed by force."""
    name = new_bucket_name()
    assert f"make_bucket: {name}" in aws.s3("mb", f"s3://{name}")
    assert name in aws.s3("ls")
    aws.s3("cp", "-", f"s3://{name}/object", stdin=b"content")
    aws.s3("rb", f"s3://{name}", statuses=(1,))
    aws.s3("rb", f"s3://{name}", "--force")
    assert name not in aws.s3("ls")


def test_cp_through_pipes(aws: Any, bucket: str) -> None:
    """A pipe up and a pipe down, also of nothing at all."""
    for body in (b"", b"through a pipe\n" * 100):
        aws.s3("cp", "-", f"s3://{bucket}/piped", stdin=body)
        assert aws.s3_bytes("cp", f"s3://{bucket}/piped", "-") == body


def test_cp_of_a_file_in_parts(aws: Any, bucket: str, tmp_path: Path) -> None:
    """40 MiB go up in parts and come down as they were, also after a copy between keys."""
    source, target = tmp_path / "up.bin", tmp_path / "down.bin"
    expected = write_random_file(source, 40 * MIB)
    aws.s3("cp", source, f"s3://{bucket}/one")
    aws.s3("cp", f"s3://{bucket}/one", f"s3://{bucket}/two")
    aws.s3("cp", f"s3://{bucket}/two", target)
    assert file_sha256(target) == expected
    source.unlink()
    target.unlink()


@pytest.mark.same_over_https
def test_mv_both_ways(aws: Any, bucket: str, tmp_path: Path) -> None:
    """mv leaves nothing behind, from disk to bucket, inside the bucket, and back."""
    here, back = tmp_path / "here.txt", tmp_path / "back.txt"
    here.write_text("moved")
    aws.s3("mv", here, f"s3://{bucket}/there.txt")
    assert not here.exists()
    aws.s3("mv", f"s3://{bucket}/there.txt", f"s3://{bucket}/dir/elsewhere.txt")
    assert "there.txt" not in aws.s3("ls", f"s3://{bucket}/").split()
    aws.s3("mv", f"s3://{bucket}/dir/elsewhere.txt", back)
    assert back.read_text() == "moved"
    assert aws.s3("ls", f"s3://{bucket}", "--recursive") == ""


@pytest.mark.same_over_https
def test_ls_shows_prefixes_and_totals(aws: Any, bucket: str) -> None:
    """ls folds directories, --recursive does not, --summarize adds up."""
    for name in ("top.txt", "dir/one.txt", "dir/deep/two.txt"):
        aws.s3("cp", "-", f"s3://{bucket}/{name}", stdin=b"12345")
    lines = aws.s3("ls", f"s3://{bucket}/").splitlines()
    assert [line.split()[-1] for line in lines] == ["dir/", "top.txt"]
    summary = aws.s3("ls", f"s3://{bucket}", "--recursive", "--summarize")
    assert "Total Objects: 3" in summary
    assert "Total Size: 15" in summary


@pytest.mark.same_over_https
def test_rm_with_filters(aws: Any, bucket: str) -> None:
    """rm --recursive with exclude and include removes what it names and nothing else."""
    for name in ("keep.py", "drop.txt", "dir/keep.py", "dir/drop.txt"):
        aws.s3("cp", "-", f"s3://{bucket}/{name}", stdin=b".")
    aws.s3("rm", f"s3://{bucket}", "--recursive", "--exclude", "*", "--include", "*.txt")
    listed = aws.s3("ls", f"s3://{bucket}", "--recursive")
    assert [line.split()[-1] for line in listed.splitlines()] == ["dir/keep.py", "keep.py"]


@pytest.mark.same_over_https
@pytest.mark.parametrize("object_key", ["with space.txt", "pl+us.txt", "größe.txt", "a//b.txt", "percent%20.txt"])
def test_presign(aws: Any, endpoint: Endpoint, bucket: str, object_key: str) -> None:
    """A URL from presign is read by a program that knows nothing of S3."""
    aws.s3("cp", "-", f"s3://{bucket}/{object_key}", stdin=b"presigned")
    url = aws.s3("presign", f"s3://{bucket}/{object_key}", "--expires-in", "60").strip()
    with urllib.request.urlopen(url, context=endpoint.ssl_context()) as answer:
        assert answer.read() == b"presigned"


def test_presign_with_sigv2_is_explained(unconfigured_aws: Any, endpoint: Endpoint, bucket: str) -> None:
    """The old signature that version 1 presigns with by itself is refused with the name of the one to use."""
    url = unconfigured_aws.s3("presign", f"s3://{bucket}/object").strip()
    if "X-Amz-Algorithm" in url:
        pytest.skip("this aws-cli presigns with SigV4 by itself")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, context=endpoint.ssl_context())
    assert refused.value.code == 400
    assert b"AWS4-HMAC-SHA256" in refused.value.read()


@pytest.mark.same_over_https
@pytest.mark.parametrize("part", ["email", pytest.param(".", marks=pytest.mark.long)])
def test_the_standard_library_up_and_down(
    aws: Any, bucket: str, standard_library: Path, tmp_path: Path, part: str
) -> None:
    """sync up, sync down, no difference; a second sync moves nothing; --delete removes what is gone."""
    tree, target = standard_library / part, tmp_path / "stdlib"
    folder = f"lib/{Path('email/mime').relative_to(part)}"
    aws.s3("sync", tree, f"s3://{bucket}/lib", "--only-show-errors")
    assert aws.s3("sync", tree, f"s3://{bucket}/lib", "--size-only") == ""
    aws.s3("sync", f"s3://{bucket}/lib", target, "--only-show-errors")
    run_program(["diff", "-r", tree, target])
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "file.txt").write_text("only this")
    aws.s3("sync", tmp_path / "only", f"s3://{bucket}/{folder}", "--delete", "--only-show-errors")
    listed = aws.s3("ls", f"s3://{bucket}/{folder}/", "--recursive")
    assert [line.split()[-1] for line in listed.splitlines()] == [f"{folder}/file.txt"]


@pytest.mark.long
def test_a_gibibyte(aws: Any, bucket: str, gibibyte_file: tuple[Path, str], large_download: Path) -> None:
    """1 GiB by the command line's own multipart, up and down, with the same SHA-256."""
    path, expected = gibibyte_file
    aws.s3("cp", path, f"s3://{bucket}/gibibyte", "--only-show-errors")
    aws.s3("cp", f"s3://{bucket}/gibibyte", large_download, "--only-show-errors")
    assert file_sha256(large_download) == expected
