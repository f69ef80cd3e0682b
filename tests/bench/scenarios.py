"""What is measured: one class per kind of work, prepared once per side and run once per round."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.bench.load import measured, run_to_null, run_wrk, s5cmd_words
from tests.bench.requests import SignedConnection, object_path, presign, presign_all
from tests.bench.sides import Side
from tests.clients.material import MIB

KIB = 1024
PAGE = 1000
SIZE_NAMES = {KIB: "1 KiB", 64 * KIB: "64 KiB", MIB: "1 MiB"}


class Scale(NamedTuple):
    """How much work a run is."""

    stored_counts: dict[int, int]
    """objects of each size that are read; those of 1 KiB are listed too"""
    rate_max: dict[int, int]
    """PUTs a second for which keys are made; a faster side stops when it has used them up"""
    large_bytes: int
    rounds: int
    round_s: int
    """time of one round of PUTs or GETs"""


RATE_MAX = {KIB: 15_000, 64 * KIB: 5_000, MIB: 600}
GET_RATE_MAX = {KIB: 40_000, 64 * KIB: 15_000, MIB: 4_000}
FULL = Scale({KIB: 20_000, 64 * KIB: 4_000, MIB: 500}, RATE_MAX, 1024 * MIB, 5, 3)
QUICK = Scale({KIB: 3_000, 64 * KIB: 500, MIB: 100}, RATE_MAX, 256 * MIB, 1, 2)


class Sample(NamedTuple):
    """One round of one scenario on one side."""

    value: float
    generator_share: float
    side_share: float
    p99_ms: float | None = None
    errors: int = 0


class Scenario(Protocol):
    """Something measured. `prepare` is not measured; round 0 is the warm-up."""

    name: str
    unit: str
    higher_is_better: bool

    def prepare(self, side: Side, rounds: int) -> None: ...

    def run(self, side: Side, round_number: int) -> Sample: ...


class Bench:
    """Files that the scenarios share: bodies, lists of presigned paths, the large file."""

    def __init__(self, directory: Path, scale: Scale) -> None:
        self.directory = directory
        self.scale = scale
        self._prepared: set[tuple[str, str]] = set()
        directory.mkdir(parents=True, exist_ok=True)
        for size in scale.stored_counts:
            self.body_file(size).write_bytes(os.urandom(size))
        self.large_file = directory / "large"
        with self.large_file.open("wb") as file:
            for _ in range(scale.large_bytes // MIB):
                file.write(os.urandom(MIB))

    def body_file(self, size: int) -> Path:
        """The body of this size; the same for every object."""
        return self.directory / f"body-{size}"

    def paths_file(self, side: Side, method: str, keys: Sequence[str], label: str) -> Path:
        """A file of presigned paths, one a line."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{side.name}-{label}")
        file = self.directory / f"paths-{name}"
        paths = [object_path(side.bucket, key) for key in keys]
        file.write_text("\n".join(presign_all(side.endpoint, method, paths)) + "\n")
        return file

    def fill(self, side: Side, size: int, prefix: str, names: Sequence[str]) -> None:
        """Write an object under each of `prefix/name`, unmeasured; s5cmd fails when one of them is not stored."""
        links = self.directory / "links"
        links.mkdir()
        for name in names:
            (links / name).hardlink_to(self.body_file(size))
        run_to_null(side, s5cmd_words(side, "cp", f"{links}/", f"s3://{side.bucket}/{prefix}/"))
        shutil.rmtree(links)

    def store_small(self, side: Side, size: int) -> list[str]:
        """Write the objects that are read and listed, once per side and size; their keys."""
        prefix, names = f"fill-{size}", [f"{number:07}" for number in range(self.scale.stored_counts[size])]
        if (side.name, prefix) not in self._prepared:
            self.fill(side, size, prefix, names)
            self._prepared.add((side.name, prefix))
        return [f"{prefix}/{name}" for name in names]

    def store_large(self, side: Side) -> str:
        """Write the large object that is read, once per side; its key."""
        if (side.name, "large-down") not in self._prepared:
            run_to_null(side, s5cmd_words(side, "cp", str(self.large_file), f"s3://{side.bucket}/large-down"))
            self._prepared.add((side.name, "large-down"))
        return "large-down"


class SmallPut:
    """PUT of distinct keys, 16 in flight."""

    unit, higher_is_better = "requests/s", True

    def __init__(self, bench: Bench, size: int, prefix: str = "put") -> None:
        """prefix: of the keys, those of one instance only."""
        self.name = f"PUT {SIZE_NAMES[size]}"
        self._bench, self._size, self._paths = bench, size, dict[tuple[str, int], Path]()
        self._prefix = f"{prefix}-{size}"

    def prepare(self, side: Side, rounds: int) -> None:
        """Presign a list of new keys for every round."""
        for number in range(rounds + 1):
            count = self._bench.scale.rate_max[self._size] * self._bench.scale.round_s
            keys = [f"{self._prefix}/{number}/{i:07}" for i in range(count)]
            self._paths[side.name, number] = self._bench.paths_file(side, "PUT", keys, f"{self._prefix}-{number}")

    def run(self, side: Side, round_number: int) -> Sample:
        """One list of keys."""
        paths, body = self._paths[side.name, round_number], self._bench.body_file(self._size)
        with measured(side) as cost:
            result = run_wrk(side, "PUT", paths, body, self._bench.scale.round_s)
        return Sample(result.requests_per_s, cost.generator_share, cost.side_share, result.p99_ms, result.errors)


class SmallGet:
    """GET of distinct keys in random order, 16 in flight."""

    unit, higher_is_better = "requests/s", True

    def __init__(self, bench: Bench, size: int) -> None:
        self.name = f"GET {SIZE_NAMES[size]}"
        self._bench, self._size, self._paths = bench, size, dict[str, Path]()

    def prepare(self, side: Side, rounds: int) -> None:
        """Write the objects and presign their reads, each often enough for one round."""
        keys = self._bench.store_small(side, self._size)
        order = random.Random(self._size).sample(keys, len(keys))
        paths = self._bench.paths_file(side, "GET", order, f"get-{self._size}")
        wanted = GET_RATE_MAX[self._size] * self._bench.scale.round_s
        paths.write_text(paths.read_text() * (wanted // len(keys) + 1))
        self._paths[side.name] = paths

    def run(self, side: Side, round_number: int) -> Sample:
        """The objects in the same random order, again and again."""
        with measured(side) as cost:
            result = run_wrk(side, "GET", self._paths[side.name], None, self._bench.scale.round_s)
        return Sample(result.requests_per_s, cost.generator_share, cost.side_share, result.p99_ms, result.errors)


class Listing:
    """ListObjectsV2 in pages of 1,000 by continuation token on one connection."""

    name, unit, higher_is_better = "List, pages of 1,000", "keys/s", True

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def prepare(self, side: Side, rounds: int) -> None:
        """The objects are those of GET 1 KiB."""
        self._bench.store_small(side, KIB)

    def run(self, side: Side, round_number: int) -> Sample:
        """All pages; the count must be right."""
        connection, found, token = SignedConnection(side.endpoint), 0, b""
        with measured(side) as cost:
            while True:
                continued = f"&continuation-token={_query_escape(token)}" if token else ""
                path = f"/{side.bucket}?list-type=2&max-keys={PAGE}&prefix=fill-{KIB}%2F{continued}"
                page = connection.send("GET", presign(side.endpoint, "GET", path), signed=True)
                found += page.count(b"<Key>")
                _, _, rest = page.partition(b"<NextContinuationToken>")
                token = rest.partition(b"<")[0]
                if not token:
                    break
        connection.close()
        expected = self._bench.scale.stored_counts[KIB]
        if found != expected:
            raise RuntimeError(f"{side.name} listed {found} keys of {expected}")
        return Sample(found / cost.wall_s, cost.generator_share, cost.side_share)


def _query_escape(token: bytes) -> str:
    return "".join(chr(b) if chr(b).isalnum() or b in b"-_.~" else f"%{b:02X}" for b in token)
