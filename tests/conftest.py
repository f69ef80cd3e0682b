"""How hypothesis looks for examples: none of them has a deadline, on machines that are busy. `make test` tries the same
ones every time, so that it tells of a change and not of chance; `make test-all` draws new ones."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

SAME, DRAWN = "same", "drawn"

settings.register_profile(SAME, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile(DRAWN, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(SAME)
