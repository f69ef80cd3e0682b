"""Bugs of the journal, of recoveries, and of what changes the redundancy of a bucket. See bugs.py."""

from __future__ import annotations

from typing import Any

from storage.journal import writer
from storage.journal.record import Record
from storage.metadata import commands as c
from storage.metadata.rules import layouts_to_forget
from storage.metadata.sqlite import layouts
from storage.metadata.sqlite.apply import HANDLERS
from tests.sim.bugs import Bug, change
from tests.sim.profiles import CHANGE_LAYOUT, LOSE_RECORDS

LATE_RECORDS = 3

_append = writer.ReplicatedJournal._append_everywhere


def _append_later(self: writer.ReplicatedJournal, execute: Any, record: Record) -> None:
    late = vars(self).setdefault("_late", [])
    late.append(record)
    if len(late) > LATE_RECORDS:
        _append(self, execute, late.pop(0))


def _forget_anything(tx: Any, command: c.ForgetBlobs) -> None:
    for blob_id, generation in layouts_to_forget(command):
        for statement in ("DELETE FROM blobs WHERE blob_id = ?", layouts._DELETE_CHUNKS):
            tx.execute(statement, (blob_id,))
        tx.execute(layouts._FORGET_LAYOUT, (blob_id, generation))


_LAID_OUT = {
    "faults": (CHANGE_LAYOUT, "weather"),
    "fault_every_s": 1.0,
    "load_s": 30.0,
    "nodes": 6,
    "masters": 1,
    "clients": 3,
    "pause_s": 0.5,
    "redundancy": "replica:2",
    "chunk_bytes": 256 << 10,
    "sizes": (5_000, 140_000, 220_000),
    "slowness": 0.0,
}
_LOST = {
    "journaled": True,
    "faults": (LOSE_RECORDS,),
    "fault_every_s": 3.0,
    "load_s": 20.0,
    "clients": 4,
    "pause_s": 0.5,
    "redundancy": "replica:2",
    "sizes": (700, 3_000),
    "slowness": 0.0,
}

JOURNAL_BUGS = (
    Bug(
        "journal written after the ack",
        "A group of commands is answered, and put on the datanodes with a later one.",
        change((writer.ReplicatedJournal, "_append_everywhere", _append_later)),
        "is not there",
        (1,),
        _LOST,
    ),
    Bug(
        "no re-check before delete",
        "The rows of what was to be forgotten are deleted without another look whether it is the layout in use.",
        change((HANDLERS, c.ForgetBlobs, _forget_anything)),
        "",
        (1,),
        _LAID_OUT,
    ),
)
