"""A large file up and down, by clients that people use and by the ones that cost least."""

from __future__ import annotations

from pathlib import Path

from tests.bench.load import Cost, aws_words, curl_words, measured, parallel_curl_words, run_to_null, s5cmd_words
from tests.bench.requests import object_path, presign
from tests.bench.scenarios import Bench, Sample
from tests.bench.sides import Side
from tests.clients.material import MIB

RANGES = 16
"""of a parallel download"""


class _Transfer:
    """Of the large file, in megabytes a second."""

    unit, higher_is_better = "MB/s", True
    title = ""

    def __init__(self, bench: Bench) -> None:
        self.name = f"{bench.scale.large_bytes // MIB} MiB {self.title}"
        self._bench = bench

    def _sample(self, cost: Cost) -> Sample:
        rate = self._bench.scale.large_bytes / 1e6 / cost.wall_s
        return Sample(rate, cost.generator_share, cost.side_share)


class LargeUp(_Transfer):
    """Up by s5cmd in parallel parts."""

    title = "up by s5cmd"

    def prepare(self, side: Side, rounds: int) -> None:
        """Nothing: the file is there."""

    def run(self, side: Side, round_number: int) -> Sample:
        """A new key every round."""
        target = f"s3://{side.bucket}/large-{round_number}"
        with measured(side) as cost:
            run_to_null(side, s5cmd_words(side, "cp", str(self._bench.large_file), target))
        return self._sample(cost)


class LargeUpByAws(_Transfer):
    """Up by aws-cli in parallel parts."""

    title = "up by aws-cli"

    def prepare(self, side: Side, rounds: int) -> None:
        """Nothing: the file is there."""

    def run(self, side: Side, round_number: int) -> Sample:
        """A new key every round."""
        target = f"s3://{side.bucket}/large-aws-{round_number}"
        with measured(side) as cost:
            run_to_null(side, aws_words(side, "s3", "cp", "--no-progress", str(self._bench.large_file), target))
        return self._sample(cost)


class _Download(_Transfer):
    """Of one object for all rounds, into a discarding sink."""

    def prepare(self, side: Side, rounds: int) -> None:
        """Write it once a side."""
        self._bench.store_large(side)

    def _path(self, side: Side) -> str:
        return presign(side.endpoint, "GET", object_path(side.bucket, "large-down"))


class LargeDown(_Download):
    """Down by s5cmd in parallel ranges."""

    title = "down by s5cmd"

    def run(self, side: Side, round_number: int) -> Sample:
        """cat, discarded."""
        with measured(side) as cost:
            run_to_null(side, s5cmd_words(side, "cat", f"s3://{side.bucket}/large-down"))
        return self._sample(cost)


class ParallelRanges(_Download):
    """Down by one curl in parallel ranges: the sink costs less than s5cmd, which keeps parts in order."""

    title = f"down by curl, {RANGES} ranges"

    def run(self, side: Side, round_number: int) -> Sample:
        """All ranges at once, each into /dev/null."""
        size = self._bench.scale.large_bytes // RANGES
        spans = [(number * size, (number + 1) * size - 1) for number in range(RANGES)]
        words = parallel_curl_words(side, self._path(side), spans, self._config(side))
        with measured(side) as cost:
            run_to_null(side, words)
        return self._sample(cost)

    def _config(self, side: Side) -> Path:
        return self._bench.directory / f"ranges-{side.bucket}"


class OneStream(_Download):
    """One plain GET by curl."""

    title = "down by curl, one stream"

    def run(self, side: Side, round_number: int) -> Sample:
        """curl into /dev/null."""
        path = self._path(side)
        with measured(side) as cost:
            run_to_null(side, curl_words(side, path, "--output", "/dev/null"))
        return self._sample(cost)
