"""Makes one seed decide everything that production code draws: session ids, keys, jitter, the order of replicas."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from storage.base import background


@contextmanager
def seeded_entropy(seed: int) -> Iterator[None]:
    """While it is open the machine's entropy is a generator of this seed, and so are the shared generator of `random`
    and the one that pauses are drawn from. They are put back afterwards."""
    generator = random.Random(f"{seed} entropy")
    before, jitter_before = random.getstate(), background._JITTER.getstate()
    random.seed(f"{seed} shared")
    background._JITTER.seed(f"{seed} jitter")
    try:
        # SystemRandom, which `secrets` draws from, keeps a name of its own for os.urandom.
        with (
            mock.patch.object(os, "urandom", generator.randbytes),
            mock.patch.object(random, "_urandom", generator.randbytes),
        ):
            yield
    finally:
        random.setstate(before)
        background._JITTER.setstate(jitter_before)
