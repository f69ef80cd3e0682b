"""curl --aws-sigv4: the protocol without any S3 library, as scripts use it.

curl before 8 sends no x-amz-content-sha256 by itself and AWS refuses such a request, so scripts give the header."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.clients.endpoint import REGION, Endpoint
from tests.clients.material import MIB, file_sha256, hostile_body, write_random_file
from tests.clients.programs import run_program

URL_KEYS = ("a", "a/b", "a//b", "trailing/", "größe", "日本語/キー", "emoji-🧊", "tilde~dash-under_dot.")
"""Hostile keys whose percent-encoding every curl signs alike; old ones encode an encoded path a second time."""


class Curl:
    """`curl` with SigV4 against one endpoint."""

    def __init__(self, program: str, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._plain = [program, "--silent", "--show-error", "--max-time", "60"]
        self._signed = [
            *("--aws-sigv4", f"aws:amz:{REGION}:s3"),
            *("--user", f"{endpoint.access_key_id}:{endpoint.secret_access_key}"),
            *("--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"),
        ]

    def run(self, path: str, *words: object, signed: bool = True, stdin: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of one request to `path` (percent-encoded, may have a query)."""
        command = [*self._plain, *(self._signed if signed else []), "--write-out", "\n%{http_code}"]
        command += [*map(str, words), f"{self._endpoint.url}{path}"]
        body, _, status = run_program(command, self._endpoint.environment(), stdin=stdin).stdout.rpartition(b"\n")
        return int(status), body


@pytest.fixture(scope="session")
def curl(endpoint: Endpoint, require_client: Callable[[str], str]) -> Curl:
    """curl, pointed at the endpoint."""
    return Curl(require_client("curl"), endpoint)


def test_a_bucket_and_an_object(curl: Curl, new_bucket_name: Callable[[], str], tmp_path: Path) -> None:
    """Make a bucket, put, head, get, list and delete."""
    name = new_bucket_name()
    assert curl.run(f"/{name}", "-X", "PUT")[0] == 200
    source = tmp_path / "source"
    source.write_bytes(b"by curl")
    assert curl.run(f"/{name}/object", "--upload-file", source) == (200, b"")
    status, headers = curl.run(f"/{name}/object", "--head")
    assert status == 200
    assert f'etag: "{hashlib.md5(b"by curl").hexdigest()}"'.encode() in headers.lower()
    assert curl.run(f"/{name}/object") == (200, b"by curl")
    status, listing = curl.run(f"/{name}?list-type=2")
    assert (status, b"<Key>object</Key>" in listing) == (200, True)
    assert curl.run(f"/{name}/object", "-X", "DELETE")[0] == 204
    status, error = curl.run(f"/{name}/object")
    assert (status, b"<Code>NoSuchKey</Code>" in error) == (404, True)
    assert curl.run(f"/{name}", "-X", "DELETE")[0] == 204


def test_expect_100_continue(curl: Curl, bucket: str, tmp_path: Path) -> None:
    """A large upload waits for 100 Continue and arrives whole."""
    source, target = tmp_path / "up.bin", tmp_path / "down.bin"
    expected = write_random_file(source, 20 * MIB)
    status, trace = curl.run(
        f"/{bucket}/large", "--upload-file", source, "-H", "Expect: 100-continue", "--include", "--http1.1"
    )
    assert status == 200
    assert trace.startswith(b"HTTP/1.1 100")
    assert curl.run(f"/{bucket}/large", "--output", target)[0] == 200
    assert file_sha256(target) == expected


def test_a_refused_upload_is_answered_at_once(curl: Curl, bucket: str, tmp_path: Path) -> None:
    """An anonymous or wrongly addressed upload gets its 4xx before the body is sent."""
    source = tmp_path / "up.bin"
    write_random_file(source, 5 * MIB)
    sent = ("--upload-file", source, "-H", "Expect: 100-continue", "--include", "--http1.1")
    for path, signed, status in ((f"/{bucket}/object", False, 403), ("/no-such-bucket-here/object", True, 404)):
        answer, trace = curl.run(path, *sent, signed=signed)
        assert answer == status
        assert b" 100 " not in trace.split(b"\r\n")[0]


def test_ranges_and_conditions(curl: Curl, bucket: str, tmp_path: Path) -> None:
    """Ranges, If-None-Match and a resumed download."""
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    curl.run(f"/{bucket}/object", "--upload-file", source)
    assert curl.run(f"/{bucket}/object", "--range", "2-5") == (206, b"2345")
    assert curl.run(f"/{bucket}/object", "--range", "-3") == (206, b"789")
    etag = hashlib.md5(b"0123456789").hexdigest()
    assert curl.run(f"/{bucket}/object", "-H", f'If-None-Match: "{etag}"') == (304, b"")
    assert curl.run(f"/{bucket}/object", "-H", 'If-Match: "other"')[0] == 412
    target = tmp_path / "target"
    target.write_bytes(b"0123")
    assert curl.run(f"/{bucket}/object", "--continue-at", "-", "--output", target)[0] == 206
    assert target.read_bytes() == b"0123456789"


def test_hostile_keys(curl: Curl, bucket: str, tmp_path: Path) -> None:
    """Keys that a URL has to escape keep their own bodies."""
    source = tmp_path / "source"
    for name in URL_KEYS:
        source.write_bytes(hostile_body(name))
        # --upload-file would append the file's name to a URL that ends in a slash
        assert curl.run(f"/{bucket}/{quote(name)}", "-X", "PUT", "--data-binary", f"@{source}")[0] == 200, name
    for name in URL_KEYS:
        assert curl.run(f"/{bucket}/{quote(name)}") == (200, hostile_body(name)), name


def test_anonymous_is_refused(curl: Curl, bucket: str) -> None:
    """Without a signature a bucket and what is in it are AccessDenied, with the error as XML; nobody has no buckets."""
    for path in (f"/{bucket}", f"/{bucket}/object"):
        status, error = curl.run(path, signed=False)
        assert (status, b"<Code>AccessDenied</Code>" in error) == (403, True), path
    status, listing = curl.run("/", signed=False)
    assert status == 200 and b"<Bucket>" not in listing


def test_the_health_pages_need_no_signature(curl: Curl) -> None:
    """/-/healthy and /-/ready answer anyone; they are outside the bucket namespace."""
    for path in ("/-/healthy", "/-/ready"):
        assert curl.run(path, signed=False)[0] == 200, path
