"""A process of racing clients: `… -m tests.storage.metadata.history_client SETTINGS BUCKET SEED TASKS OPS`.

Says `ready` when connected, waits for the end of its standard input, runs random operations of several tasks on a few
keys and writes what each saw, one JSON history, to standard output.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import msgspec

from storage.base.errors import NoSuchKey, Refused
from storage.metadata.commands import Conditions
from storage.metadata.interface import Metadata
from storage.metadata.open import open_metadata
from storage.metadata.settings import MetadataSettings
from tests.storage.metadata.builders import PART_BYTES, Worker
from tests.storage.metadata.linearizability import Operation

KEYS = ("a", "b", "c")
KINDS = ("read", "read", "put", "put_absent", "put_match", "put_match", "delete", "complete", "copy")


class Racer:
    """One task: operations one after the other, each recorded."""

    def __init__(self, worker: Worker, name: str, randomness: random.Random) -> None:
        self.worker = worker
        self.name = name
        self.randomness = randomness
        self.history: list[Operation] = []
        self.last_seen: dict[str, str | None] = {}

    async def run(self, operations: int) -> None:
        for number in range(operations):
            object_key = self.randomness.choice(KEYS)
            kind = self.randomness.choice(KINDS)
            await self.step(object_key, kind, f"{self.name}-{number}")

    async def step(self, object_key: str, kind: str, etag: str) -> None:
        if kind == "read":
            await self.record(object_key, "read", None, self.worker.etag(object_key.encode()))
        elif kind == "delete":
            await self.record(object_key, "delete", None, self.worker.delete(object_key.encode()))
        elif kind == "complete":
            await self.complete(object_key, etag)
        elif kind == "copy":
            await self.copy(object_key, etag)
        else:
            expected = self.last_seen.get(object_key) or "never seen"
            conditions = {
                "put": Conditions(),
                "put_absent": Conditions(if_none_match="*"),
                "put_match": Conditions(if_match=expected),
            }[kind]
            blob = self.worker.inline(5) if self.randomness.random() < 0.5 else self.worker.chunked(20, 10)
            put = self.worker.put(object_key.encode(), etag, blob=blob, conditions=conditions)
            await self.record(object_key, kind, etag, put, expected)

    async def complete(self, object_key: str, etag: str) -> None:
        upload = await self.worker.create_upload(object_key.encode())
        parts = [await self.worker.put_part(upload, number, PART_BYTES) for number in (1, 2)]
        await self.record(object_key, "put", etag, self.worker.complete(upload, parts, etag))

    async def copy(self, object_key: str, etag: str) -> None:
        source = self.randomness.choice(KEYS)
        try:
            read = await self.worker.metadata.read_version(self.worker.bucket.bucket_id, source.encode())
        except NoSuchKey:
            return
        await self.record(object_key, "put", etag, self.worker.share(read.extents, object_key.encode(), etag))

    async def record(self, object_key: str, kind: str, etag: str | None, call: object, expected: str = "") -> None:
        start_ns = time.monotonic_ns()
        outcome = "ok"
        try:
            answer = await call  # type: ignore[misc]
            if kind == "read":
                etag = answer
                self.last_seen[object_key] = answer
        except Refused as refusal:
            outcome = type(refusal).__name__
        end_ns = time.monotonic_ns()
        self.history.append(Operation(object_key, kind, start_ns, end_ns, outcome, etag, expected))


async def race(metadata: Metadata, bucket_name: str, seed: str, tasks: int, operations: int) -> list[Operation]:
    """The histories of all tasks of this process."""
    bucket = await metadata.find_bucket(bucket_name)
    worker = await Worker.start(metadata, bucket)
    racers = [Racer(worker, f"{seed}.{task}", random.Random(f"{seed}.{task}")) for task in range(tasks)]
    await asyncio.gather(*[racer.run(operations) for racer in racers])
    return [operation for racer in racers for operation in racer.history]


async def main(settings: str, bucket: str, seed: str, tasks: str, operations: str) -> None:
    metadata = await open_metadata(msgspec.json.decode(settings, type=MetadataSettings))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    history = await race(metadata, bucket, seed, int(tasks), int(operations))
    await metadata.close()
    sys.stdout.buffer.write(msgspec.json.encode(history))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
