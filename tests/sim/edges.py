"""Puts the simulation in place of what reaches out of a process: sockets, clocks, files, the way to the records.

Everything else of the compositions of masters and datanodes runs as it is. What stands in is that of the process that
asks: its place says what its clock and its disk are.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any
from unittest import mock

from cluster import __main__ as master_main
from cluster.maintenance import rebalancer, rewrite
from s3gw.cli import recover_keys, recover_sources
from storage.base import internal_auth, internal_client, internal_line, internal_server
from storage.base.clock import SystemClock
from storage.datanode import __main__ as datanode_main
from storage.datanode import journal_app
from storage.journal import service
from storage.metadata.sqlite import checkpoint, uploads, writer
from storage.metadata.sqlite import open as opening
from tests.cluster.world import FixedMasterKey
from tests.sim.disks import SimPool
from tests.sim.http import SimClient, SimLine, serve_app
from tests.sim.loop import require_process
from tests.sim.owners import NoStatusFile, WatchedCommitter, unsynced
from tests.sim.turns import Queues, Threading, run_on_loop

KEYS_CACHED = 256
PACKAGES = ("cluster.", "storage.")


@contextmanager
def simulated_edges(internal_key: bytes) -> Iterator[None]:
    """While it is open."""
    with ExitStack() as stack:
        for name, module in sorted(sys.modules.items()):
            if name.startswith(PACKAGES):
                for attribute, stand_in in _STAND_INS:
                    if getattr(module, attribute, None) is _REAL[attribute]:
                        stack.enter_context(mock.patch.object(module, attribute, stand_in))
        for owner, attribute, stand_in in (
            (master_main, "open_metadata", _open_metadata),
            (master_main, "load_internal_key", lambda path: internal_key),
            (datanode_main, "choose_files", lambda config: require_process().place.files),
            (datanode_main, "find_failure_domain", lambda *_: require_process().place.failure_domain),
            (journal_app, "WorkerPool", SimPool),
            (service, "open_master_keys", lambda *_, **__: FixedMasterKey()),
            (service, "read_internal_key", lambda *_: internal_key),
            (service, "DiskFiles", lambda: require_process().place.key_files),
            (service, "StatusFile", NoStatusFile),
            (opening, "GroupCommitter", WatchedCommitter),
            (opening, "connect_writer", unsynced(opening.connect_writer)),
            (writer, "threading", Threading),
            (writer, "queue", Queues),
            (checkpoint, "threading", Threading),
            (asyncio, "run_coroutine_threadsafe", run_on_loop),
            (recover_keys, "open_master_keys", lambda *_, **__: FixedMasterKey()),
            (recover_keys, "SystemClock", _place_clock),
            (recover_sources, "InternalClient", SimClient),
            (uploads, "PART_SIZE_MIN_BYTES", 1),  # or every upload of two parts would take five mebibytes
            (rebalancer, "CENSUS_AGE_S_MAX", 60.0),  # or a run would last until ten minutes are over
            (rewrite, "LOOK_AGAIN_S", 120.0),
            (rebalancer, "RETRY_FIRST_S", 15.0),
        ):
            stack.enter_context(mock.patch.object(owner, attribute, stand_in))
        yield


def _place_clock() -> Any:
    return require_process().place.clock


async def _open_metadata(settings: object) -> Any:
    process = require_process()
    return process.place.world.link(process)


_REAL = {
    "derive_node_key": internal_auth.derive_node_key,
    "report_token": internal_auth.report_token,
    "InternalClient": internal_client.InternalClient,
    "InternalLine": internal_line.InternalLine,
    "serve": internal_server.serve,
    "SystemClock": SystemClock,
}
_STAND_INS: tuple[tuple[str, object], ...] = (
    ("InternalClient", SimClient),
    ("InternalLine", SimLine),
    ("serve", serve_app),
    ("SystemClock", _place_clock),
    # The same few keys and tokens, thousands of times.
    ("derive_node_key", lru_cache(KEYS_CACHED)(internal_auth.derive_node_key)),
    ("report_token", lru_cache(KEYS_CACHED)(internal_auth.report_token)),
)
