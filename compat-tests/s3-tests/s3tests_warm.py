"""Runs under the interpreter of ceph/s3-tests, in its checkout: loads once what every test loads, and forks each test
from that, in a session of its own. Loading costs several times what most tests do.

Orders come as JSON lines on stdin: test, config, report. For each the test's process id is told, and a line when it has
ended.
"""

from __future__ import annotations

import json
import os
import sys

import boto3
import pytest

SERVICES = ("s3", "iam", "sts", "sns")


def main() -> None:
    """Serve orders until stdin ends."""
    sys.path.insert(0, os.getcwd())
    for service in SERVICES:
        boto3.client(service, region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(order)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)


def _run(order: dict[str, str]) -> None:
    """The test, in the fork; never returns."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.environ["S3TEST_CONF"] = order["config"]
    try:
        pytest.main(
            [f"s3tests/functional/{order['test']}", "-q", "-p", "no:cacheprovider", f"--junitxml={order['report']}"]
        )
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
