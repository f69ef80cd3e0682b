"""Running ceph/s3-tests from a checkout outside this project against an endpoint.

    python compat-tests/s3-tests/s3tests.py users --data ./data --output USERS.json
    python compat-tests/s3-tests/s3tests.py run --checkout DIR --users USERS.json --output RESULTS.json
    python compat-tests/s3-tests/s3tests.py page RESULTS.json

`users` makes the accounts that the suite needs with `frostbyte user create` and keeps their credentials in a file;
`run` runs each test of the list in a process of its own, with 30 seconds and a bucket prefix of its own, and writes
how each one ended as JSON; `page` makes RESULTS.md of that. None of the suite's code is in this project. See README.md
beside this file.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from s3tests_page import Result, read_reasons, render_page

TEST_TIMEOUT_S = 30
USER_COMMAND_TIMEOUT_S = 60
FROSTBYTE = str(Path(sys.executable).with_name("frostbyte"))
"""the console script beside the running interpreter"""
LIFECYCLE_DAY_S = 2
"""what the suite takes for a day of lifecycle rules, as FROSTBYTE_LIFECYCLE_DAY_S tells the server"""
MESSAGE_LENGTH_MAX = 300
SECTIONS = {"main": "s3 main", "alt": "s3 alt", "tenant": "s3 tenant", "iam": "iam"}
"""Accounts of ours and the suite's sections that they fill; the IAM roots are given the main account."""
LONE = "lone"
LONE_TESTS = frozenset({"test_s3.py::test_list_buckets_paginated"})
"""count the buckets of their account, so they get one that no test beside them uses"""
KMS_KEYS = ("testkey-1", "testkey-2")
"""named keys, as the suite calls them by default"""
HERE = Path(__file__).parent
TESTS = HERE / "tests.txt"
REASONS = HERE / "reasons.toml"
PAGE = HERE / "RESULTS.md"


class Account(NamedTuple):
    """One account as the suite wants to know it."""

    access_key_id: str
    secret_access_key: str
    canonical_id: str
    display_name: str
    email: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do one of the three commands."""
    parser = argparse.ArgumentParser(prog="s3tests.py", description="ceph/s3-tests, outside")
    commands = parser.add_subparsers(dest="command", required=True)
    users = commands.add_parser("users", help="make the accounts with frostbyte user create")
    users.add_argument("--data", required=True, help="the data directory of the server")
    users.add_argument("--output", type=Path, required=True)
    run = commands.add_parser("run", help="run a list of tests")
    run.add_argument("--checkout", type=Path, required=True, help="a checkout of ceph/s3-tests")
    run.add_argument("--python", type=Path, help="an interpreter with the suite's requirements; by default CHECKOUT's")
    run.add_argument("--tests", type=Path, default=TESTS, help="a file of test ids, FILE.py::test_name, one a line")
    run.add_argument("--match", default="", help="only ids that hold this text")
    run.add_argument("--endpoint", default="http://127.0.0.1:9000")
    run.add_argument("--users", type=Path, required=True)
    run.add_argument("--region", default="us-east-1", help="what the suite calls the zonegroup's api name")
    run.add_argument("--jobs", type=int, default=2)
    run.add_argument("--output", type=Path, required=True)
    page = commands.add_parser("page", help="make the results page of one or more runs; later ones count")
    page.add_argument("results", type=Path, nargs="+")
    page.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    if options.command == "users":
        accounts = make_accounts(options.data)
        options.output.write_text(json.dumps({name: account._asdict() for name, account in accounts.items()}, indent=1))
        options.output.chmod(0o600)
        return 0
    if options.command == "page":
        ended = {result.test: result for path in options.results for result in read_results(path)}
        reasons = read_reasons(REASONS.read_text())
        page_text = render_page([ended[test] for test in sorted(ended)], reasons, len(options.results))
        options.output.write_text(page_text)
        return 0
    return _run_list(options)


def make_accounts(data: str) -> dict[str, Account]:
    """Create one user per account and the named keys; one that is there already is an error that it explains."""
    accounts = {}
    for name in (*SECTIONS, LONE):
        account = Account(
            access_key_id=f"S3TESTS{name.upper()}{secrets.token_hex(4).upper()}",
            secret_access_key=secrets.token_hex(20),
            canonical_id=secrets.token_hex(32),
            display_name=f"s3tests-{name}",
            email=f"{name}@s3tests.example",
        )
        command = [FROSTBYTE, "user", "create", account.display_name, "--data", data, "--json"]
        command += ["--canonical-id", account.canonical_id, "--display-name", account.display_name]
        command += ["--email", account.email, "--access-key-id", account.access_key_id]
        command += ["--secret-access-key", account.secret_access_key]
        subprocess.run(command, check=True, timeout=USER_COMMAND_TIMEOUT_S, stdout=subprocess.DEVNULL)
        accounts[name] = account
    for name in KMS_KEYS:
        command = [FROSTBYTE, "key", "create", name, "--data", data]
        subprocess.run(command, check=True, timeout=USER_COMMAND_TIMEOUT_S, stdout=subprocess.DEVNULL)
    return accounts


def write_config(path: Path, endpoint: str, region: str, prefix: str, accounts: dict[str, Account]) -> None:
    """Write the suite's configuration file. `prefix` begins the name of every bucket the test makes."""
    parts = urlsplit(endpoint)
    secure = parts.scheme == "https"
    config = configparser.RawConfigParser()
    config["DEFAULT"] = {
        "host": str(parts.hostname),
        "port": str(parts.port or (443 if secure else 80)),
        "is_secure": str(secure),
        "ssl_verify": "False",
    }
    config["fixtures"] = {"bucket prefix": f"{prefix}-{{random}}-", "iam name prefix": f"{prefix}-"}
    for name, section in SECTIONS.items():
        config[section] = _section(accounts[name])
    config["s3 main"]["api_name"] = region
    config["s3 main"]["kms_keyid"], config["s3 main"]["kms_keyid2"] = KMS_KEYS
    config["s3 main"]["lc_debug_interval"] = str(LIFECYCLE_DAY_S)
    config["s3 tenant"]["tenant"] = "tenant"
    config["iam root"] = _section(accounts["main"])
    config["iam alt root"] = _section(accounts["alt"])
    with path.open("w") as file:
        config.write(file)
    path.chmod(0o600)


class WarmSuite:
    """The suite, loaded once by its own interpreter; runs one test at a time. See s3tests_warm.py."""

    def __init__(self, checkout: Path, python: Path, scratch: Path) -> None:
        """scratch: where pytest keeps what it makes of the suite's files, outside the checkout. Where it may not keep
        them, every test compiles all of the suite again."""
        self._scratch = scratch
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHONDONT"))}
        self._process = subprocess.Popen(
            [str(python), str(HERE / "s3tests_warm.py")],
            cwd=checkout,
            env=environment | {"PYTHONPYCACHEPREFIX": str(scratch / "pycache")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run_test(self, test: str, config: Path) -> Result:
        """One test id in its own process and session; everything it started is killed at the time limit."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            report = Path(directory) / "report.xml"
            began = time.monotonic()
            pid = int(self._ask({"test": test, "config": str(config), "report": str(report)}))
            limit = threading.Timer(TEST_TIMEOUT_S, _kill_session, [pid])
            limit.start()
            self._read()
            is_late = not limit.is_alive()
            limit.cancel()
            if is_late:
                return Result(test, "timeout", time.monotonic() - began)
            outcome, message = parse_report(report.read_text()) if report.exists() else ("missing", "no report")
            return Result(test, outcome, time.monotonic() - began, message)

    def close(self) -> None:
        """The process ends with its orders."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(TEST_TIMEOUT_S)

    def _ask(self, order: dict[str, str]) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the suite does not load: does its interpreter have boto3 and pytest?")
        return line


def _kill_session(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # the session that was made for this test alone


def parse_report(text: str) -> tuple[str, str]:
    """Outcome and message of a JUnit report of one test; teardown errors are failures."""
    cases = list(ElementTree.fromstring(text).iter("testcase"))
    if not cases:
        return "missing", "no such test"
    for case in cases:
        for kind in ("failure", "error"):
            found = case.find(kind)
            if found is not None:
                return "failed", (found.get("message") or "").strip().partition("\n")[0][:MESSAGE_LENGTH_MAX]
        skipped = case.find("skipped")
        if skipped is not None:
            return "skipped", (skipped.get("message") or "")[:MESSAGE_LENGTH_MAX]
    return "passed", ""


def read_results(path: Path) -> list[Result]:
    """What a run has written."""
    return [Result(**fields) for fields in json.loads(path.read_text())]


def read_tests(path: Path, match: str = "") -> list[str]:
    """The test ids of a list, without blank lines and comments."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#") and match in line]


def _run_list(options: argparse.Namespace) -> int:
    accounts = {name: Account(**fields) for name, fields in json.loads(options.users.read_text()).items()}
    tests = read_tests(options.tests, options.match)
    python = options.python or options.checkout / ".venv" / "bin" / "python"
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="s3tests-") as directory, ThreadPoolExecutor(options.jobs) as pool:
        scratch = Path(directory)
        suites: queue.SimpleQueue[WarmSuite] = queue.SimpleQueue()
        for _ in range(options.jobs):
            suites.put(WarmSuite(options.checkout, python, scratch))

        def run_numbered(number: int) -> Result:
            config = scratch / f"{number}.conf"
            chosen = accounts | {"main": accounts[LONE]} if tests[number] in LONE_TESTS else accounts
            write_config(config, options.endpoint, options.region, f"s3t{number}", chosen)
            suite = suites.get()
            try:
                return suite.run_test(tests[number], config)
            finally:
                suites.put(suite)

        for result in pool.map(run_numbered, range(len(tests))):
            results.append(result)
            print(f"{len(results)}/{len(tests)} {result.outcome} {result.test}", flush=True)
        while not suites.empty():
            suites.get().close()
    options.output.write_text(json.dumps([result._asdict() for result in results], indent=1))
    return 0 if all(result.outcome in ("passed", "skipped") for result in results) else 1


def _section(account: Account) -> dict[str, str]:
    return {
        "display_name": account.display_name,
        "user_id": account.canonical_id,
        "email": account.email,
        "access_key": account.access_key_id,
        "secret_key": account.secret_access_key,
    }


if __name__ == "__main__":
    sys.exit(main())
