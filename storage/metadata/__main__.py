"""`python -m storage.metadata --data DIR --socket PATH [--config FILE]`: the process that owns DIR/metadata.db.

With a config the journal is replicated on the datanodes, or says why it is not (storage.journal); without one it is
local. SIGTERM and SIGINT drain: what was received is committed and answered, then it exits 0.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from storage.base.arguments import Option, parse_options
from storage.base.clock import SystemClock
from storage.base.core_dumps import forbid_core_dumps
from storage.base.errors import FrostbyteError
from storage.base.log import configure_logging
from storage.journal.config import OwnerConfig, load_config
from storage.journal.service import JournalService
from storage.metadata.sqlite.moved import require_not_moved
from storage.metadata.sqlite.open import MetadataOwner
from storage.metadata.sqlite.server import MetadataServer

_OPTIONS = (
    Option("--data", Path, "directory of metadata.db"),
    Option("--socket", Path, "path of the Unix socket to listen on"),
    Option("--config", Path, "config.json of the journal; without one it is local", required=False),
)

_log = logging.getLogger("storage.metadata")


async def _serve(data: Path, socket_path: Path, config: OwnerConfig | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    require_not_moved(data)
    service = None if config is None else JournalService(config, os.environ, SystemClock())
    owner = await MetadataOwner.open(data, journal=None if service is None else service.journal)
    if service is not None:
        await service.begin(owner.committer, data)
        service.start()
    server = MetadataServer(owner.committer)
    await server.start(socket_path)
    owner.committer.failed.add_done_callback(lambda _: stop.set())
    _log.info("metadata ready on %s", socket_path)
    await stop.wait()
    await server.close()
    if service is not None:
        await service.close()
    await owner.close()
    failed = owner.committer.failed.done()
    _log.info("metadata stopped")
    return 1 if failed else 0


def main() -> int:
    """Exit status 0 after a drain, 1 when the database cannot be opened or written."""
    arguments = parse_options("python -m storage.metadata", __doc__, _OPTIONS)
    configure_logging("metadata")
    forbid_core_dumps()
    try:
        config = load_config(arguments.config) if arguments.config else None
        return uvloop.run(_serve(arguments.data, arguments.socket, config))
    except (FrostbyteError, OSError, ValueError) as error:
        _log.error("cannot go on: %s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
