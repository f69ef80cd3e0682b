"""The pages beside the buckets."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from cluster.read_counts import ReadCounts
from cluster.write_counts import WriteCounts
from s3gw.health import create_service_pages
from s3gw.metrics import RequestMetrics
from storage.base.errors import Unavailable


class Asked:
    """What is told of readiness."""

    def __init__(self, answer: bool | Exception) -> None:
        self._answer = answer

    async def __call__(self) -> bool:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def ask(path: str, method: str = "GET", ready: bool | Exception = True) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    pages = create_service_pages(Asked(ready), RequestMetrics(ReadCounts(), WriteCounts()))
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    with suppress(KeyError):  # a defect is answered, and told to the server, which logs it
        await pages(scope, receive, send)
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


async def test_the_process_answers() -> None:
    """As plain text with its length, also of HEAD, whose body the server leaves out."""
    status, headers, body = await ask("/-/healthy")
    assert (status, body) == (200, b"ok\n")
    assert headers == {b"content-length": b"3", b"content-type": b"text/plain; charset=utf-8"}
    assert (await ask("/-/healthy", "HEAD"))[:2] == (200, headers)


@pytest.mark.parametrize(
    ("ready", "status", "body"),
    [
        (True, 200, b"ready\n"),
        (False, 503, b"not ready\n"),
        (Unavailable("no map"), 503, b"not ready\n"),
        (TimeoutError(), 503, b"not ready\n"),
        (KeyError("a defect"), 500, b"internal error\n"),
    ],
)
async def test_readiness(ready: bool | Exception, status: int, body: bytes) -> None:
    """Whatever is wrong, it is not ready; a defect is told as one."""
    assert (await ask("/-/ready", ready=ready))[::2] == (status, body)


async def test_the_counters() -> None:
    """In Prometheus's text."""
    status, headers, body = await ask("/-/metrics")
    assert status == 200
    assert headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    assert b"# TYPE frostbyte_s3_requests_total counter\n" in body


async def test_there_is_nothing_else() -> None:
    """Neither paths nor methods."""
    assert (await ask("/-/nothing"))[0] == 404
    status, headers, _ = await ask("/-/ready", "POST")
    assert (status, set(headers[b"allow"].split(b", "))) == (405, {b"GET", b"HEAD"})
