"""The runner of ceph/s3-tests: configuration, reports, tally and time limit, on a suite made here."""

from __future__ import annotations

import configparser
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3tests
from s3tests import REASONS, SECTIONS, TESTS, Account, WarmSuite, parse_report, read_results, read_tests, write_config
from s3tests_page import Reason, Result, read_reasons, render_page

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
    ("address", "port", "secure"),
    [("http://127.0.0.1:9000", "9000", "False"), ("https://s3.example", "443", "True"), ("http://h", "80", "False")],
)
def test_the_configuration(tmp_path: Path, address: str, port: str, secure: str) -> None:
    """Address, prefix and every section with its account; a percent sign in a secret is no interpolation."""
    path = tmp_path / "s3tests.conf"
    write_config(path, address, "us-east-1", "s3t7", ACCOUNTS)
    config = configparser.RawConfigParser()
    config.read(path)
    assert (config.defaults()["port"], config.defaults()["is_secure"]) == (port, secure)
    assert config["fixtures"]["bucket prefix"] == "s3t7-{random}-"
    for name, section in SECTIONS.items():
        assert config[section]["secret_key"] == f"secret%{name}"
        assert config[section]["user_id"] == f"canonical-{name}"
    assert config["s3 main"]["api_name"] == "us-east-1"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def suite(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WarmSuite]:
    """The suite made here, loaded by this interpreter."""
    monkeypatch.setenv("AWS_PROFILE", "of the caller")
    loaded = WarmSuite(checkout, Path(sys.executable), tmp_path)
    yield loaded
    loaded.close()


def test_outcomes(suite: WarmSuite, tmp_path: Path) -> None:
    """Passed, failed with its message, skipped with its reason, and a name that is not there."""
    config = tmp_path / "s3.conf"
    ended = {
        name: suite.run_test(f"test_s3.py::{name}", config)
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


def test_the_time_limit(suite: WarmSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that hangs ends as a timeout together with the process that it had started; the next one runs."""
    monkeypatch.setattr(s3tests, "TEST_TIMEOUT_S", 8)
    config = tmp_path / "s3.conf"
    assert suite.run_test("test_s3.py::test_hangs", config).outcome == "timeout"
    child = int(config.with_suffix(".conf.pid").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    monkeypatch.setattr(s3tests, "TEST_TIMEOUT_S", 60)
    assert suite.run_test("test_s3.py::test_good", config).outcome == "passed"


def test_a_suite_that_does_not_load(checkout: Path, tmp_path: Path) -> None:
    """One clear sentence."""
    with pytest.raises((RuntimeError, BrokenPipeError)):
        WarmSuite(checkout, Path("/bin/false"), tmp_path).run_test("test_s3.py::test_good", tmp_path / "s3.conf")


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


REASON_TOML = """
[[reason]]
tests = ["test_s3.py::test_b", "test_headers.py::test_d[*]"]
text = "AWS | does not"

[[reason]]
tests = ["*::test_c*"]
text = "only Ceph has it"
applicable = false
"""


def test_the_page() -> None:
    """Counts first; what did not pass with its reason, or else with what it said; names of the rest."""
    results = [
        Result("test_s3.py::test_a", "passed", 1.0),
        Result("test_s3.py::test_b", "failed", 2.0, "assert x"),
        Result("test_s3.py::test_c", "timeout", 30.0),
        Result("test_headers.py::test_d[1]", "failed", 30.0),
        Result("test_headers.py::test_e", "failed", 1.0, "boom"),
    ]
    page = render_page(results, read_reasons(REASON_TOML))
    assert "5 tests: 1 passed, 3 failed, 1 not applicable." in page
    assert "| `test_b` | failed | AWS ¦ does not |" in page
    assert "| `test_headers.py::test_d[1]` | failed | AWS ¦ does not |" in page
    assert "| `test_headers.py::test_e` | failed | not looked into: boom |" in page
    assert page.index("## Not applicable") < page.index("| `test_c` | timeout | only Ceph has it |")
    assert page.endswith("## Passed\n\ntest_a\n")


def test_pages_of_several_runs(tmp_path: Path) -> None:
    """The later one counts, test by test."""
    for name, outcome in (("one", "failed"), ("two", "passed")):
        (tmp_path / name).write_text(json.dumps([Result("test_s3.py::test_a", outcome, 1.0)._asdict()]))
    assert read_results(tmp_path / "one") == [Result("test_s3.py::test_a", "failed", 1.0)]
    arguments = ["page", str(tmp_path / "one"), str(tmp_path / "two"), "--output", str(tmp_path / "page")]
    assert s3tests.main(arguments) == 0
    page = (tmp_path / "page").read_text()
    assert "1 tests: 1 passed, 0 failed" in page
    assert "from 2 runs, of which the last of each test counts" in page


def test_every_reason_speaks_of_a_listed_test() -> None:
    """A reason of no test is left over from a mistake or a name that is gone."""
    listed = read_tests(TESTS)
    assert len(set(listed)) == len(listed) == 727
    for reason in read_reasons(REASONS.read_text()):
        for pattern in reason.tests:
            results = [Result(test, "failed", 0.0) for test in listed]
            page = render_page(results, [Reason((pattern,), "spoken of")])
            assert "spoken of" in page, pattern
