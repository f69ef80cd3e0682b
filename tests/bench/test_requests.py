"""Presigned requests, held to botocore's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.bench.requests import object_path, presign, presign_all
from tests.clients.endpoint import Endpoint

ENDPOINT = Endpoint("http://127.0.0.1:9000", "ACCESSKEYID", "secret/+=")


@given(st.sampled_from(["GET", "PUT"]), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5))
def test_many_are_signed_as_each_of_them(method: str, object_keys: list[str]) -> None:
    """Where both are of the same second."""
    paths = [object_path("bucket", object_key) for object_key in object_keys]
    while True:
        signed = list(presign_all(ENDPOINT, method, paths))
        expected = [presign(ENDPOINT, method, path) for path in paths]
        if len({words.partition("X-Amz-Date=")[2][:16] for words in (*signed, *expected)}) == 1:
            break
    assert signed == expected


def test_none() -> None:
    """Nothing to sign."""
    assert list(presign_all(ENDPOINT, "GET", [])) == []
