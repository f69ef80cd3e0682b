"""Whether this system carries out chains of writes."""

from __future__ import annotations

import pytest

from storage.base.uring import Uring


def require_chains() -> None:
    """Skip where it does not."""
    try:
        Uring().close()
    except OSError as error:
        pytest.skip(f"this system has no io_uring, or forbids it: {error}")
