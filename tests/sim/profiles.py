"""What kind of run a seed makes: how large a cluster, which sizes, which faults and how often."""

from __future__ import annotations

import random
from typing import NamedTuple

from cluster.redundancy import parse_redundancy

SIZE_SETS = (
    (0, 100, 300, 5_000, 40_000),
    (700, 3_000, 20_000, 66_000),
    (100, 66_000, 140_000, 300_000),
    (5_000, 5_000, 5_000),
)
ERASURE_SIZES = (700, 20_000, 220_000, 400_000)
FAULT_KINDS = (
    "weather",
    "cut",
    "stop",
    "pause",
    "crash",
    "power",
    "full",
    "slow",
    "rot",
    "lose disk",
    "set clock",
    "strike",
    "records away",
    "drain",
    "join",
)
LOSE_RECORDS = "lose records"
"""of runs whose records have a journal"""
JOURNALED_SHARE = 0.25
CHANGE_LAYOUT = "change layout"
CHANGE_LAYOUT_SHARE = 0.25


class Profile(NamedTuple):
    """Times are virtual seconds."""

    nodes: int
    zones: int
    gateways: int
    masters: int
    clients: int
    redundancy: str
    chunk_bytes: int
    sizes: tuple[int, ...]
    load_s: float
    pause_s: float
    """the mean between two operations of a client"""
    slowness: float
    """how likely a client is slow to send a body, or to take one"""
    faults: tuple[str, ...]
    fault_every_s: float
    """the mean"""
    journaled: bool = False
    """the records have their journal on the datanodes, and their host may be lost"""

    def __str__(self) -> str:
        return (
            f"{self.nodes} nodes in {self.zones} zones, {self.gateways} gateways, {self.masters} masters,"
            f" {self.clients} clients, {self.redundancy}, chunks of {self.chunk_bytes}, {self.load_s:.0f} s,"
            f" every {self.fault_every_s:.1f} s one of {', '.join(self.faults)}"
            + (", journaled" if self.journaled else "")
        )


def draw_profile(seed: int) -> Profile:
    """Decided by the seed alone."""
    draw = random.Random(f"{seed} profile")
    redundancy = draw.choices(("replica:1", "replica:2", "replica:3", "ec:2+1", "ec:3+2"), (1, 5, 3, 2, 2))[0]
    policy = parse_redundancy(redundancy)
    nodes = draw.randint(max(3, policy.width + 1), 6)
    kinds = draw.sample(FAULT_KINDS, draw.randint(2, 7))
    journaled = random.Random(f"{seed} records").random() < JOURNALED_SHARE
    if journaled:
        kinds.append(LOSE_RECORDS)
    if random.Random(f"{seed} layouts").random() < CHANGE_LAYOUT_SHARE:
        kinds.append(CHANGE_LAYOUT)
    return Profile(
        nodes=nodes,
        zones=draw.choice((1, 1, 2, 3, nodes)),
        gateways=draw.randint(1, 3),
        masters=draw.choice((1, 1, 2)),
        clients=draw.randint(2, 4),
        redundancy=redundancy,
        chunk_bytes=256 << 10 if policy.is_erasure else draw.choice((8 << 10, 64 << 10, 256 << 10)),
        sizes=ERASURE_SIZES if policy.is_erasure else draw.choice(SIZE_SETS),
        load_s=draw.uniform(10.0, 24.0),
        pause_s=draw.choice((0.2, 0.5, 1.0)),
        slowness=draw.choice((0.0, 0.1, 0.3)),
        faults=tuple(kinds),
        fault_every_s=draw.choice((1.5, 3.0, 6.0)),
        journaled=journaled,
    )
