"""What DeleteObjects costs, and what it costs those who write meanwhile."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor

from tests.bench.load import Cost, measured
from tests.bench.requests import SignedConnection
from tests.bench.scenarios import KIB, PAGE, Bench, Sample, SmallPut
from tests.bench.sides import Side

DELETES_BESIDE_PUTS = 3


class DeleteMany:
    """One DeleteObjects of 1,000 keys."""

    name, unit, higher_is_better = "DeleteObjects of 1,000", "ms", False

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def prepare(self, side: Side, rounds: int) -> None:
        """1,000 objects for every round."""
        for number in range(rounds + 1):
            _fill(self._bench, side, f"doomed-{number}")

    def run(self, side: Side, round_number: int) -> Sample:
        """Signed beforehand; the answer must name no error."""
        cost, errors = _delete(side, f"doomed-{round_number}")
        return Sample(cost.wall_s * 1e3, cost.generator_share, cost.side_share, errors=errors)


class PutsBesideDeletes:
    """What one PUT in a hundred takes while keys are deleted by the thousand."""

    unit, higher_is_better = "ms", False

    def __init__(self, bench: Bench) -> None:
        self.name = f"p99 of PUT 1 KiB beside {DELETES_BESIDE_PUTS} DeleteObjects"
        self._bench = bench
        self._puts = SmallPut(bench, KIB, "beside")

    def prepare(self, side: Side, rounds: int) -> None:
        """New keys for the PUTs of every round, and objects to delete."""
        self._puts.prepare(side, rounds)
        for number in range(rounds + 1):
            for turn in range(DELETES_BESIDE_PUTS):
                _fill(self._bench, side, f"doomed-beside-{number}-{turn}")

    def run(self, side: Side, round_number: int) -> Sample:
        """The deletes one after the other, from the beginning of the PUTs."""
        with ThreadPoolExecutor(1) as threads:
            puts = threads.submit(self._puts.run, side, round_number)
            errors = sum(
                _delete(side, f"doomed-beside-{round_number}-{turn}")[1] for turn in range(DELETES_BESIDE_PUTS)
            )
            sample = puts.result()
        if sample.p99_ms is None:
            raise RuntimeError(f"{side.name}: no latency of PUTs")
        return Sample(sample.p99_ms, sample.generator_share, sample.side_share, errors=sample.errors + errors)


def _fill(bench: Bench, side: Side, prefix: str) -> None:
    bench.fill(side, KIB, prefix, [f"{i:04}" for i in range(PAGE)])


def _delete(side: Side, prefix: str) -> tuple[Cost, int]:
    """→ what it cost, and how many keys were not deleted."""
    named = "".join(f"<Object><Key>{prefix}/{i:04}</Key></Object>" for i in range(PAGE))
    document = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{named}</Delete>'.encode()
    digest = base64.b64encode(hashlib.md5(document).digest()).decode()
    connection = SignedConnection(side.endpoint)
    headers = connection.sign("POST", f"/{side.bucket}?delete=", document, {"Content-MD5": digest})
    with measured(side) as cost:
        answer = connection.send("POST", f"/{side.bucket}?delete=", document, headers, signed=True)
    connection.close()
    return cost, answer.count(b"<Error>")
