"""`python -m storage.datanode --data DIR --config FILE`: one datanode, until SIGTERM.

The order of the start: the configuration is checked; a directory of another cluster is refused before anything in it is
touched; the chunk store takes the directory's lock; only then is an identity made where there is none; the socket
accepts; and the masters are told.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from storage.base.address import Address
from storage.base.arguments import Option, parse_options
from storage.base.clock import SystemClock
from storage.base.core_dumps import forbid_core_dumps
from storage.base.errors import JournalError, Unavailable
from storage.base.files import DiskFiles, FileSystem, make_directories
from storage.base.internal_server import CannotListen, load_server_tls, serve
from storage.base.lean_protocol import LeanProtocol
from storage.base.log import configure_logging
from storage.base.open_files import raise_open_files_limit
from storage.chunks.disk import DiskChunkStore
from storage.datanode.app import DatanodeApp
from storage.datanode.config import (
    DURABILITY_NONE,
    ConfigError,
    DatanodeConfig,
    choose_reserve_bytes,
    load_config,
    load_node_key,
)
from storage.datanode.heartbeat import Heartbeats
from storage.datanode.identity import (
    FORMAT_VERSION,
    Identity,
    WrongDirectory,
    find_failure_domain,
    find_identity,
    mark_format,
    store_identity,
)
from storage.datanode.intake import Intake
from storage.datanode.journal_app import JournalRoutes
from storage.datanode.journal_files import JournalFiles
from storage.datanode.medium_watch import MediumWatch
from storage.datanode.peers import Peers
from storage.datanode.scrubber import SCRUB_FILE, Scrubber, ScrubFile
from storage.datanode.unsynced import UnsyncedFiles
from storage.model import NodeReport

EXIT_REFUSED = 2
_OPTIONS = (
    Option("--data", Path, "directory of this node alone"),
    Option("--config", Path, "config.json of this node"),
)

_log = logging.getLogger("storage.datanode")


async def run(config: DatanodeConfig, directory: Path, store: DiskChunkStore, identity: Identity) -> None:
    """Serve the store until SIGTERM or SIGINT, scrubbing it and reporting to the masters meanwhile. CannotListen,
    ConfigError."""
    node_key = load_node_key(config, identity.node_id)
    domain = find_failure_domain(directory, config.zone, config.host)
    tls_ca = config.tls_ca or None
    peers = Peers(tls_ca=tls_ca)
    files = choose_files(config)
    reserve_bytes = choose_reserve_bytes(config, files.space(directory).capacity_bytes)
    journal = JournalRoutes(JournalFiles(files, directory, reserve_bytes))
    advertised = config.advertise
    clock, intake = SystemClock(), Intake()
    scrubber = Scrubber(store, clock, config.scrub, ScrubFile(files, directory / SCRUB_FILE))
    medium = MediumWatch(store, clock)
    realm = f"{identity.cluster_id}/{identity.node_id}"
    app = DatanodeApp(
        store, node_key, clock, peers, journal=journal, realm=realm, scrubber=scrubber, intake=intake, lending=store
    )
    fixed = NodeReport(
        *identity, config.advertise, domain, 0, 0, 0, format_version=FORMAT_VERSION, durability=config.durability
    )

    async def make_report() -> NodeReport:
        figures = {**(await store.space())._asdict(), **store.figures._asdict()}
        return msgspec.structs.replace(
            fixed,
            address=advertised,
            requests=app.requests,
            clock_ms=clock.now_ms(),
            medium_error=medium.look(),
            **figures,
        )

    heartbeats = Heartbeats(config.master_addresses, identity.node_id, node_key, make_report, tls_ca, intake.hear)

    def announce(bound: Address) -> None:
        nonlocal advertised
        advertised = advertised or str(bound)
        _log.info("node %s serves %s at %s", identity.node_id, directory, bound)
        heartbeats.start()
        scrubber.start()

    try:
        await serve(
            app,
            config.listen_address,
            config.tls,
            on_started=announce,
            make_protocol=partial(LeanProtocol, app.lean_calls),
        )
    finally:
        await heartbeats.close()
        medium.close()
        await scrubber.close()
        await peers.close()
        journal.close()
    _log.info("node %s stopped", identity.node_id)


def choose_files(config: DatanodeConfig) -> FileSystem:
    """Whether anything is synced."""
    return UnsyncedFiles() if config.durability == DURABILITY_NONE else DiskFiles()


def open_directory(config: DatanodeConfig, directory: Path) -> tuple[DiskChunkStore, Identity]:
    """The store, which holds the directory's lock until it is closed, and who it belongs to. WrongDirectory,
    Unavailable when another process holds it, OSError."""
    files = choose_files(config)
    make_directories(files, directory)
    identity = find_identity(files, directory, config.cluster_id, config.node_id)
    reserve_bytes = choose_reserve_bytes(config, files.space(directory).capacity_bytes)
    store = DiskChunkStore(files, directory, reserve_bytes=reserve_bytes)
    try:
        # Asked again under the lock: another process may have made it between the two looks.
        identity = identity or find_identity(files, directory, config.cluster_id, config.node_id)
        identity = identity or store_identity(files, directory, config.cluster_id, config.node_id)
        mark_format(files, directory, identity)
        return store, identity
    except BaseException:
        store.close()
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """The process: 0 after a drain, EXIT_REFUSED with one line in the log when it cannot start."""
    options = parse_options("python -m storage.datanode", "One Frostbyte datanode.", _OPTIONS, arguments)
    configure_logging("datanode")
    raise_open_files_limit()
    forbid_core_dumps()
    try:
        config = load_config(options.config)
        load_server_tls(config.listen_address, config.tls)
        if config.durability == DURABILITY_NONE:
            _log.warning("durability is none: a power cut may lose chunks that were acknowledged")
        store, identity = open_directory(config, options.data)
        try:
            uvloop.run(run(config, options.data, store, identity))
        finally:
            store.close()
    except (ConfigError, CannotListen, WrongDirectory, Unavailable, JournalError, OSError) as error:
        _log.error("cannot start: %s", error)
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
