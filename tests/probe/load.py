"""Writers that keep an account of what was acknowledged, for tests that kill processes under them."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.probe.server import Server

IN_FLIGHT_WAIT_S = 60.0
BLOCK_BYTES = 1 << 20
PAUSE_S = 0.05
"""of each writer after each put: a load, and time for what the test looks at"""

Put = Callable[[str, bytes], Any]
FAILURES = (BotoCoreError, ClientError, HTTPException, OSError)


def body_of(object_key: str, size: int) -> bytes:
    """The one body that may ever be read under this key."""
    source = random.Random(object_key)
    return b"".join(source.randbytes(min(BLOCK_BYTES, size - start)) for start in range(0, size, BLOCK_BYTES))


class Writers:
    """Threads that put objects of several sizes until stopped; every key is written once."""

    def __init__(self, server: Server, bucket: str, sizes: tuple[int, ...], threads: int = 6) -> None:
        self.acknowledged: dict[str, int] = {}
        self.attempted: dict[str, int] = {}
        self.failures = 0
        self._server = server
        self._bucket = bucket
        self._sizes = sizes
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._in_flight = 0
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(150)
            assert not thread.is_alive(), "a request hung"

    @property
    def in_flight(self) -> int:
        """Requests sent and not yet answered."""
        with self._lock:
            return self._in_flight

    def wait_for_acknowledged(self, count: int) -> None:
        """Until this many more puts were acknowledged and at least one is under way."""
        goal = len(self.acknowledged) + count
        deadline_s = time.monotonic() + IN_FLIGHT_WAIT_S
        while len(self.acknowledged) < goal or not self.in_flight:
            assert time.monotonic() < deadline_s, f"only {len(self.acknowledged)} of {goal} acknowledged"
            time.sleep(0.002)

    def open(self) -> Put:
        """What puts objects for one thread; whatever it raises of FAILURES is a put that was not acknowledged."""
        client = self._server.client()
        return lambda object_key, body: client.put_object(Bucket=self._bucket, Key=object_key, Body=body)

    def _run(self, number: int) -> None:
        put = self.open()
        count = 0
        while not self._stop.is_set():
            size = self._sizes[count % len(self._sizes)]
            object_key = f"writer-{number}/{count:06}"
            count += 1
            with self._lock:
                self.attempted[object_key] = size
                self._in_flight += 1
            try:
                put(object_key, body_of(object_key, size))
            except FAILURES:
                with self._lock:
                    self.failures += 1
            else:
                with self._lock:
                    self.acknowledged[object_key] = size
            finally:
                with self._lock:
                    self._in_flight -= 1
            self._stop.wait(PAUSE_S)


def verify(client: Any, bucket: str, writers: Writers) -> None:
    """Every acknowledged object reads back whole; whatever else is visible is whole too, and was attempted."""
    listed = {
        entry["Key"]: entry["Size"]
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for entry in page.get("Contents", [])
    }
    missing = set(writers.acknowledged) - set(listed)
    assert not missing, f"{len(missing)} acknowledged objects are gone: {sorted(missing)[:5]}"
    for object_key, size in listed.items():
        assert writers.attempted[object_key] == size
        body = client.get_object(Bucket=bucket, Key=object_key)["Body"].read()
        expected = hashlib.sha256(body_of(object_key, size)).digest()
        assert hashlib.sha256(body).digest() == expected, f"{object_key} is not what was put"
