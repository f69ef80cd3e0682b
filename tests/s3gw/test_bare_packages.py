"""What the fork server leaves out of the packages that the roles use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from s3gw.fork_server import load_roles
load_roles()
from uvicorn.lifespan.off import LifespanOff
print(" ".join(sys.modules))
"""
LEFT_OUT = {"click", "multiprocessing"}


def test_no_role_brings_in_what_none_needs() -> None:
    """Command lines of others."""
    done = subprocess.run((sys.executable, "-c", PROGRAM), capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert {"uvicorn.server", "uvicorn.protocols.http.httptools_impl", "prometheus_client"} <= loaded
    assert not loaded & LEFT_OUT
