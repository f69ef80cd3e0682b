"""S3 clients that race through several gateways, each a thread whose operations are recorded one by one.

Bodies are all different, so an ETag names one, and a body that is read must be the one its ETag names.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.linear.checker import Operation

KINDS = (
    "read",
    "head",
    "put",
    "put_absent",
    "put_match",
    "put_match",
    "delete",
    "delete_match",
    "complete",
    "copy",
    "copy",
)
LARGE_BYTES = 20_000
"""beyond what lives in the metadata"""
JOIN_S = 120.0
REFUSALS = {"412": "PreconditionFailed", "404": "NoSuchKey"}
"""what boto3 calls the refusals of requests whose answers have no body"""


class S3Racer:
    """One client of one gateway: operations one after the other."""

    def __init__(self, client: Any, bucket: str, keys: Sequence[str], name: str, kinds: Sequence[str]) -> None:
        self.history: list[Operation] = []
        self.problems: list[str] = []
        self._client = client
        self._bucket = bucket
        self._keys = keys
        self._name = name
        self._kinds = kinds
        self._random = random.Random(name)
        self._last_seen: dict[str, str] = {}

    def run(self, start: threading.Barrier, operations: int) -> None:
        start.wait()
        for number in range(operations):
            object_key, kind = self._random.choice(self._keys), self._random.choice(self._kinds)
            body = f"{self._name}-{number} ".encode()
            if self._random.random() < 0.3:
                body = body.ljust(LARGE_BYTES, b".")
            self._step(object_key, kind, body)

    def _step(self, object_key: str, kind: str, body: bytes) -> None:
        named = {"Bucket": self._bucket, "Key": object_key}
        digest = hashlib.md5(body).hexdigest()
        expected = self._last_seen.get(object_key, "never seen")
        match kind:
            case "read":
                self._record(object_key, "read", lambda: self._read(object_key))
            case "head":
                self._record(object_key, "read", lambda: _etag(self._client.head_object(**named)))
            case "delete":
                self._record(object_key, "delete", lambda: self._client.delete_object(**named) and None)
            case "delete_match":
                matching = {**named, "IfMatch": f'"{expected}"'}
                deleting = self._client.delete_object
                self._record(object_key, kind, lambda: deleting(**matching) and None, expected=expected)
            case "complete":
                self._complete(object_key, body)
            case "copy":
                source = self._random.choice([key for key in self._keys if key != object_key])
                origin = {"Bucket": self._bucket, "Key": source}
                self._record(
                    object_key,
                    "copy",
                    lambda: _etag(self._client.copy_object(**named, CopySource=origin)["CopyObjectResult"]),
                    source=source,
                )
            case _:
                conditions = {"put_absent": {"IfNoneMatch": "*"}, "put_match": {"IfMatch": f'"{expected}"'}}
                put = self._client.put_object
                self._record(
                    object_key,
                    kind,
                    lambda: _etag(put(**named, Body=body, **conditions.get(kind, {}))),
                    etag=digest,
                    content=digest,
                    expected=expected,
                )

    def _read(self, object_key: str) -> str:
        answer = self._client.get_object(Bucket=self._bucket, Key=object_key)
        found, digest = _etag(answer), hashlib.md5(answer["Body"].read()).hexdigest()
        if found not in (digest, _multipart_etag(digest)):
            self.problems.append(f"{object_key}: a body whose MD5 is {digest} under the ETag {found}")
        self._last_seen[object_key] = found
        return found

    def _complete(self, object_key: str, body: bytes) -> None:
        """An upload of one part. Only the completion is an operation on the key."""
        named = {"Bucket": self._bucket, "Key": object_key}
        try:
            named["UploadId"] = self._client.create_multipart_upload(**named)["UploadId"]
            part = self._client.upload_part(**named, PartNumber=1, Body=body)
        except (ClientError, BotoCoreError):
            return
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        digest = hashlib.md5(body).hexdigest()
        self._record(
            object_key,
            "put",
            lambda: _etag(self._client.complete_multipart_upload(**named, MultipartUpload=parts)),
            etag=_multipart_etag(digest),
            content=digest,
        )

    def _record(self, object_key: str, kind: str, call: Callable[[], str | None], **values: Any) -> None:
        start_ns = time.monotonic_ns()
        end_ns: int | None = None
        outcome = "ok"
        try:
            answer = call()
            end_ns = time.monotonic_ns()
            if values.setdefault("etag", answer) != answer:
                self.problems.append(f"{object_key}: {kind} of {values['etag']} answered {answer}")
        except ClientError as error:
            status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
            outcome = REFUSALS.get(code, code)
            if status < 500:
                end_ns = time.monotonic_ns()
            elif status != 503:
                self.problems.append(f"{object_key}: {kind} answered {status} {code}")
        except BotoCoreError as error:
            outcome = type(error).__name__
        if end_ns is None and kind == "read":
            return
        operation = Operation(
            object_key=object_key, kind=kind, start_ns=start_ns, end_ns=end_ns, outcome=outcome, **values
        )
        self.history.append(operation)


def race_through(
    clients: Sequence[Any],
    bucket: str,
    keys: Sequence[str],
    seed: str,
    *,
    racers_each: int,
    operations: int,
    is_versioned: bool,
) -> tuple[list[Operation], list[str]]:
    """All at once. → what they saw, and what no order could excuse."""
    # a marker is not nothing to a conditional delete, and to everybody else it is
    kinds = [kind for kind in KINDS if kind != "delete_match" or not is_versioned]
    racers = [
        S3Racer(client, bucket, keys, f"{seed}.{number}.{racer}", kinds)
        for number, client in enumerate(clients)
        for racer in range(racers_each)
    ]
    start = threading.Barrier(len(racers))
    threads = [threading.Thread(target=racer.run, args=(start, operations), daemon=True) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
        assert not thread.is_alive(), "a request hung"
    return [it for racer in racers for it in racer.history], [it for racer in racers for it in racer.problems]


def _etag(answer: dict[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _multipart_etag(part_digest: str) -> str:
    """Of an upload of one part (AWS: the MD5 of the parts' MD5s, and their number)."""
    return f"{hashlib.md5(bytes.fromhex(part_digest)).hexdigest()}-1"
