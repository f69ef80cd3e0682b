"""Clients of the gateways: a seeded load, and a ledger of what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cluster.assembly import Cluster
from cluster.objectstore import CopySource, PutRequest
from storage.base.errors import (
    Corrupt,
    FrostbyteError,
    NoSuchKey,
)
from storage.metadata.commands import Conditions, Deleted, DeleteTarget
from storage.model import Attributes, Bucket, ByteRange, ChecksumAlgorithm, Versioning
from tests.sim.answers import Seen, check_bytes, fate_of, name_of_answer, read_object
from tests.sim.bodies import BadBody, Bodies
from tests.sim.gateways import SimGateway
from tests.sim.ledger import Fate, Ledger, Place, Write
from tests.sim.loop import Process
from tests.sim.network import Broken
from tests.sim.profiles import Profile
from tests.sim.surroundings import Surroundings

T = TypeVar("T")

PATIENCE_S = 90.0
WORKS_AGAIN_TRIES = 8
OWNER = "f" * 64


KEYS = tuple(f"k{number}".encode() for number in range(6))


class Client:
    """One after the other, an operation on an object of a few, through any gateway."""

    def __init__(
        self,
        world: Surroundings,
        name: str,
        gateways: list[SimGateway],
        buckets: list[Bucket],
        ledger: Ledger,
        violations: list[str],
        profile: Profile,
    ) -> None:
        self.process = Process(world.loop, name)
        self.name = name
        self._world = world
        self._gateways = gateways
        self._buckets = buckets
        self._ledger = ledger
        self._violations = violations
        self._profile = profile
        self._random = world.generator(name)
        self._bodies = Bodies(self._random, profile)
        self.busy_since_s: float | None = None
        """when its operation under way began"""

    async def run(self, until_s: float) -> None:
        """Until that time, then to the end of the operation under way."""
        steps: dict[Callable[[], Awaitable[None]], float] = {
            self.put: 7,
            self.get: 5,
            self.get_range: 4,
            self.get_slowly: 1 + 20 * self._profile.slowness,
            self.delete: 3,
            self.copy: 2,
            self.upload: 2,
            self.put_if_absent: 1,
            self.put_bad: 1,
            self.delete_version: 1,
        }
        while self._world.loop.time() < until_s:
            step = self._random.choices(list(steps), list(steps.values()))[0]
            self.busy_since_s = self._world.loop.time()
            await step()
            self.busy_since_s = None
            await asyncio.sleep(self._random.expovariate(1 / self._profile.pause_s))

    # ------------------------------------------------------------------ writes

    async def put(self) -> None:
        bucket, place = self._choose()
        content = self._bodies.content()
        await self._put(bucket, place, "put", content, PutRequest(OWNER, Attributes()))

    async def put_through(self, gateway: SimGateway) -> None:
        """A put, which must succeed before long."""
        self._gateways = [gateway]
        for _ in range(WORKS_AGAIN_TRIES):
            bucket, place = self._choose()
            content = self._random.randbytes(max(self._profile.sizes))
            write = await self._put(bucket, place, "put", content, PutRequest(OWNER, Attributes()))
            if write.fate is Fate.DONE:
                return
            await asyncio.sleep(5.0)
        self._report(f"{gateway.party} takes no writes at the end: {write}")

    async def put_if_absent(self) -> None:
        bucket, place = self._choose()
        request = PutRequest(OWNER, Attributes(), Conditions(if_none_match="*"))
        write = await self._put(bucket, place, "put if absent", self._bodies.content(), request)
        if write.fate is Fate.DONE:
            self._report(self._ledger.find_flaw(place, None, "", write.begun_s, write.ended_s))

    async def put_bad(self) -> None:
        """A body whose checksum is wrong: it must never be seen."""
        bucket, place = self._choose()
        await self._put(bucket, place, "bad put", self._bodies.content(), PutRequest(OWNER, Attributes()), BadBody())

    async def _put(
        self,
        bucket: Bucket,
        place: Place,
        what: str,
        content: bytes,
        request: PutRequest,
        failure: Exception | None = None,
    ) -> Write:
        body = self._bodies.body(content, failure)
        write = self._begin(place, what, content)

        async def work(cluster: Cluster) -> str | None:
            result = await cluster.objects.put(bucket, place.key, body, request)
            return result.committed.version_id

        await self._write(write, f"{what} {place.key.decode()}", work)
        return write

    async def copy(self) -> None:
        """Onto any object of the same bucket, from whatever is there."""
        bucket, place = self._choose()
        source = Place(place.bucket, self._random.choice(KEYS))
        found = await self._call(
            f"head {source.key.decode()}", lambda cluster: cluster.objects.head(bucket, source.key)
        )
        if isinstance(found, Exception):
            return
        content = self._ledger.content_of(found.version.etag)
        if content is None:
            self._violations.append(f"{source} is something that nobody wrote ({found.version.etag})")
            return
        # The ETag of a copy is the MD5 of its bytes, whatever the source's was.
        write = self._begin(place, f"copy of {source.key.decode()}", content)
        asked = CopySource(bucket, found.version)
        request = PutRequest(OWNER, found.version.attributes)

        async def work(cluster: Cluster) -> str | None:
            algorithm = ChecksumAlgorithm.CRC64NVME
            result = await cluster.objects.copy(asked, bucket, place.key, request, algorithm)
            return result.committed.version_id

        await self._write(write, f"copy {source.key.decode()} {place.key.decode()}", work)

    async def upload(self) -> None:
        """A multipart upload of a few parts, some sent twice, that is completed, aborted or left."""
        bucket, place = self._choose()
        began = await self._call(
            f"begin upload {place.key.decode()}",
            lambda cluster: cluster.objects.create_upload(bucket, place.key, OWNER, Attributes(), None, None),
        )
        if isinstance(began, Exception):
            return
        parts: dict[int, tuple[Any, bytes]] = {}
        for number in self._random.choices((1, 2, 3), k=self._random.randint(1, 4)):
            content = self._bodies.content()
            body = self._bodies.body(content, None)
            sent = await self._call(
                f"part {number} of {place.key.decode()}",
                lambda cluster, number=number, body=body: cluster.objects.put_part(bucket, began, number, body),
            )
            if isinstance(sent, Exception):
                parts.pop(number, None)  # whichever it is now
            else:
                parts[number] = sent, content
        ending = self._random.random()
        if not parts or ending < 0.3:
            if ending < 0.15 or not parts:
                await self._call(
                    f"abort {place.key.decode()}",
                    lambda cluster: cluster.objects.abort_upload(bucket, place.key, began.upload_id),
                )
            return
        listed = [parts[number][0] for number in sorted(parts)]
        content = b"".join(parts[number][1] for number in sorted(parts))
        write = self._begin(place, "upload", content, f"{began.upload_id[:24]}-{len(listed)}")

        async def work(cluster: Cluster) -> str | None:
            done = await cluster.objects.complete_upload(
                bucket, began, listed, write.etag, began.attributes, Conditions()
            )
            return done.version_id

        await self._write(write, f"complete {place.key.decode()}", work)

    async def delete(self) -> None:
        bucket, place = self._choose()
        write = self._begin(place, "delete", None)
        await self._delete(write, bucket, DeleteTarget(place.key))

    async def delete_version(self) -> None:
        """Of a versioned bucket, one of those that a client was told of."""
        bucket = self._random.choice(self._buckets)
        if bucket.versioning is not Versioning.ENABLED:
            return
        place = Place(bucket.name, self._random.choice(KEYS))
        known = self._ledger.expected_versions(place)
        if not known:
            return
        version_id = self._random.choice(list(known))
        self._ledger.stirred.add(place)
        self._ledger.removed[place, version_id] = Fate.UNKNOWN
        target = DeleteTarget(place.key, version_id)
        label = f"delete {place.key.decode()} {version_id[12:20]}"
        done = await self._call(label, lambda cluster: cluster.objects.delete(bucket, [target]))
        if not isinstance(done, Exception):
            self._ledger.removed[place, version_id] = Fate.DONE

    async def _delete(self, write: Write, bucket: Bucket, target: DeleteTarget) -> None:
        async def work(cluster: Cluster) -> str | None:
            (deleted,) = await cluster.objects.delete(bucket, [target])
            assert isinstance(deleted, Deleted)
            return deleted.version_id

        await self._write(write, f"delete {target.object_key.decode()}", work)

    def _begin(self, place: Place, what: str, content: bytes | None, etag: str = "") -> Write:
        return self._ledger.begin(place, what, content, self._world.loop.time(), etag)

    async def _write(self, write: Write, label: str, work: Callable[[Cluster], Awaitable[str | None]]) -> None:
        told = await self._call(f"{label} ({write.number})", work)
        fate = fate_of(told)
        self._world.trace.note(self.name, f"{write.what} {write.number}: {fate.value} {name_of_answer(told)}")
        self._world.trace.count(f"write {fate.value}")
        self._ledger.end(write, fate, self._world.loop.time(), None if isinstance(told, Exception) else told)

    # ------------------------------------------------------------------ reads

    async def get(self) -> None:
        await self._read(*self._choose(), None, 0.0)

    async def get_range(self) -> None:
        bucket, place = self._choose()
        first = self._random.choice((0, 0, self._random.randrange(max(self._profile.sizes) + 1)))
        last = self._random.choice((None, first + self._random.randrange(40_000)))
        await self._read(bucket, place, ByteRange(first, last), 0.0)

    async def get_slowly(self) -> None:
        """A client that takes its time with each block, while others go on."""
        await self._read(*self._choose(), None, self._random.uniform(1.0, 8.0))

    async def _read(self, bucket: Bucket, place: Place, byte_range: ByteRange | None, pause_s: float) -> None:
        begun_s = self._world.loop.time()
        garbled = self._world.trace.counts.get("garbled", 0)
        gateway = self._random.choice(self._gateways)
        seen = await self._call(
            f"get {place.key.decode()}",
            lambda cluster: read_object(cluster, bucket, place.key, None, byte_range, pause_s),
            gateway,
        )
        now_s = self._world.loop.time()
        if isinstance(seen, NoSuchKey):
            self._report(self._ledger.find_flaw(place, None, "", begun_s, now_s))
        elif isinstance(seen, Seen):
            self._world.trace.count("read")
            self._report(self._ledger.find_flaw(place, b"", seen.etag, begun_s, now_s))
            self._report(check_bytes(self._ledger, place, seen))
        elif isinstance(seen, Corrupt) and self._world.trace.counts.get("garbled", 0) == garbled:
            self._report(f"{place}: {seen}")

    # ------------------------------------------------------------------ within

    def _choose(self) -> tuple[Bucket, Place]:
        bucket = self._random.choice(self._buckets)
        return bucket, Place(bucket.name, self._random.choice(KEYS))

    async def _call(
        self, label: str, work: Callable[[Cluster], Awaitable[T]], gateway: SimGateway | None = None
    ) -> T | Exception:
        chosen = gateway or self._random.choice(self._gateways)

        async def serve() -> T:
            return await work(chosen.require())

        try:
            return await self._world.network.call(
                self.process, chosen.party, label, serve, PATIENCE_S, may_repeat=False
            )
        except (FrostbyteError, Broken, TimeoutError) as error:
            return error

    def _report(self, flaw: str) -> None:
        if flaw:
            self._world.trace.note(self.name, f"VIOLATION: {flaw}")
            self._violations.append(flaw)
