"""Writers through several gateways, with an account of what was acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.probe.gateways import WAIT_S
from tests.probe.load import body_of
from tests.probe.waiting import wait_until

SIZES = (0, 300, 40_000, 3 << 20)
JOIN_S = 90
PAUSE_S = 0.1
"""of each writer after each put: a load, and time for what the test looks at"""


class Account:
    """Writers through both gateways, each key once, that remember what was acknowledged."""

    def __init__(
        self, bucket: str, *clients: Any, threads_each: int = 2, at_start: Callable[[], None] = lambda: None
    ) -> None:
        """at_start: what each thread does first."""
        self.acknowledged: dict[str, int] = {}
        self.refused: list[BaseException] = []
        self._bucket = bucket
        self._at_start = at_start
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number, clients[number % len(clients)]))
            for number in range(threads_each * len(clients))
        ]

    def __enter__(self) -> Account:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_S)
            assert not thread.is_alive(), "a request hung"

    def wait_for_more(self, count: int) -> None:
        """Until this many more were acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal, WAIT_S, "acknowledging")

    def _write(self, number: int, client: Any) -> None:
        self._at_start()
        for turn in range(1_000_000):
            if self._stop.is_set():
                return
            key, size = f"{number}-{turn}", SIZES[turn % len(SIZES)]
            try:
                client.put_object(Bucket=self._bucket, Key=key, Body=body_of(key, size))
                self.acknowledged[key] = size
            except (ClientError, BotoCoreError) as error:
                self.refused.append(error)
            time.sleep(PAUSE_S)


def verify_account(account: Account, bucket: str, client: Any) -> None:
    """Everything acknowledged by now reads back whole, and is listed."""
    acknowledged = dict(account.acknowledged)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    listed = {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}
    for key, size in acknowledged.items():
        assert listed[key] == size
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == body_of(key, size)
