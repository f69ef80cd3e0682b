"""/-/metrics of several workers: whichever answers, it answers for all, across the death of one."""

from __future__ import annotations

import re
import urllib.request

from tests.probe.server import Server
from tests.probe.waiting import wait_until

PUTS = 24


def counted_puts(server: Server) -> int:
    """What one scrape says of PutObject with status 200."""
    with urllib.request.urlopen(f"{server.endpoint}/-/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.search(r'frostbyte_s3_requests_total\{operation="PutObject",status="200"\} (\S+)', text)
    return round(float(found.group(1))) if found else 0


def test_any_worker_answers_for_all(server: Server) -> None:
    """Requests over many connections reach both workers; every scrape gives their sum, also after a kill of one."""
    client = server.client()
    client.create_bucket(Bucket="counted")
    for number in range(PUTS):
        server.client().put_object(Bucket="counted", Key=f"k{number}", Body=b"x")
    wait_until(lambda: counted_puts(server) == PUTS, 10, "the last count, which is told a moment after its answer")
    assert [counted_puts(server) for _ in range(6)] == [PUTS] * 6
    server.kill("gateway")
    server.wait_ready()
    assert [counted_puts(server) for _ in range(6)] == [PUTS] * 6
