"""The runner of ceph/s3-tests: configuration, reports, tally and time limit, on a suite made here."""

from __future__ import annotations

import configparser
import sys
from pathlib import Path

import pytest

from tests.conformance import s3tests
from tests.conformance.s3tests import SECTIONS, Account, Result, parse_report, read_tests, render_tally, write_config

ACCOUNTS = {name: Account(f"ID-{name}", f"secret%{name}", f"canonical-{name}", name, f"{name}@x") for name in SECTIONS}

SUITE = """
import os, subprocess, sys, time
import pytest

def test_good():
    assert os.environ["S3TEST_CONF"].endswith(".conf")
    assert not [name for name in os.environ if name.startswith("AWS_")]

def test_bad():
    assert 1 == 2

@pytest.mark.skip(reason="not here")
def test_skipped():
    pass

def test_hangs():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(os.environ["S3TEST_CONF"] + ".pid", "w").write(str(child.pid))
    time.sleep(600)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory laid out as the suite's checkout."""
    functional = tmp_path / "checkout" / "s3tests" / "functional"
    functional.mkdir(parents=True)
    (functional / "test_s3.py").write_text(SUITE)
    (tmp_path / "checkout" / "pytest.ini").write_text("[pytest]\n")
    return tmp_path / "checkout"


@pytest.mark.parametrize(
    ("endpoint", "port", "secure"),
    [("http://127.0.0.1:9000", "9000", "False"), ("https://s3.example", "443", "True"), ("http://h", "80", "False")],
)
def test_the_configuration(tmp_path: Path, endpoint: str, port: str, secure: str) -> None:
    """Address, prefix and every section with its account; a percent sign in a secret is no interpolation."""
    path = tmp_path / "s3tests.conf"
    write_config(path, endpoint, "us-east-1", "s3t7", ACCOUNTS)
    config = configparser.RawConfigParser()
    config.read(path)
    assert (config.defaults()["port"], config.defaults()["is_secure"]) == (port, secure)
    assert config["fixtures"]["bucket prefix"] == "s3t7-{random}-"
    for name, section in SECTIONS.items():
        assert config[section]["secret_key"] == f"secret%{name}"
        assert config[section]["user_id"] == f"canonical-{name}"
    assert config["s3 main"]["api_name"] == "us-east-1"
    assert path.stat().st_mode & 0o777 == 0o600


def test_outcomes(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passed, failed with its message, skipped with its reason, and a name that is not there."""
    monkeypatch.setenv("AWS_PROFILE", "of the caller")
    config = tmp_path / "s3.conf"
    ended = {
        name: s3tests.run_test(f"test_s3.py::{name}", checkout, Path(sys.executable), config)
        for name in ("test_good", "test_bad", "test_skipped", "test_absent")
    }
    assert {name: result.outcome for name, result in ended.items()} == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_skipped": "skipped",
        "test_absent": "missing",
    }
    assert ended["test_bad"].message == "assert 1 == 2"
    assert ended["test_skipped"].message == "not here"


def test_the_time_limit(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that hangs ends as a timeout together with the process that it had started."""
    monkeypatch.setattr(s3tests, "TEST_TIMEOUT_S", 5)
    config = tmp_path / "s3.conf"
    result = s3tests.run_test("test_s3.py::test_hangs", checkout, Path(sys.executable), config)
    assert result.outcome == "timeout"
    child = int(config.with_suffix(".conf.pid").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_an_error_in_teardown_is_a_failure() -> None:
    """JUnit reports a teardown error as a second case."""
    cases = '<testcase/><testcase><error message="late&#10;more"/></testcase>'
    assert parse_report(f"<testsuites><testsuite>{cases}</testsuite></testsuites>") == ("failed", "late")


def test_the_list(tmp_path: Path) -> None:
    """Blank lines and comments are no tests; the match is a part of the id."""
    path = tmp_path / "list"
    path.write_text("# comment\n\n test_s3.py::test_a \ntest_s3.py::test_b\n")
    assert read_tests(path) == ["test_s3.py::test_a", "test_s3.py::test_b"]
    assert read_tests(path, "_b") == ["test_s3.py::test_b"]


def test_the_tally() -> None:
    """Counts first, then what did not pass, with its message."""
    results = [Result("a", "passed", 1.0), Result("b", "failed", 2.0, "assert x"), Result("c", "timeout", 30.0)]
    text = render_tally(results, "http://x")
    assert "3 tests: 1 passed, 1 failed, 1 timeout." in text
    assert "- `b` assert x" in text
    assert "`a`" not in text
