"""Two gateways over one PostgreSQL, as on two hosts: what one acknowledges the other knows at once, races have exactly
one winner, and a gateway that dies takes nothing along.

The keyring, master key and internal key are one directory that both hosts read: this release has no other way to share
them than to give each host the same files.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.probe.account import Account, verify_account
from tests.probe.gateways import MANY_GATEWAYS, Gateway, Hosts
from tests.probe.load import body_of
from tests.probe.roles import load_json, succeed

PART_BYTES = 5 << 20
ROUNDS = 25
RACERS = 4
"""of each gateway"""

pytestmark = pytest.mark.xdist_group(MANY_GATEWAYS)


def code_of(call: Callable[..., Any], **arguments: Any) -> str:
    """The error's code; empty when there was none."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def race(*calls: Callable[[], str]) -> list[str]:
    """All at once; what each returned, in order."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], str]) -> str:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def test_users_and_buckets_are_known_at_once(hosts: tuple[Hosts, Gateway, Gateway], east: Any, west: Any) -> None:
    """A request that begins after another gateway's answer, or a command's, goes by what that changed."""
    running, one, other = hosts
    for number in range(ROUNDS):
        name = f"coherent-{number}"
        assert code_of(west.head_bucket, Bucket=name) == "404"
        east.create_bucket(Bucket=name)
        west.put_object(Bucket=name, Key="k", Body=b"west")
        assert east.get_object(Bucket=name, Key="k")["Body"].read() == b"west"
        west.delete_object(Bucket=name, Key="k")
        assert code_of(east.get_object, Bucket=name, Key="k") == "NoSuchKey"
        west.delete_bucket(Bucket=name)
        assert code_of(east.put_object, Bucket=name, Key="k", Body=b"") == "NoSuchBucket"

    made = load_json("user", "create", "visitor", "--data", running.data)
    visitors = [gateway.client(made["access_key_id"], made["secret_access_key"]) for gateway in (one, other)]
    for visitor in visitors:
        assert visitor.list_buckets()["Buckets"] == []
    visitors[0].create_bucket(Bucket="visited")
    assert [bucket["Name"] for bucket in visitors[1].list_buckets()["Buckets"]] == ["visited"]
    assert code_of(west.head_bucket, Bucket="visited") in ("", "403")
    visitors[1].delete_bucket(Bucket="visited")
    succeed("user", "delete", "visitor", "--data", running.data)
    for visitor in visitors:
        assert code_of(visitor.list_buckets) == "InvalidAccessKeyId"


def test_a_conditional_put_has_one_winner(east: Any, west: Any) -> None:
    """Of all who create a key through both gateways, and of all who replace what they saw; everybody reads the
    winner's body."""
    east.create_bucket(Bucket="races")
    for number in range(ROUNDS):
        key = f"key-{number}"
        bodies = [f"{number}-{racer}".encode() * (1 if number % 2 else 9000) for racer in range(2 * RACERS)]

        puts = [partial(c.put_object, Bucket="races", Key=key) for c in (east, west)] * RACERS
        codes = race(
            *[partial(code_of, put, Body=body, IfNoneMatch="*") for put, body in zip(puts, bodies, strict=True)]
        )
        assert codes.count("") == 1, codes
        assert set(codes) <= {"", "PreconditionFailed", "ConditionalRequestConflict"}
        seen = [client.get_object(Bucket="races", Key=key) for client in (east, west)]
        assert [answer["Body"].read() for answer in seen] == [bodies[codes.index("")]] * 2

        etag = seen[0]["ETag"]
        codes = race(
            *[partial(code_of, put, Body=b"replaced %d" % racer, IfMatch=etag) for racer, put in enumerate(puts)]
        )
        assert codes.count("") == 1, codes
        winner = b"replaced %d" % codes.index("")
        assert [c.get_object(Bucket="races", Key=key)["Body"].read() for c in (east, west)] == [winner] * 2


def test_a_multipart_upload_goes_through_both(east: Any, west: Any) -> None:
    """Begun on one, its parts on both, listed and completed on the other; a Complete that races another answers the
    same object, and one that races an Abort leaves the whole object or nothing."""
    east.create_bucket(Bucket="parts")
    upload = east.create_multipart_upload(Bucket="parts", Key="big")["UploadId"]
    bodies = [body_of(f"part-{number}", PART_BYTES if number < 3 else 1000) for number in (1, 2, 3)]
    named = {"Bucket": "parts", "Key": "big", "UploadId": upload}
    parts = [
        {"PartNumber": number, "ETag": client.upload_part(**named, PartNumber=number, Body=body)["ETag"]}
        for number, body, client in zip((1, 2, 3), bodies, (east, west, east), strict=True)
    ]
    assert [part["Size"] for part in west.list_parts(**named)["Parts"]] == [len(body) for body in bodies]
    done = {**named, "MultipartUpload": {"Parts": parts}}
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda client: client.complete_multipart_upload(**done)["ETag"], (west, east)))
    assert answers[0] == answers[1]
    for client in (east, west):
        assert client.get_object(Bucket="parts", Key="big")["Body"].read() == b"".join(bodies)
        assert "Uploads" not in client.list_multipart_uploads(Bucket="parts")

    for number in range(5):
        key = f"raced-{number}"
        upload = west.create_multipart_upload(Bucket="parts", Key=key)["UploadId"]
        named = {"Bucket": "parts", "Key": key, "UploadId": upload}
        part = {"PartNumber": 1, "ETag": east.upload_part(**named, PartNumber=1, Body=b"part")["ETag"]}
        completed, aborted = race(
            partial(code_of, east.complete_multipart_upload, **named, MultipartUpload={"Parts": [part]}),
            partial(code_of, west.abort_multipart_upload, **named),
        )
        assert completed in ("", "NoSuchUpload")
        assert aborted in ("", "NoSuchUpload")
        expected = "" if completed == "" else "NoSuchKey"
        assert [code_of(c.get_object, Bucket="parts", Key=key) for c in (east, west)] == [expected] * 2


def test_a_bucket_is_made_once_and_never_deleted_with_something_in_it(east: Any, west: Any) -> None:
    """Create, put and delete race through both gateways; an object that was acknowledged keeps its bucket."""
    for number in range(ROUNDS):
        name = f"contended-{number}"
        codes = race(
            partial(code_of, east.create_bucket, Bucket=name),
            partial(code_of, west.create_bucket, Bucket=name),
        )
        assert "" in codes
        assert set(codes) <= {"", "BucketAlreadyOwnedByYou"}
        put, deleted = race(
            partial(code_of, east.put_object, Bucket=name, Key="k", Body=b"x"),
            partial(code_of, west.delete_bucket, Bucket=name),
        )
        assert (put, deleted) in {("", "BucketNotEmpty"), ("NoSuchBucket", "")}
        for client in (east, west):
            assert code_of(client.head_object, Bucket=name, Key="k") == ("" if put == "" else "404")


def test_a_killed_gateway_loses_nothing(hosts: tuple[Hosts, Gateway, Gateway], east: Any) -> None:
    """kill -9 of a host's gateway, workers and all, while clients write through both: the other goes on, and has
    everything that either had acknowledged. Multipart uploads that the dead one took parts of are completed."""
    running = hosts[0]
    third = running.start_gateway("south")
    south = third.client()
    east.create_bucket(Bucket="killed")
    named = {"Bucket": "killed", "Key": "open", "UploadId": ""}
    named["UploadId"] = south.create_multipart_upload(Bucket="killed", Key="open")["UploadId"]
    part = {"PartNumber": 1, "ETag": south.upload_part(**named, PartNumber=1, Body=body_of("p", 2 << 20))["ETag"]}
    with Account("killed", east, south) as account:
        account.wait_for_more(40)
        for pid in (third.process.pid, *third.workers()):
            os.kill(pid, signal.SIGKILL)
        account.wait_for_more(40)
    assert account.refused
    verify_account(account, "killed", east)
    east.complete_multipart_upload(**named, MultipartUpload={"Parts": [part]})
    assert east.get_object(Bucket="killed", Key="open")["Body"].read() == body_of("p", 2 << 20)
    again = running.start_gateway("south-again")
    verify_account(account, "killed", again.client())
