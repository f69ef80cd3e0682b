"""Nothing in the clear: a grep of every file under the data directory, and the proof that the grep would find it."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from s3gw.cli.home import open_keyring, read_cluster_id
from storage.crypto.keys import BlobKey
from tests.probe.conftest import FAST_SWEEP
from tests.probe.server import SECRET_ACCESS_KEY, Server

MARKER = b"the quick brown fox is a trade secret of this test"
SMALL = MARKER * 3
LARGE = MARKER * 200_000


def files_holding(root: Path, needle: bytes) -> list[str]:
    """Every file below a directory that has these bytes in it."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return [str(path.relative_to(root)) for path in files if needle in path.read_bytes()]


def put_the_secret(server: Server) -> None:
    """One inline object, one of several chunks, one part of an open upload."""
    client = server.client()
    client.create_bucket(Bucket="secret")
    client.put_object(Bucket="secret", Key="small", Body=SMALL)
    client.put_object(Bucket="secret", Key="large", Body=LARGE)
    upload = client.create_multipart_upload(Bucket="secret", Key="open")["UploadId"]
    client.upload_part(Bucket="secret", Key="open", UploadId=upload, PartNumber=1, Body=LARGE)
    assert client.get_object(Bucket="secret", Key="large")["Body"].read() == LARGE


def test_no_file_holds_plaintext_or_keys(server: Server) -> None:
    """Neither plaintext nor a data key, a bucket key or a secret access key lies in any file, running or stopped."""
    put_the_secret(server)
    assert files_holding(server.data, MARKER) == []
    server.stop()
    assert files_holding(server.data, MARKER) == []
    assert files_holding(server.data, SECRET_ACCESS_KEY.encode()) == []
    for opened in opened_keys(server.data):
        for form in (opened, opened.hex().encode(), base64.b64encode(opened)):
            assert files_holding(server.data, form) == []


def test_the_same_grep_finds_the_text_when_sealing_is_off(tmp_path: Path) -> None:
    """With the cipher `none`, which needs an environment variable of its own, the grep finds both objects."""
    server = Server(tmp_path / "open", {**FAST_SWEEP, "cipher": "none"}, "--workers", "1")
    server.environment["FROSTBYTE_UNSAFE_NO_SEALING"] = "1"
    server.start()
    try:
        put_the_secret(server)
    finally:
        server.stop()
    found = files_holding(server.data, MARKER)
    assert any(name.startswith("metadata/") for name in found), "the inline object"
    assert any("/chunks/" in name for name in found), "the chunked object"


def test_sealing_cannot_be_switched_off_by_configuration_alone(tmp_path: Path) -> None:
    """Without the environment variable the start is refused."""
    server = Server(tmp_path / "refused", {"cipher": "none"}, "--workers", "1")
    with pytest.raises(AssertionError, match="FROSTBYTE_UNSAFE_NO_SEALING"):
        server.start()
    assert server.stop() != 0


def opened_keys(data: Path) -> list[bytes]:
    """Every bucket key and every data key of the store, opened with its master key."""
    cluster_id = read_cluster_id(data)
    keyring = open_keyring(data, cluster_id, {}, make=False)
    secrets = [keyring.bucket_key(found.key_id, 1) for found in keyring.list_key_files()]
    with closing(sqlite3.connect(data / "metadata" / "metadata.db")) as database:
        wrapped = database.execute(
            "SELECT blob_id, chunk_index, wrapped_key FROM chunks"
            " UNION ALL SELECT blob_id, 0, wrapped_key FROM every_inline_body"
        ).fetchall()
        owners = dict(database.execute("SELECT blob_id, bucket_key_id FROM every_blob").fetchall())
    assert len(wrapped) >= 4, "one inline chunk and at least three on datanodes"
    for blob_id, chunk_index, wrapped_key in wrapped:
        blob_key = BlobKey(keyring.bucket_key(owners[blob_id], 1), bytes.fromhex(cluster_id), blob_id)
        secrets.append(blob_key.unwrap(chunk_index, wrapped_key))
    return secrets
