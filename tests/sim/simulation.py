"""One run of one seed: a cluster is brought up, loaded and hurt, healed, and then looked through."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

from storage.metadata.sqlite.check import check_integrity
from storage.model import NodeState, Versioning
from tests.sim.answers import Seen, check_bytes, read_object
from tests.sim.clients import Client
from tests.sim.clusters import INTERNAL_KEY, SimCluster
from tests.sim.edges import simulated_edges
from tests.sim.entropy import seeded_entropy
from tests.sim.faults import Faults
from tests.sim.layout_changes import LayoutChanges
from tests.sim.ledger import Ledger, Place
from tests.sim.loop import Stuck, VirtualLoop, run_now
from tests.sim.oracle import Oracle
from tests.sim.profiles import CHANGE_LAYOUT, Profile, draw_profile
from tests.sim.trace import Trace
from tests.sim.watch import Watch

FOUND_WITHIN_S = 0.5
LOOK_EVERY_S = 5.0
"""how often the oracle looks whether everything can be read"""
WHOLE_WITHIN_S = 900.0
SWEPT_WITHIN_S = 600.0
REMOVED_WITHIN_S = 600.0
CLIENTS_END_WITHIN_S = 600.0
LOST = (NodeState.DEAD, NodeState.SUSPECT)


class Outcome(NamedTuple):
    """violations: empty when all went as it must."""

    seed: int
    profile: Profile
    violations: list[str]
    trace: Trace
    virtual_s: float
    steps: int
    acknowledged: int

    def __str__(self) -> str:
        told = "; ".join(self.violations[:3]) or "nothing wrong"
        return (
            f"seed {self.seed}: {told} ({self.profile}; {self.acknowledged} writes acknowledged,"
            f" {self.virtual_s:.0f} s; python -m tests.sim --seed {self.seed} --trace)"
        )


def simulate(
    seed: int,
    profile: Profile | None = None,
    plant: Callable[[], AbstractContextManager[object]] = nullcontext,
    *,
    until: str | None = None,
    show: bool = False,
) -> Outcome:
    """Run it. The same outcome, to the last line of the trace, whenever it is run. profile: unless it is the seed's.
    plant: what to change of the project meanwhile. until: nothing more than a violation with these words is wanted."""
    profile = profile or draw_profile(seed)
    with _alone(), seeded_entropy(seed), simulated_edges(INTERNAL_KEY), plant():
        loop = VirtualLoop()
        run = _Run(loop, seed, profile, show=show)
        loop.set_exception_handler(run.note_exception)
        try:
            loop.run_until_complete(run.all() if until is None else run.all_until(until))
        except (Stuck, TimeoutError) as error:
            run.violations.append(f"it does not come to an end: {error!r}")
        finally:
            digest = run.cluster.world.trace
            virtual_s, steps = loop.time(), loop.steps
            loop.set_exception_handler(lambda *_: None)
            run.unwind()
            loop.close()
    return Outcome(seed, profile, run.violations, digest, virtual_s, steps, run.ledger.acknowledged)


@contextmanager
def _alone() -> Iterator[None]:
    """Without the collector, whose moments are nobody's to choose, and without the log."""
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


class _Run:
    def __init__(self, loop: VirtualLoop, seed: int, profile: Profile, *, show: bool) -> None:
        self.violations: list[str] = []
        self.ledger = Ledger()
        self.cluster = SimCluster(loop, seed, profile, show=show)
        self._profile = profile
        self._loop = loop
        self._oracle = Oracle(self.cluster)
        self._watch = Watch(self.cluster, self._oracle, self._report)

    async def all_until(self, words: str) -> None:
        """Or until a violation says that."""
        whole = self._loop.create_task(self.all())
        while not whole.done() and not any(words in violation for violation in self.violations):
            await asyncio.wait((whole,), timeout=FOUND_WITHIN_S)
        if whole.done():
            whole.result()

    async def all(self) -> None:
        cluster = self.cluster
        cluster.on_node = self._watch.on_node
        for node in cluster.nodes:
            self._watch.on_node(node)
        await cluster.bring_up()
        world = cluster.world
        clients = [
            Client(
                world,
                f"c{number}",
                cluster.gateways,
                cluster.buckets,
                self.ledger,
                self.violations,
                self._profile,
            )
            for number in range(1, self._profile.clients + 1)
        ]
        faults = Faults(cluster, self._profile, clients, self._oracle)
        until_s = self._loop.time() + self._profile.load_s
        working = [client.process.start(client.run(until_s)) for client in clients]
        looking = self._loop.create_task(self._keep_looking())
        hurting = self._loop.create_task(faults.run())
        await asyncio.sleep(until_s - self._loop.time())
        hurting.cancel()
        faults.heal()
        world.trace.note("run", "healed")
        async with asyncio.timeout(CLIENTS_END_WITHIN_S):
            await asyncio.gather(*working)
        await self._end_well(faults.layouts)
        looking.cancel()
        for task in (looking, hurting):
            if task.done() and not task.cancelled():
                task.result()

    async def _keep_looking(self) -> None:
        while not self.violations:
            self._watch.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _end_well(self, layouts: LayoutChanges) -> None:
        cluster = self.cluster
        await cluster.wait_until_up()
        if CHANGE_LAYOUT in self._profile.faults:
            await cluster.operator.start(layouts.resume())
            await self._wait_for(layouts.find_flaws, WHOLE_WITHIN_S)
        await self._wait_for(self._oracle.find_redundancy_flaws, WHOLE_WITHIN_S)
        await self._write_everywhere()
        await self._read_everything()
        self._check_listings()
        self._check_at_rest()
        await self._remove_the_dead()
        for gateway in cluster.gateways:  # what failed writes left is an orphan once their session is over
            await gateway.stop()
            gateway.start()
        await self._wait_for(self._oracle.find_unreferenced, SWEPT_WITHIN_S)
        self._check_redundancy()
        self.violations += cluster.world.network.defects
        self.violations += check_integrity(cluster.world.records.connection)

    async def _write_everywhere(self) -> None:
        """Every gateway takes writes again."""
        client = Client(self.cluster.world, "c0", [], self.cluster.buckets, self.ledger, self.violations, self._profile)
        for gateway in self.cluster.gateways:
            await client.process.start(client.put_through(gateway))

    async def _remove_the_dead(self) -> None:
        """Nodes whose disks were lost do not come back: an operator lets go of them."""
        end_s = self._loop.time() + REMOVED_WITHIN_S
        while dead := [node for node in self.cluster.current_map().nodes if node.state in LOST]:
            for node in dead:
                await self.cluster.operator.start(self.cluster.order("remove", node.report.node_id))
            if self._loop.time() > end_s:
                self._report(f"{len(dead)} dead nodes cannot be removed")
                return
            await asyncio.sleep(LOOK_EVERY_S)

    def _check_redundancy(self) -> None:
        for flaw in self._oracle.find_redundancy_flaws():
            self._report(f"at the end: {flaw}")

    async def _wait_for(self, look: Callable[[], list[str]], within_s: float) -> None:
        end_s = self._loop.time() + within_s
        while flaws := look():
            if self._loop.time() > end_s:
                self.violations += [f"after {within_s:.0f} s: {flaw}" for flaw in flaws[:5]]
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _read_everything(self) -> None:
        for place in sorted(self.ledger.places()):
            bucket = next(bucket for bucket in self.cluster.buckets if bucket.name == place.bucket)
            for gateway in self.cluster.gateways:
                begun_s = self._loop.time()
                try:
                    seen = await gateway.process.start(read_object(gateway.require(), bucket, place.key, None, None))
                except Exception as error:  # noqa: BLE001 - whatever it is, nothing must be raised now
                    if type(error).__name__ == "NoSuchKey":
                        self._report(self.ledger.find_flaw(place, None, "", begun_s, self._loop.time()))
                    else:
                        self._report(f"{place} cannot be read at the end: {error!r}")
                    continue
                self._report(self.ledger.find_flaw(place, b"", seen.etag, begun_s, self._loop.time()))
                self._report(check_bytes(self.ledger, place, seen))
            if bucket.versioning is Versioning.ENABLED:
                for version_id, write in self.ledger.expected_versions(place).items():
                    if write.content is not None:
                        await self._read_version(place, version_id)

    async def _read_version(self, place: Place, version_id: str) -> None:
        bucket = next(bucket for bucket in self.cluster.buckets if bucket.name == place.bucket)
        gateway = self.cluster.gateways[0]
        try:
            seen: Seen = await gateway.process.start(
                read_object(gateway.require(), bucket, place.key, version_id, None)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing must be raised now
            self._report(f"{place} {version_id} cannot be read at the end: {error!r}")
            return
        self._report(check_bytes(self.ledger, place, seen))

    def _check_listings(self) -> None:
        for bucket in self.cluster.buckets:
            page = run_now(self.cluster.world.records.reads.list_versions(bucket.bucket_id, limit=100_000))
            now_s = self._loop.time()
            if bucket.versioning is not Versioning.ENABLED:
                for entry in page.entries:
                    place = Place(bucket.name, entry.object_key)
                    self._report(self.ledger.find_flaw(place, b"", entry.etag, now_s, now_s))
                continue
            for entry in page.entries:
                place = Place(bucket.name, entry.object_key)
                self._report(
                    self.ledger.find_version_flaw(place, entry.version_id, entry.etag, is_marker=entry.is_marker)
                )

    def _check_at_rest(self) -> None:
        """Nothing is held by requests that are over."""
        for gateway in self.cluster.gateways:
            operations = gateway.require().operations
            if operations.budget.held_bytes or operations.budget.waiting:
                self._report(f"{gateway.party} still holds {operations.budget.held_bytes} bytes of its budget")

    def _report(self, flaw: str) -> None:
        if flaw:
            self.cluster.world.trace.note("run", f"VIOLATION: {flaw}")
            self.violations.append(flaw)

    def note_exception(self, loop: object, context: dict[str, object]) -> None:
        """What nobody awaited."""
        self._report(f"{context.get('message')}: {context.get('exception')!r}")

    def unwind(self) -> None:
        """End every task, whosever it is."""
        world = self.cluster.world
        world.network.is_closed = True
        self._loop.unwind()
        world.records.close()
