"""Packages that are entered without their own `__init__`: only the parts that are asked for are imported.

What uvicorn's imports is its command line (click, reloaders, multiprocessing), what prometheus_client's does is what
sends metrics to others. No role needs either, and the fork server would hold them for all: 1.6 MiB.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

PACKAGES = ("uvicorn", "prometheus_client")


def enter_bare_packages() -> None:
    """Before anything imports them: their modules are then found as ever. Nothing where a package is there already."""
    for name in PACKAGES:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is not None:
            sys.modules[name] = importlib.util.module_from_spec(spec)
    # Of its own package uvicorn asks for this name (uvicorn.lifespan.off).
    setattr(sys.modules["uvicorn"], "Config", importlib.import_module("uvicorn.config").Config)  # noqa: B010
