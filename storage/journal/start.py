"""How an owner that starts finds the journal: shut out every earlier owner, and learn what its database lacks.

The database has everything that was acknowledged, as its own log is synced at every commit. So at most the one group
that was under way when the last owner died is in the journal and not here; it is applied, since readers of the journal
would see it. More than that means that an older copy of the database was put in place: it is brought up to date.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from storage.base.errors import FrostbyteError, Unavailable
from storage.datanode.journal_client import JournalClient
from storage.datanode.journal_wire import JournalListing
from storage.journal.history import JournalGap, plan_spans
from storage.journal.keys import RANDOM_BYTES, JournalKeys
from storage.journal.nodes import JournalNodes
from storage.journal.record import Record, make_segment_id, parse_incarnation
from storage.journal.replay import Replayer, read_history
from storage.journal.stock import Source, Stock, list_sources, newest_owner, take_stock
from storage.metadata.sqlite.position import Position, list_pending, read_position
from storage.model import Node

_log = logging.getLogger(__name__)


class Diverged(FrostbyteError):
    """The database and the journal both went on, each its own way; the text says what an operator can do."""


class Contact(NamedTuple):
    """The datanodes that let this owner in. owner: what they know it by."""

    nodes: tuple[Node, ...]
    listings: dict[Source, JournalListing]
    owner: bytes


class Reached(NamedTuple):
    """Who answers, and what they have."""

    nodes: tuple[Node, ...]
    listings: dict[Source, JournalListing]


async def reach_nodes(nodes: Sequence[Node], pool: JournalNodes) -> Reached:
    """Ask all at once. Nodes of which the records say what cannot be do not answer."""
    known = _with_clients(nodes, pool)
    clients: list[Source] = [client for _, client in known]
    listings, _ = await list_sources(clients)
    return Reached(tuple(node for node, client in known if client in listings), listings)


async def fence_nodes(reached: Reached, pool: JournalNodes, floor: int) -> Contact:
    """Shut out every owner before this one, on every datanode that answered. floor: an incarnation that was used."""
    incarnation = max(parse_incarnation(newest_owner(reached.listings.values())), floor) + 1
    owner = make_segment_id(incarnation, secrets.token_bytes(RANDOM_BYTES))
    clients = pool.replicas(reached.nodes)
    answers = await asyncio.gather(*(client.fence(owner) for _, client in clients), return_exceptions=True)
    fenced: dict[Source, JournalListing] = {}
    nodes: list[Node] = []
    for (node, client), answer in zip(clients, answers, strict=True):
        if isinstance(answer, JournalListing):
            fenced[client] = answer
            nodes.append(node)
        elif not isinstance(answer, FrostbyteError):
            raise answer
    return Contact(tuple(nodes), fenced, owner)


async def catch_up(connection: sqlite3.Connection, keys: JournalKeys, contact: Contact) -> list[Record]:
    """Apply what the database lacks, on a connection that nobody else uses. → the records that the next segment begins
    with. JournalGap, Diverged, Corrupt; Unavailable from the disk."""
    position = read_position(connection.execute)
    if not position.history:
        return []
    stock = await take_stock(contact.listings, keys, since=position.incarnation)
    pending = [Record(*row) for row in list_pending(connection.execute)]
    if pending:
        await _check_pending(stock, position, pending)
        return pending
    return await _apply_rest(connection, stock, position)


async def _check_pending(stock: Stock, position: Position, pending: Sequence[Record]) -> None:
    """What was committed here while the journal took nothing begins the next segment. One group may be in the journal
    in its place, which nobody was told of; with more, another database was the journal's."""
    base = pending[0].sequence - 1
    own = {record.sequence: record.payload for record in pending}
    try:
        async for record in read_history(stock, position.history, base):
            if own.get(record.sequence) != record.payload and record.sequence > base + 1:
                raise Diverged(
                    f"the journal on the datanodes goes on to record {record.sequence} and beyond, but the database"
                    f" went its own way after {base}: recover the one that counts (frostbyte recover)"
                )
    except JournalGap as gap:
        raise Diverged(f"{gap}; the database went its own way after {base}") from gap


async def _apply_rest(connection: sqlite3.Connection, stock: Stock, position: Position) -> list[Record]:
    """→ the newest record, whether it was applied now or before: it may not be on as many datanodes as it should."""
    spans = plan_spans((it.header for it in stock.segments.values()), position.history)
    if not spans:
        return []
    after = max(position.sequence - 1, min(spans[0].first - 1, position.sequence))
    newest: Record | None = None
    applied = 0
    replayer = Replayer(connection)
    async for record in read_history(stock, position.history, after):
        if record.sequence > position.sequence:
            await asyncio.to_thread(_apply_one, connection, replayer.apply, record)
            applied += 1
        newest = record
    if applied:
        _log.warning("metadata journal: %d groups were applied that the database lacked", applied)
    return [newest] if newest is not None else []


def _apply_one(connection: sqlite3.Connection, apply: Callable[[Record], Any], record: Record) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        apply(record)
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise Unavailable(f"metadata.db: {error}") from error
        raise


def _with_clients(nodes: Sequence[Node], pool: JournalNodes) -> list[tuple[Node, JournalClient]]:
    """Without nodes of which the records say what cannot be."""
    found = []
    for node in nodes:
        try:
            found.append((node, pool.client(node)))
        except (ValueError, OSError) as error:
            _log.warning("metadata journal: node %d cannot be called: %s", node.number, error)
    return found
