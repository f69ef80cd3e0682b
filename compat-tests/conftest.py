"""What all client tests share: one `frostbyte up` per scheme, and in the long runs one over PostgreSQL, a bucket per
test, the clients, and the real input.

FROSTBYTE_COMPAT_ENDPOINT points the suite at any running endpoint instead (credentials from
FROSTBYTE_ROOT_ACCESS_KEY_ID and FROSTBYTE_ROOT_SECRET_ACCESS_KEY, the CA of an https one from
FROSTBYTE_COMPAT_CA_FILE).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.clients.certificates import make_certificates
from tests.clients.endpoint import Endpoint
from tests.clients.material import GIB, copy_standard_library, removed_at_end, write_random_file
from tests.clients.programs import explain_missing, find_program
from tests.clients.server import ROOT_ACCESS_KEY_ID, ROOT_SECRET_ACCESS_KEY, running_frostbyte
from tests.probe.engines import POSTGRESQL, running_database

ENDPOINT_VARIABLE = "FROSTBYTE_COMPAT_ENDPOINT"
MUST_RUN_CLIENTS = frozenset({"aws", "s5cmd", "rclone", "s3fs", "fuse", "curl"})
"""These fail instead of skipping where CI is set to true."""

_bucket_numbers = itertools.count(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that uses an endpoint runs over http and, unless it is `same_over_https`, over https; in the long runs
    over both, and over http with its metadata in PostgreSQL; against a given endpoint, over its own scheme.

    With xdist's loadgroup, all tests of one server share a worker."""
    if "endpoint" in metafunc.fixturenames:
        given = os.environ.get(ENDPOINT_VARIABLE, "")
        kinds = [given.partition(":")[0]] if given else ["http", "https", POSTGRESQL]
        is_same = metafunc.definition.get_closest_marker("same_over_https") is not None and not given
        long_kinds = {POSTGRESQL, "https"} if is_same else {POSTGRESQL}
        groups = [
            pytest.param(
                kind,
                marks=[
                    pytest.mark.xdist_group(f"compat-{kind}"),
                    pytest.mark.client,
                    *([pytest.mark.long] if kind in long_kinds else []),
                ],
            )
            for kind in kinds
        ]
        metafunc.parametrize("endpoint", groups, indirect=True, scope="session")


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A ready S3 endpoint; a `frostbyte up` of its own unless one is given by the environment."""
    given = os.environ.get(ENDPOINT_VARIABLE)
    if given:
        ca_file = os.environ.get("FROSTBYTE_COMPAT_CA_FILE")
        yield Endpoint(
            url=given.rstrip("/"),
            access_key_id=os.environ.get("FROSTBYTE_ROOT_ACCESS_KEY_ID", ROOT_ACCESS_KEY_ID),
            secret_access_key=os.environ.get("FROSTBYTE_ROOT_SECRET_ACCESS_KEY", ROOT_SECRET_ACCESS_KEY),
            ca_file=Path(ca_file) if ca_file else None,
        )
        return
    directory = tmp_path_factory.mktemp(f"frostbyte-{request.param}")
    certificates = make_certificates(directory) if request.param == "https" else None
    with ExitStack() as started:
        database = started.enter_context(running_database()) if request.param == POSTGRESQL else None
        yield started.enter_context(running_frostbyte(directory, certificates=certificates, database=database))


@pytest.fixture(scope="session")
def admin(endpoint: Endpoint) -> Any:
    """A boto3 client for preparing and checking; what a test tests goes through its own client."""
    return endpoint.boto3_client()


def require(name: str) -> str:
    """Path of a client's program. Missing: skip with the reason, or fail where CI runs a client that must run."""
    reason = explain_missing(name)
    if reason is None:
        return find_program(name) or name
    if os.environ.get("CI") == "true" and name in MUST_RUN_CLIENTS:
        pytest.fail(f"this client must run in CI: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require_client() -> Callable[[str], str]:
    """`require_client(name)` gives the program's path, skips with the reason, or fails in CI."""
    return require


@pytest.fixture
def new_bucket_name(request: pytest.FixtureRequest, admin: Any) -> Iterator[Callable[[], str]]:
    """Names for buckets that the test makes by itself; whatever exists under them afterwards is removed."""
    client = re.sub(r"[^a-z0-9]+", "-", Path(str(request.path)).parent.name.lower())
    given: list[str] = []

    def choose() -> str:
        given.append(f"{client}-{os.getpid()}-{next(_bucket_numbers)}")
        return given[-1]

    yield choose
    for name in given:
        remove_bucket(admin, name)


@pytest.fixture
def bucket(admin: Any, new_bucket_name: Callable[[], str]) -> str:
    """A new, empty bucket, removed with everything in it after the test."""
    name = new_bucket_name()
    admin.create_bucket(Bucket=name)
    return name


def remove_bucket(admin: Any, name: str) -> None:
    """Delete a bucket with all versions and open uploads, governance or not; one that is gone already is fine."""
    try:
        for page in admin.get_paginator("list_object_versions").paginate(Bucket=name):
            entries = page.get("Versions", []) + page.get("DeleteMarkers", [])
            found = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
            for odd in (one for one in found if not one["Key"].isprintable()):  # XML may not carry it in DeleteObjects
                admin.delete_object(Bucket=name, **odd)
            plain = [one for one in found if one["Key"].isprintable()]
            if plain:
                delete = {"Objects": plain, "Quiet": True}
                admin.delete_objects(Bucket=name, Delete=delete, BypassGovernanceRetention=True)
        for page in admin.get_paginator("list_multipart_uploads").paginate(Bucket=name):
            for upload in page.get("Uploads", []):
                admin.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
        admin.delete_bucket(Bucket=name)
    except admin.exceptions.NoSuchBucket:
        return


@pytest.fixture(scope="session")
def standard_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python standard library's source tree; read only."""
    return copy_standard_library(tmp_path_factory.mktemp("real-input") / "stdlib")


@pytest.fixture(scope="session")
def gibibyte_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """One GiB of random bytes and their SHA-256; read only."""
    for path in removed_at_end(tmp_path_factory.mktemp("large-input") / "one-gibibyte.bin"):
        yield path, write_random_file(path, GIB)


@pytest.fixture
def large_download(tmp_path: Path) -> Iterator[Path]:
    """A path to download a large file to; removed after the test."""
    yield from removed_at_end(tmp_path / "download.bin")
