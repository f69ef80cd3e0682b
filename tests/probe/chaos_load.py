"""Clients that do everything S3 clients do to keys of their own, and know at every moment what each key may hold.

A request that was answered with success leaves one possible body; one that was answered with 4xx changes nothing; one
that broke or got a 5xx adds what it attempted to what is possible, for good, since it may still be under way somewhere.
A body is known by its SHA-256, so that a mix of two bodies, or a part of one, is none that is possible.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "chaos"
SIZES = (300, 5_000, 20_000, 200_000, 200_000, 3_000_000, 9 << 20)
LARGE_SIZES = (*SIZES, 20 << 20, 64 << 20)
PART_BYTES = 5 << 20
TRIES = 6
RETRY_PAUSE_S = 0.3
JOIN_S = 200.0


class Endpoint(Protocol):
    """Whatever gives boto3 clients of itself."""

    def client(self) -> Any: ...


class Body(NamedTuple):
    """What a key may hold."""

    sha256: bytes
    size: int


class Failed(NamedTuple):
    """A request without success. `certain`: it changed nothing."""

    certain: bool
    code: str


Possible = set[Body | None]
"""None: no object"""


def describe(content: bytes) -> Body:
    """Of a whole body."""
    return Body(hashlib.sha256(content).digest(), len(content))


class ChaosClient:
    """One client with keys that nobody else writes."""

    def __init__(self, server: Endpoint, seed: int, sizes: tuple[int, ...]) -> None:
        self.possible: dict[str, Possible] = {}
        self.violations: list[str] = []
        self.acknowledged = self.failed = 0
        self.in_flight = False
        self._server = server
        self._name = f"client-{seed}"
        self._random = random.Random(seed)
        self._sizes = sizes
        self._count = 0
        self._uncertain: dict[str, Possible] = {}
        self._client: Any = server.client()

    def run(self, stop: threading.Event) -> None:
        """One random operation after another."""
        operations: list[tuple[Callable[[], None], int]] = [
            (self.put_new, 8),
            (self.put_again, 4),
            (self.put_if_absent, 2),
            (self.delete, 4),
            (self.copy, 3),
            (self.read, 6),
            (self.multipart, 2),
        ]
        actions, weights = zip(*operations, strict=True)
        while not stop.is_set():
            self._random.choices(actions, weights)[0]()

    def put_new(self) -> None:
        """A key that never was."""
        self._put(self._new_key(), self._make())

    def put_again(self) -> None:
        """Over whatever is there."""
        self._put(self._known_key(), self._make())

    def put_if_absent(self) -> None:
        """If-None-Match: * must win on a free key and lose on a taken one."""
        object_key = self._known_key()
        before = set(self.possible[object_key])
        failed = self._put(object_key, self._make(), IfNoneMatch="*")
        if failed is None and None not in before:
            self.violations.append(f"{object_key}: a conditional put won over an object")
        if failed is not None and failed.code == "PreconditionFailed" and before == {None}:
            self.violations.append(f"{object_key}: a conditional put lost to nothing")

    def delete(self) -> None:
        """One object; a key without one is deleted all the same."""
        object_key = self._known_key()
        failed = self._call(lambda: self._client.delete_object(Bucket=BUCKET, Key=object_key))
        self._note(object_key, None, failed)

    def copy(self) -> None:
        """Of one key to a new one; while the source is certain, so is the copy."""
        source, target = self._known_key(), self._new_key()
        content = self.possible[source]
        failed = self._call(
            lambda: self._client.copy_object(Bucket=BUCKET, Key=target, CopySource={"Bucket": BUCKET, "Key": source})
        )
        if failed is None:
            self.possible[target] = {body for body in content if body is not None}
        elif not failed.certain:
            self.possible[target] |= content

    def read(self) -> None:
        """A body that ends cleanly is one of the possible ones; an answer of 'not there' is possible too."""
        object_key = self._known_key()
        problem = self.check(object_key, lenient=True)
        if problem is not None:
            self.violations.append(problem)

    def multipart(self) -> None:
        """Parts sent again and again until each was taken, one of them with another body first; completed likewise, or
        aborted."""
        object_key = self._new_key()
        upload: dict[str, Any] = {}
        if self._call(lambda: upload.update(self._client.create_multipart_upload(Bucket=BUCKET, Key=object_key))):
            return
        upload_id = upload["UploadId"]
        contents = [self._make(PART_BYTES), self._make()]
        parts = []
        for number, content in enumerate(contents, 1):
            if self._random.random() < 0.3:
                self._send_part(object_key, upload_id, number, self._make(PART_BYTES))
            etag = self._send_part(object_key, upload_id, number, content)
            if etag is None:
                return
            parts.append({"PartNumber": number, "ETag": etag})
        if self._random.random() < 0.2:
            self._call(lambda: self._client.abort_multipart_upload(Bucket=BUCKET, Key=object_key, UploadId=upload_id))
            return
        self._complete(object_key, upload_id, parts, describe(b"".join(contents)))

    def check(self, object_key: str, *, lenient: bool) -> str | None:
        """What is wrong with what a GET gives; lenient: a request that breaks is nobody's fault."""
        possible = self.possible[object_key]
        got: list[bytes] = []
        failed = self._call(
            lambda: got.append(self._client.get_object(Bucket=BUCKET, Key=object_key)["Body"].read()), counts=False
        )
        if failed is None:
            body = describe(got[0])
            return None if body in possible else f"{object_key}: {body.size} bytes that were never put there"
        if failed.code == "NoSuchKey":
            return None if None in possible else f"{object_key}: an acknowledged object is not there"
        return None if lenient else f"{object_key}: cannot be read: {failed.code}"

    def _complete(self, object_key: str, upload_id: str, parts: list[dict[str, Any]], body: Body) -> None:
        tried_before = False
        for _ in range(TRIES):
            failed = self._call(
                lambda: self._client.complete_multipart_upload(
                    Bucket=BUCKET, Key=object_key, UploadId=upload_id, MultipartUpload={"Parts": parts}
                )
            )
            if failed is not None and failed.code == "NoSuchUpload" and tried_before:
                self.violations.append(f"{object_key}: a retried completion found no upload")
            self._note(object_key, body, failed)
            if failed is None or failed.certain:
                return
            tried_before = True
            time.sleep(RETRY_PAUSE_S)

    def _send_part(self, object_key: str, upload_id: str, number: int, content: bytes) -> str | None:
        answer: dict[str, Any] = {}
        for _ in range(TRIES):
            failed = self._call(
                lambda: answer.update(
                    self._client.upload_part(
                        Bucket=BUCKET, Key=object_key, UploadId=upload_id, PartNumber=number, Body=content
                    )
                )
            )
            if failed is None:
                return str(answer["ETag"])
            if failed.certain:
                self.violations.append(f"{object_key}: a part was refused with {failed.code}")
                return None
            time.sleep(RETRY_PAUSE_S)
        return None

    def _put(self, object_key: str, content: bytes, **conditions: str) -> Failed | None:
        failed = self._call(lambda: self._client.put_object(Bucket=BUCKET, Key=object_key, Body=content, **conditions))
        self._note(object_key, describe(content), failed)
        return failed

    def _note(self, object_key: str, body: Body | None, failed: Failed | None) -> None:
        possible = self.possible[object_key]
        if failed is None:
            # What broke before may still come: only what was certain is replaced.
            self.possible[object_key] = {body} | self._uncertain.get(object_key, set())
        elif not failed.certain:
            self._uncertain.setdefault(object_key, set()).add(body)
            possible.add(body)

    def _call(self, request: Callable[[], Any], *, counts: bool = True) -> Failed | None:
        self.in_flight = True
        try:
            request()
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            failed = Failed(400 <= status < 500, error.response["Error"]["Code"])
        except BotoCoreError as error:
            failed = Failed(False, type(error).__name__)
        else:
            self.acknowledged += counts
            return None
        finally:
            self.in_flight = False
        self.failed += not failed.certain
        return failed

    def _make(self, size: int | None = None) -> bytes:
        return self._random.randbytes(self._random.choice(self._sizes) if size is None else size)

    def _new_key(self) -> str:
        self._count += 1
        object_key = f"{self._name}/{self._count:05}"
        self.possible[object_key] = {None}
        return object_key

    def _known_key(self) -> str:
        """Mostly one of the last keys, so that they are written again and again."""
        if not self.possible:
            return self._new_key()
        recent = list(self.possible)[-12:]
        return self._random.choice(recent)
