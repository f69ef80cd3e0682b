"""`frostbyte doctor` beside a stopped server: the keys are looked at, and what does not run is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.s3gw.cli.program import Program


@pytest.fixture
def data(program: Program, tmp_path: Path) -> Path:
    """After `frostbyte init`."""
    program.succeed("init", "--data", tmp_path / "data")
    return tmp_path / "data"


def examine(program: Program, *arguments: str | Path) -> dict[str, dict[str, str]]:
    """Every finding that is not ok, by its check; the exit status says whether one is bad."""
    status, said, errors = program.run("doctor", *arguments, "--json")
    assert errors == ""
    found = json.loads(said)
    assert status == (1 if any(it["level"] == "bad" for it in found) else 0)
    assert all(list(it) == ["level", "check", "says", "advice"] for it in found)
    return {it["check"]: it for it in found if it["level"] != "ok"}


def test_a_stopped_server_is_said(program: Program, data: Path) -> None:
    """The keys are right all the same."""
    found = examine(program, "--data", data)
    assert set(found) == {"metadata", "masters", "gateway"}
    assert found["masters"]["says"] == f"no server runs on {data}"
    (data / "run" / "master.json").unlink()
    assert examine(program, "--data", data)["server"]["says"] == f"no server has run on {data} yet"


def test_keys_that_others_can_read_or_that_are_gone(program: Program, data: Path) -> None:
    """Each is a finding of its own, and nothing of a key is shown."""
    (data / "credentials.json").chmod(0o644)
    assert "can be read by others" in examine(program, "--data", data)["secrets"]["says"]
    (data / "internal.key").write_text("nonsense!")
    (data / "master.key").unlink()
    found = examine(program, "--data", data)
    assert "is not base64" in found["internal key"]["says"]
    assert found["master key"]["level"] == "bad"
    assert "nonsense" not in json.dumps(found)


def test_the_table_for_people(program: Program, data: Path) -> None:
    """What is ok is shown as well, and how much is not."""
    status, said, _ = program.run("doctor", "--data", data)
    assert status == 1
    assert "it opens the keyring" in said
    assert said.splitlines()[-1] == "3 bad, 0 to be warned of"


def test_what_is_no_data_directory(program: Program, tmp_path: Path) -> None:
    """One line, as everywhere."""
    assert "holds no frostbyte data" in program.refused("doctor", "--data", tmp_path)
    assert "cannot read" in program.refused("doctor", "--master", tmp_path / "nowhere.json")
