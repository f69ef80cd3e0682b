"""What goes wrong, drawn by the seed: of the network, of processes, of disks, of clocks.

Everything is healed in the end. What no redundancy promises to survive never happens: no second disk is lost, and no
second copy rots, before the first is made up for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.redundancy import parse_redundancy
from storage.base.ids import stored_chunk_id
from storage.model import NodeState
from tests.sim.clients import Client
from tests.sim.clusters import Place, SimCluster
from tests.sim.disks import CAPACITY_BYTES
from tests.sim.http import short
from tests.sim.layout_changes import LayoutChanges
from tests.sim.loop import Process, ProcessState
from tests.sim.metadata import PARTY as RECORDS
from tests.sim.nodes import SimDatanode
from tests.sim.oracle import Oracle
from tests.sim.owners import OwnedRecords
from tests.sim.profiles import CHANGE_LAYOUT, LOSE_RECORDS, Profile
from tests.sim.strikes import Strikes

CHANGES = ("CommitVersion", "CompleteUpload", "DeleteVersions")
CLOCK_JUMPS_S = (-86_400.0, -3_600.0, -60.0, -5.0, 5.0, 60.0, 3_600.0, 86_400.0)


class Faults:
    """One per run. `run` until it is cancelled, then `heal`."""

    def __init__(self, cluster: SimCluster, profile: Profile, clients: list[Client], oracle: Oracle) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._profile = profile
        self._clients = clients
        self._oracle = oracle
        self._random = self._world.generator("faults")
        self._undo: dict[int, Callable[[], None]] = {}
        self._begun = 0
        self._strikes = Strikes(self._world.loop, self._random, self._struck)
        self._damaged_s: float | None = None
        """when something was damaged for good last"""
        self._kinds: dict[str, Callable[[], str]] = {
            "weather": self._bad_weather,
            "cut": self._cut,
            "stop": self._stop,
            "pause": self._pause,
            "crash": self._crash,
            "power": self._cut_power,
            "full": self._fill,
            "slow": self._slow,
            "rot": self._rot,
            "lose disk": self._lose_disk,
            "set clock": self._set_clock,
            "strike": self._arm,
            "records away": self._records_away,
            "drain": self._drain,
            "join": self._join,
            LOSE_RECORDS: self._lose_records,
            CHANGE_LAYOUT: self._change_layout,
        }
        self.layouts = LayoutChanges(cluster, self._world.generator("layouts"), profile.redundancy)
        self._records_doomed = False
        """the host of the records is lost right after the next change of an object"""
        self._disks_lost = 0
        self._world.network.interfere = self._interfere

    async def run(self) -> None:
        """One fault after the other, each healed after a while."""
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._profile.fault_every_s))
            kind = self._random.choice(self._profile.faults)
            said = self._kinds[kind]()
            if said:
                self._world.trace.note("fault", f"{kind}: {said}")
                self._world.trace.count(kind)

    def heal(self) -> None:
        """All of it."""
        self._world.network.interfere = None
        for key in list(self._undo):
            self._heal_one(key)
        self._world.network.weather.clear()
        for link in self._world.links:
            link.read_failures = 0.0
        for place in self._cluster.places():
            place.process.resume()
            place.clock.set_right()  # tickets of copies hold for two minutes of the source's clock
            if not place.process.is_alive:
                place.start()

    def _interfere(self, phase: str, label: str, caller: Process, callee: Process) -> None:
        if self._records_doomed and phase == "served" and label.startswith(CHANGES):
            self._records_doomed = False
            self._world.loop.later(self._random.uniform(0, 0.05), self._lose_host)
        self._strikes.look(phase, label, caller, callee)

    # ------------------------------------------------------------------ the network

    def _bad_weather(self) -> str:
        weather = self._world.network.weather
        weather.loss = self._random.choice((0.0, 0.01, 0.05))
        weather.duplication = self._random.choice((0.0, 0.05, 0.3))
        weather.garbling = self._random.choice((0.0, 0.0, 0.05, 0.2))
        weather.lateness = self._random.choice((0.0, 0.02, 0.1))
        weather.late_s = self._random.choice((0.5, 3.0, 12.0))
        self._later(self._random.uniform(5, 40), weather.clear)
        return (
            f"loss {weather.loss}, duplication {weather.duplication}, garbling {weather.garbling},"
            f" {weather.lateness} late by {weather.late_s} s"
        )

    def _cut(self) -> str:
        parties = sorted(self._world.network.parties)
        one, other = self._random.sample(parties, 2)
        cuts = [(one, other)] if self._random.random() < 0.4 else [(one, other), (other, one)]
        if self._random.random() < 0.3:  # one against all
            cuts = [pair for party in parties if party != one for pair in ((one, party), (party, one))]
        self._world.network.weather.cuts.update(cuts)
        self._later(self._random.uniform(1, 30), lambda: self._world.network.weather.cuts.difference_update(cuts))
        return " ".join(f"{source}>{target}" for source, target in cuts)

    def _slow(self) -> str:
        node = self._random.choice(self._cluster.nodes)
        factor = self._random.choice((10.0, 100.0, 1_000.0))
        slow = self._world.network.weather.slow
        slow[node.party] = factor
        disk = node.disk
        disk.sync_s *= factor

        def undo() -> None:
            slow.pop(node.party, None)
            disk.sync_s /= factor

        self._later(self._random.uniform(5, 30), undo)
        return f"{node.party} by {factor:.0f}"

    # ------------------------------------------------------------------ processes

    def _stop(self) -> str:
        return self._strike_down(self._random.choice(list(self._cluster.places())), "stop")

    def _pause(self) -> str:
        """A gateway or a master is stopped for longer than a lease."""
        place = self._random.choice([*self._cluster.gateways, *self._cluster.masters])
        if place.process.state is not ProcessState.RUNNING:
            return ""
        place.process.stop()
        self._later(self._random.uniform(30, 75), place.process.resume)
        return place.process.name

    def _crash(self) -> str:
        return self._strike_down(self._random.choice(list(self._cluster.places())), "kill")

    def _cut_power(self) -> str:
        return self._strike_down(self._random.choice(self._cluster.nodes), "power")

    def _strike_down(self, place: Place, how: str) -> str:
        process = place.process
        if process.state is not ProcessState.RUNNING:
            return ""
        if how == "stop":
            process.stop()
            self._later(self._random.choice((0.5, 4.0, 15.0, 30.0)) * self._random.random(), process.resume)
            return f"{process.name} stopped"
        undone = place.cut_power() if how == "power" and isinstance(place, SimDatanode) else 0
        process.kill()
        self._later(self._random.choice((0.2, 3.0, 30.0)) * self._random.random(), lambda: _start_again(place))
        return f"{process.name} killed" + (f", {undone} changes undone" if undone else "")

    def _records_away(self) -> str:
        """Where the records are a server of their own, reads fail as well."""
        share = self._random.choice((0.05, 0.3, 1.0))
        for link in self._world.links:
            link.read_failures = share

        def undo() -> None:
            for link in self._world.links:
                link.read_failures = 0.0

        self._later(self._random.uniform(1, 15), undo)
        return f"{share:.0%} of the reads fail"

    def _lose_records(self) -> str:
        """The host of the records, with the masters and gateways that are on it: they come back on another one."""
        if not isinstance(self._world.records, OwnedRecords):
            return ""
        self._records_doomed = True
        return "after the next change"

    def _lose_host(self) -> None:
        records = self._world.records
        if not isinstance(records, OwnedRecords) or not records.is_covered():
            return
        self._world.trace.note("fault", "the host of the records is lost")
        self._world.trace.count("lost host")
        records.lose()
        for place in (records, *self._cluster.masters, *self._cluster.gateways):
            place.process.kill()
            self._later(self._random.uniform(1, 10), lambda place=place: _start_again(place))  # type: ignore[misc]

    def _arm(self) -> str:
        return f"the {self._strikes.arm()}"

    def _struck(self, process: Process, label: str, how: str) -> None:
        for place in self._cluster.places():
            if place.process is process:
                self._world.trace.note("fault", f"struck at {label}: {self._strike_down(place, how)}")
                self._world.trace.count("struck")

    def _set_clock(self) -> str:
        clocks = {place.process.name: place.clock for place in self._cluster.places()}
        name = self._random.choice(sorted(clocks))
        jump_s = self._random.choice(CLOCK_JUMPS_S)
        if name == RECORDS or name in self._world.fleet:
            jump_s = min(jump_s, 60.0)  # what they stamp with a time that is far ahead is swept when that has come
        if name == RECORDS:
            jump_s = max(jump_s, -60.0)  # its time stands still until it has caught up
        clock = clocks[name]
        clock.set_by(jump_s)
        if self._random.random() < 0.7:
            self._later(self._random.uniform(1, 30), clock.set_right)
        return f"of {name} by {jump_s:.0f} s"

    # ------------------------------------------------------------------ disks

    def _fill(self) -> str:
        node = self._random.choice(self._cluster.nodes)
        disk = node.disk
        disk.capacity_bytes = sum(map(len, disk.chunks.values()))

        def undo() -> None:
            disk.capacity_bytes = CAPACITY_BYTES

        self._later(self._random.uniform(5, 30), undo)
        return node.party

    def _rot(self) -> str:
        """One piece, of a chunk that has all the others."""
        if parse_redundancy(self._profile.redundancy).losses < 1 or not self._may_damage():
            return ""
        by_number = self._oracle.by_number()
        whole = [
            place
            for place in self._oracle.places()
            if not place.is_released and all(piece.is_good for piece in self._oracle.pieces(place, by_number))
        ]
        if not whole:
            return ""
        place = self._random.choice(whole)
        piece = self._random.choice(self._oracle.pieces(place, by_number))
        assert piece.node is not None
        chunk_id = stored_chunk_id(place.blob_id, place.chunk_index, place.generation)
        piece.node.disk.rot(chunk_id)
        return f"{short(chunk_id)} on {piece.node.party}"

    def _lose_disk(self) -> str:
        if parse_redundancy(self._profile.redundancy).losses < 1 or not self._may_damage():
            return ""
        if self._disks_lost and isinstance(self._world.records, OwnedRecords):
            return ""  # the journal has two copies, and a disk that comes back empty is not missed for minutes
        self._disks_lost += 1
        node = self._random.choice(self._cluster.nodes)
        same_id = self._random.random() < 0.5
        node.lose_disk(same_id=same_id)
        self._cluster.on_node(node)
        self._oracle.lost_s[node.party] = self._damaged_s = self._world.loop.time()
        self._later(self._random.uniform(0.5, 40), lambda: _start_again(node))
        return f"{node.party}, comes back {'empty' if same_id else 'as another'}"

    def _may_damage(self) -> bool:
        """Whether the last damage is made up for: all is whole, and no write began before it that is not over."""
        if self._oracle.find_redundancy_flaws():
            return False
        if self._damaged_s is None:
            return True
        since_s = min((it.busy_since_s for it in self._clients if it.busy_since_s is not None), default=None)
        return since_s is None or since_s > self._damaged_s

    # ------------------------------------------------------------------ orders

    def _drain(self) -> str:
        node = self._random.choice(self._cluster.nodes)
        up = [known for known in self._cluster.current_map().nodes if known.state is NodeState.UP]
        if len(up) <= self._width + 1:
            return ""  # nobody drains a node whose pieces have nowhere to go
        self._order("drain", node)
        if self._random.random() < 0.5:
            self._later(self._random.uniform(2, 30), lambda: self._order("resume", node))
        return node.party

    @property
    def _width(self) -> int:
        """Nodes that a chunk may need."""
        default = parse_redundancy(self._profile.redundancy).width
        return self.layouts.width_max if CHANGE_LAYOUT in self._profile.faults else default

    def _change_layout(self) -> str:
        return self.layouts.change()

    def _order(self, verb: str, node: SimDatanode) -> None:
        self._cluster.operator.start(self._cluster.order(verb, node.node_id))

    def _join(self) -> str:
        if len(self._cluster.nodes) >= self._profile.nodes + 2:
            return ""
        node = self._cluster.add_node()
        node.start()
        return node.party

    # ------------------------------------------------------------------ healing

    def _later(self, delay_s: float, undo: Callable[[], object]) -> None:
        self._begun += 1
        key = self._begun
        self._undo[key] = lambda: (undo(), None)[1]
        self._world.loop.later(delay_s, self._heal_one, key)

    def _heal_one(self, key: int) -> None:
        undo = self._undo.pop(key, None)
        if undo is not None:
            undo()


def _start_again(place: Place) -> None:
    if not place.process.is_alive:
        place.start()
