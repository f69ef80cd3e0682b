"""`frostbyte recover`: the records again, from datanodes, keyring and master key alone, on this host or a new one.

    1 the records are built in DIR/metadata/recovering.db                 nothing of worth is left by a crash
    2 keyring, master.key and internal.key are copied into DIR            where they are not there already
    3 the records are given their name                                    a start would refuse: no cluster.json yet
    4 credentials.json, and last cluster.json                             `frostbyte up` starts

Whatever it stops at, it can be begun again. Nothing on the datanodes is changed.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from s3gw.cli.home import CLUSTER_FILE, FILES, lock_home, metadata_directory, read_cluster_id, store_recovered
from s3gw.cli.options import JsonOption
from s3gw.cli.options import run as run_loop
from s3gw.cli.recover_keys import RecoveryKeys, copy_keys, find_root_credentials, open_recovery_keys
from s3gw.cli.recover_report import Built, RecoveryReport, describe_report, make_report, plan_start
from s3gw.cli.recover_sources import (
    StoppedNode,
    call_running,
    choose_cluster,
    find_running,
    find_stopped,
    hold_stopped,
)
from s3gw.cli.salvage import print_salvage
from s3gw.config import ConfigError
from storage.base.files import make_directories
from storage.journal.keys import JournalKeys
from storage.journal.point_in_time import take_over
from storage.journal.recovery import (
    CannotRecover,
    Recovered,
    count_copies,
    leave_history,
    list_unseen,
    recover_database,
)
from storage.journal.status import STATUS_NAME
from storage.journal.stock import Source, Stock, list_sources, take_stock
from storage.metadata.sqlite.database import DATABASE_NAME
from storage.metadata.sqlite.moved import clear_moved
from storage.model import Node

SCRATCH_NAME = "recovering.db"
NOW_NAME = "recovering-now.db"


class RecoverOptions(NamedTuple):
    """See `recover`. addresses: of datanodes that run. at_ms: since the epoch."""

    home: Path
    datanodes: Sequence[Path]
    addresses: Sequence[str]
    keyring: Path
    master_key: Path
    tls_ca: str | None
    at_ms: int | None
    dry_run: bool
    accept_loss: bool


def recover(
    data: Annotated[Path | None, typer.Option(help="Directory to make: that of the next `frostbyte up`.")] = None,
    datanode: Annotated[list[Path] | None, typer.Option(help="Directory of a datanode that is stopped.")] = None,
    node: Annotated[list[str] | None, typer.Option(help="Address of a datanode that runs.")] = None,
    keyring: Annotated[Path | None, typer.Option(help="The cluster's keyring. [DIR/keyring]")] = None,
    master_key: Annotated[Path | None, typer.Option(help="The master key's file. [DIR/master.key]")] = None,
    at: Annotated[str, typer.Option(help="As it was at a moment: 2026-11-29T07:00:00Z.")] = "",
    tls_ca: Annotated[Path | None, typer.Option(help="What is trusted when calling datanodes (PEM).")] = None,
    accept_loss: Annotated[bool, typer.Option(help="Take what there is where something is missing.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Say what would come out; leave nothing.")] = False,
    salvage: Annotated[bool, typer.Option(help="List blobs from chunk headers alone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the records again from what the datanodes keep of them."""
    if salvage:
        print_salvage([node.path for node in find_stopped(datanode or [])], as_json=as_json)
        return
    if data is None:
        raise typer.BadParameter("--data says where to")
    options = RecoverOptions(
        data.absolute(),
        datanode or [],
        node or [],
        keyring or data / "keyring",
        master_key or data / "master.key",
        str(tls_ca) if tls_ca else None,
        _parse_moment(at) if at else None,
        dry_run,
        accept_loss,
    )
    report = run_loop(recover_records(options))
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
        return
    for line in describe_report(report):
        print(line)


def _parse_moment(text: str) -> int:
    """ISO 8601 with its zone → milliseconds since the epoch. ConfigError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise ConfigError("--at wants a moment with its zone, as 2026-11-29T07:00:00Z")
    if moment > datetime.now(UTC):
        raise ConfigError("--at is a moment that has not come yet")
    return round(moment.timestamp() * 1000)


async def recover_records(options: RecoverOptions) -> RecoveryReport:
    """All of it. ConfigError, CannotRecover, Unavailable."""
    async with AsyncExitStack() as held:
        stopped = find_stopped(options.datanodes)
        running = await find_running(options.addresses, options.tls_ca)
        identities = [*(node.identity for node in stopped), *(node.identity for node in running)]
        cluster_id = choose_cluster(identities)
        _require_free(options, cluster_id)
        hold_stopped(stopped, held)
        keys = open_recovery_keys(options.keyring, options.master_key, cluster_id, os.environ)
        clients = call_running(running, keys.require_internal_key() if running else b"", options.tls_ca)
        for client in clients:
            held.push_async_callback(client.close)
        sources: list[Source] = [*(node.source for node in stopped), *clients]
        stock = await _look(sources, keys)
        directory = _prepare(options, held)
        seen = frozenset(identity.node_id for identity in identities)
        report = await _build(options, stock, directory, seen, stopped)
        if options.dry_run:
            return report
        _finish(options, keys, directory)
        return report._replace(next_steps=plan_start(options.home, [node.path for node in stopped]))


def _require_free(options: RecoverOptions, cluster_id: str) -> None:
    """ConfigError where there are records already, or another cluster's files."""
    home = options.home
    if options.dry_run or not (home / CLUSTER_FILE).exists():
        return
    if read_cluster_id(home) != cluster_id:
        raise ConfigError(f"{home} belongs to another cluster than these datanodes")
    if (metadata_directory(home) / DATABASE_NAME).exists():
        raise ConfigError(f"{metadata_directory(home)} holds records: move them away to recover in their place")


async def _look(sources: Sequence[Source], keys: RecoveryKeys) -> Stock:
    listings, failures = await list_sources(sources)
    stock = await take_stock(listings, JournalKeys(keys.keyring, bytes.fromhex(keys.cluster_id)))
    stock.problems.extend(str(failure) for failure in failures.values())
    return stock


def _prepare(options: RecoverOptions, held: AsyncExitStack) -> Path:
    """The directory that the records are built in."""
    if options.dry_run:
        parent = next(it for it in (options.home, *options.home.parents) if it.exists())
        return Path(held.enter_context(tempfile.TemporaryDirectory(prefix="frostbyte-recover-", dir=parent)))
    make_directories(FILES, options.home / "run")
    make_directories(FILES, metadata_directory(options.home))
    held.enter_context(lock_home(options.home))
    return metadata_directory(options.home)


async def _build(
    options: RecoverOptions, stock: Stock, directory: Path, seen: frozenset[str], stopped: Sequence[StoppedNode]
) -> RecoveryReport:
    """The records as SCRATCH_NAME. CannotRecover."""
    scratch, now = directory / SCRATCH_NAME, directory / NOW_NAME
    try:
        recovered = await recover_database(stock, scratch, accept_loss=options.accept_loss)
        unseen = await asyncio.to_thread(_require_seen, options, stock, scratch, recovered, seen)
        locks = 0
        if options.at_ms is not None:
            _remove(now)
            scratch.rename(now)
            recovered = await recover_database(stock, scratch, until_ms=options.at_ms, accept_loss=options.accept_loss)
            locks = (await asyncio.to_thread(take_over, scratch, now)).locks
        looked = [node.path for node in stopped] if options.at_ms is not None else []
        built = Built(recovered, unseen, locks, options.at_ms, tuple(stock.problems))
        return await asyncio.to_thread(make_report, scratch, built, looked)
    except BaseException:
        _remove(scratch)
        raise
    finally:
        _remove(now)


def _require_seen(
    options: RecoverOptions, stock: Stock, scratch: Path, recovered: Recovered, seen: frozenset[str]
) -> tuple[Node, ...]:
    """→ the datanodes that were not looked at. CannotRecover when they may hold more of the journal."""
    unseen = list_unseen(scratch, seen)
    if len(unseen) < count_copies(stock, recovered.history):
        return tuple(unseen)
    if not options.accept_loss:
        named = ", ".join(f"{node.number} ({node.report.address})" for node in unseen)
        raise CannotRecover(
            f"datanodes {named} were not looked at, and together they may hold what was written last: give them too, or"
            " take what there is with --accept-loss"
        )
    leave_history(scratch)
    return tuple(unseen)


def _finish(options: RecoverOptions, keys: RecoveryKeys, directory: Path) -> None:
    """Steps 2 to 4 of the module."""
    copy_keys(keys, options.home)
    scratch, database = directory / SCRATCH_NAME, directory / DATABASE_NAME
    _remove(database)
    clear_moved(directory)
    (directory / STATUS_NAME).unlink(missing_ok=True)
    FILES.replace(scratch, database)
    FILES.fsync_directory(directory)
    _remove(scratch)
    store_recovered(options.home, keys.cluster_id, find_root_credentials(database, keys.keyring))


def _remove(database: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
