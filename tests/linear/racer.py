"""A process of racing clients: `… -m tests.linear.racer SETTINGS BUCKET…`, one gateway's access to the metadata.

Says `ready` when connected, with a session for each bucket: no race's trouble comes before there is one. Then every
line of standard input is a `Race`: several tasks run random operations on a few keys, and what each of them saw goes to
standard output as one line, a JSON history.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable
from typing import Any

import msgspec

from storage.base.errors import NoSuchKey, Refused, Unavailable
from storage.metadata.commands import Conditions
from storage.metadata.interface import Metadata
from storage.metadata.open import open_metadata
from storage.metadata.settings import MetadataSettings
from storage.model import Versioning
from tests.linear.checker import Operation
from tests.storage.metadata.builders import PART_BYTES, Worker

KINDS = ("read", "read", "put", "put_absent", "put_match", "put_match", "delete", "delete_match", "complete", "copy")
LINE_BYTES_MAX = 1 << 24


class Race(msgspec.Struct, frozen=True):
    """What one process does of one race. `name`: the seed and the process; ETags and choices follow from it."""

    name: str
    bucket: str
    keys: tuple[str, ...]
    tasks: int
    operations: int


class Racer:
    """One task: operations one after the other, each recorded."""

    def __init__(self, worker: Worker, race: Race, task: int) -> None:
        self.history: list[Operation] = []
        self._worker = worker
        self._race = race
        self._name = f"{race.name}.{task}"
        # a marker is not nothing to a conditional delete, and to everybody else it is
        is_plain = worker.bucket.versioning is Versioning.UNVERSIONED
        self._random = random.Random(self._name)
        self._last_seen: dict[str, str | None] = {}
        self._kinds = [kind for kind in KINDS if kind != "delete_match" or is_plain]

    async def run(self) -> None:
        for number in range(self._race.operations):
            await self._step(self._key(), self._random.choice(self._kinds), f"{self._name}-{number}")

    def _key(self) -> str:
        return self._random.choice(self._race.keys)

    async def _step(self, object_key: str, kind: str, etag: str) -> None:
        expected = self._last_seen.get(object_key) or "never seen"
        if kind == "read":
            await self._record(object_key, kind, None, self._worker.etag(object_key.encode()))
        elif kind == "delete":
            await self._record(object_key, kind, None, self._delete(object_key, Conditions()))
        elif kind == "delete_match":
            deleting = self._delete(object_key, Conditions(if_match=expected))
            await self._record(object_key, kind, None, deleting, expected)
        elif kind == "complete":
            await self._complete(object_key, etag)
        elif kind == "copy":
            await self._copy(object_key, etag)
        else:
            conditions = {
                "put": Conditions(),
                "put_absent": Conditions(if_none_match="*"),
                "put_match": Conditions(if_match=expected),
            }[kind]
            blob = self._worker.inline(5) if self._random.random() < 0.5 else self._worker.chunked(20, 10)
            putting = self._worker.put(object_key.encode(), etag, blob=blob, conditions=conditions)
            await self._record(object_key, kind, etag, putting, expected)

    async def _delete(self, object_key: str, conditions: Conditions) -> None:
        deleted = await self._worker.delete(object_key.encode(), conditions=conditions)
        if deleted.refusal:
            raise _Refusal(deleted.refusal)

    async def _complete(self, object_key: str, etag: str) -> None:
        try:
            upload = await self._worker.create_upload(object_key.encode())
            parts = [await self._worker.put_part(upload, number, PART_BYTES) for number in (1, 2)]
        except Unavailable:
            return
        await self._record(object_key, "put", etag, self._worker.complete(upload, parts, etag))

    async def _copy(self, object_key: str, etag: str) -> None:
        """The engine's part of a copy: a read, and a commit that shares what was read."""
        source = self._key()
        start_ns = time.monotonic_ns()
        try:
            read = await self._worker.metadata.read_version(self._worker.bucket.bucket_id, source.encode())
        except (NoSuchKey, Unavailable):
            return
        found = read.version.etag
        self._note(source, "read", start_ns, time.monotonic_ns(), "ok", found)
        await self._record(object_key, "put", etag, self._worker.share(read.extents, object_key.encode(), etag))

    async def _record(
        self, object_key: str, kind: str, etag: str | None, call: Awaitable[Any], expected: str = ""
    ) -> None:
        start_ns = time.monotonic_ns()
        outcome = "ok"
        try:
            answer = await call
        except (_Refusal, Refused) as refusal:
            outcome = refusal.args[0] if isinstance(refusal, _Refusal) else type(refusal).__name__
            answer = None
        except Unavailable as lost:
            if kind != "read" and lost.details.get("outcome") == "unknown":
                self._note(object_key, kind, start_ns, None, "", etag, expected)
            return
        if kind == "read":
            etag = self._last_seen[object_key] = answer
        self._note(object_key, kind, start_ns, time.monotonic_ns(), outcome, etag, expected)

    def _note(
        self,
        object_key: str,
        kind: str,
        start_ns: int,
        end_ns: int | None,
        outcome: str,
        etag: str | None,
        expected: str = "",
    ) -> None:
        self.history.append(
            Operation(
                object_key=object_key,
                kind=kind,
                start_ns=start_ns,
                end_ns=end_ns,
                outcome=outcome,
                etag=etag,
                expected=expected,
            )
        )


class _Refusal(Exception):
    """Of one target of DeleteVersions."""


async def run_race(worker: Worker, race: Race) -> list[Operation]:
    """What all tasks of one process saw."""
    racers = [Racer(worker, race, task) for task in range(race.tasks)]
    await asyncio.gather(*[racer.run() for racer in racers])
    return [operation for racer in racers for operation in racer.history]


async def race_in_this_process(
    metadata: Metadata, bucket: str, name: str, tasks: int, operations: int
) -> list[Operation]:
    """A race of one process, on three keys."""
    worker = await Worker.start(metadata, await metadata.find_bucket(bucket))
    return await run_race(worker, Race(name, bucket, ("a", "b", "c"), tasks, operations))


async def main(settings: str, *buckets: str) -> None:
    metadata = await open_metadata(msgspec.json.decode(settings, type=MetadataSettings))
    workers = {bucket: await Worker.start(metadata, await metadata.find_bucket(bucket)) for bucket in buckets}
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        race = msgspec.json.decode(line, type=Race)
        history = await run_race(workers[race.bucket], race)
        sys.stdout.buffer.write(msgspec.json.encode(history) + b"\n")
        sys.stdout.buffer.flush()
    await metadata.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
