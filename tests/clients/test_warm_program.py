"""What a fork of a loaded program does is what the started program does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.programs import find_program
from tests.clients.warm_program import is_own_aws, warm_program

TIMEOUT_S = 100.0
COMMANDS = [
    ["node", "list", "--data", "absent", "--json"],
    ["bucket", "--help"],
    ["no-such-command"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_fork_of_frostbyte_says_what_the_program_says(tmp_path: Path, words: list[str]) -> None:
    """Status, output and errors, in the directory that it is to be in."""
    variables = {**os.environ, "COLUMNS": "90"}
    command = [str(Path(sys.executable).with_name("frostbyte")), *words]
    started = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, timeout=TIMEOUT_S, check=False)
    forked = warm_program("frostbyte").run(["frostbyte", *words], variables, directory=tmp_path, timeout_s=TIMEOUT_S)
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_a_fork_gets_its_environment_and_its_input(tmp_path: Path) -> None:
    """And nothing of the one before."""
    aws = find_program("aws")
    if aws is None or not is_own_aws(aws):
        pytest.skip("the aws command line is not this interpreter's")
    config = tmp_path / "config"

    def run(*words: str, stdin: bytes = b"", **more: str) -> bytes:
        files = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
        variables = {"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true"} | files | more
        done = warm_program("aws").run([aws, *words], variables, stdin=stdin, timeout_s=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert b"eu-north-1" in run("configure", "list", AWS_DEFAULT_REGION="eu-north-1")
    assert b"eu-north-1" not in run("configure", "list")
    run("configure", stdin=b"AKIA\nsecret\nsa-east-1\njson\n")
    assert "region = sa-east-1" in config.read_text()


def test_a_fork_that_does_not_end_is_killed() -> None:
    """And the next command is served."""
    frostbyte = warm_program("frostbyte")
    with pytest.raises(subprocess.TimeoutExpired):
        frostbyte.run(["frostbyte", "--help"], os.environ, timeout_s=0.0)
    assert frostbyte.run(["frostbyte", "--help"], os.environ, timeout_s=TIMEOUT_S).returncode == 0
