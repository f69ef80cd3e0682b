"""What is changed through one gateway holds for the next request at the other, over one database: settings of a bucket,
users, and keys; and what a gateway without the keyring of the others says."""

from __future__ import annotations

import http.client
import json
import shutil
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.probe.gateways import MANY_GATEWAYS, Gateway, Hosts
from tests.probe.roles import load_json, run_command, succeed

ROUNDS = 8
ORIGIN = "https://app.test"

pytestmark = [pytest.mark.xdist_group(MANY_GATEWAYS), pytest.mark.timeout(300)]


def anonymous_status(gateway: Gateway, method: str, path: str, **headers: str) -> int:
    """Of a request without a signature."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


def code_of(call: Any, **arguments: Any) -> str:
    """The error's code; empty when there was none."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def test_a_policy_holds_at_the_other_gateway(hosts: tuple[Hosts, Gateway, Gateway]) -> None:
    """Put through one, an anonymous read is let in by the other; deleted through the other, refused by the first."""
    _, east, west = hosts
    east.client().create_bucket(Bucket="policies")
    east.client().put_object(Bucket="policies", Key="k", Body=b"x")
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::policies/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    for number in range(ROUNDS):
        one, other = (east, west) if number % 2 else (west, east)
        assert anonymous_status(other, "GET", "/policies/k") == 403
        one.client().put_bucket_policy(Bucket="policies", Policy=policy)
        assert anonymous_status(other, "GET", "/policies/k") == 200
        one.client().delete_bucket_policy(Bucket="policies")


def test_cors_holds_at_the_other_gateway(hosts: tuple[Hosts, Gateway, Gateway]) -> None:
    """A preflight is answered by the rules that the other gateway was given."""
    _, east, west = hosts
    east.client().create_bucket(Bucket="cors")
    rules = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": [ORIGIN]}]}
    asked = {"Origin": ORIGIN, "Access_Control_Request_Method": "GET"}
    for number in range(ROUNDS):
        one, other = (east, west) if number % 2 else (west, east)
        assert anonymous_status(other, "OPTIONS", "/cors/k", **asked) == 403
        one.client().put_bucket_cors(Bucket="cors", CORSConfiguration=rules)
        assert anonymous_status(other, "OPTIONS", "/cors/k", **asked) == 200
        one.client().delete_bucket_cors(Bucket="cors")


def test_versioning_holds_at_the_other_gateway(hosts: tuple[Hosts, Gateway, Gateway]) -> None:
    """Enabled through one, the other's next write keeps what it replaces, and its delete makes a marker; suspended,
    the next write is the null version."""
    _, east, west = hosts
    for number in range(ROUNDS):
        one, other = (east.client(), west.client()) if number % 2 else (west.client(), east.client())
        bucket = f"versioning-{number}"
        one.create_bucket(Bucket=bucket)
        other.put_object(Bucket=bucket, Key="k", Body=b"first")
        one.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        version = other.put_object(Bucket=bucket, Key="k", Body=b"second")["VersionId"]
        assert one.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"first"
        other.delete_object(Bucket=bucket, Key="k")
        assert code_of(one.get_object, Bucket=bucket, Key="k") == "NoSuchKey"
        assert one.get_object(Bucket=bucket, Key="k", VersionId=version)["Body"].read() == b"second"
        one.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
        assert other.put_object(Bucket=bucket, Key="k", Body=b"third").get("VersionId", "null") == "null"
        assert code_of(one.get_object, Bucket=bucket, Key="k", VersionId="null") == ""


def test_a_deleted_user_is_gone_at_both(hosts: tuple[Hosts, Gateway, Gateway]) -> None:
    """With the next request, at gateways that both knew it well; so is one that was made by a command known at once."""
    running, east, west = hosts
    for number in range(2):
        made = load_json("user", "create", f"guest-{number}", "--data", running.data)
        guests = [gateway.client(made["access_key_id"], made["secret_access_key"]) for gateway in (east, west)]
        for guest in guests:
            assert code_of(guest.list_buckets) == ""
        succeed("user", "delete", f"guest-{number}", "--data", running.data)
        for guest in guests:
            assert code_of(guest.list_buckets) == "InvalidAccessKeyId"


def test_a_keyring_of_its_own_is_an_error_and_no_wrong_answer(hosts: tuple[Hosts, Gateway, Gateway]) -> None:
    """A gateway without a keyring does not start, and makes none. One with a copy of its own serves what it has the
    keys of; of a bucket that was made since it reads and writes nothing, and says why, to the client and in its log."""
    running, east, _ = hosts
    client = east.client()
    client.create_bucket(Bucket="before-the-copy")
    client.put_object(Bucket="before-the-copy", Key="k", Body=b"shared")

    file, empty = running.root / "stranger.json", running.root / "nothing"
    document = json.loads((running.data / "run" / "gateway.json").read_text())
    file.write_text(json.dumps({**document, "listen": "127.0.0.1:0", "workers": 1, "keyring": str(empty)}))
    refused = run_command("gateway", "--config", file)
    assert refused.returncode == 1
    assert f"{empty} holds no keyring" in refused.stderr
    assert not empty.exists()

    copied = running.root / "copied"
    shutil.copytree(running.data / "keyring", copied)
    apart = running.start_gateway("apart", keyring=str(copied))
    other = apart.client()
    assert other.get_object(Bucket="before-the-copy", Key="k")["Body"].read() == b"shared"
    client.create_bucket(Bucket="after-the-copy")
    client.put_object(Bucket="after-the-copy", Key="k", Body=b"kept")
    for call in (
        lambda: other.get_object(Bucket="after-the-copy", Key="k"),
        lambda: other.put_object(Bucket="after-the-copy", Key="k", Body=b"lost"),
        lambda: other.put_object(Bucket="after-the-copy", Key="large", Body=bytes(300_000)),
    ):
        with pytest.raises(ClientError, match="keyring does not hold the key") as told:
            call()
        assert told.value.response["Error"]["Code"] == "InternalError"
    assert "UnknownKeyId: there is no key bk-" in apart.log.read_text()
    assert client.get_object(Bucket="after-the-copy", Key="k")["Body"].read() == b"kept"
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket="after-the-copy")["Contents"]] == ["k"]
