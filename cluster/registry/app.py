"""The master's HTTP application, for datanodes, gateways and the command line. Bodies for programs are msgpack.

    POST /v1/heartbeat                 a datanode's NodeReport → HeartbeatAnswer; its report token, x-frostbyte-node
    GET  /v1/map?epoch=N&wait_s=S      ClusterMap, at once when its epoch is not N, else after a change or S seconds
    GET  /v1/nodes                     the same for people, as JSON
    POST /v1/nodes/{id}/drain|resume   begin to empty a node, or take that back
    …    /v1/jobs, /v1/survey, …       the maintenance jobs: see maintenance.py
    GET  /v1/lease                     who is the active master, as JSON; answered by those that stand by as well
    GET  /v1/health                    `ok`; the only one without a token, and answered by those that stand by

All others want the master's access token. A refused report is 409 with its reason in one line. A master that is not the
active one answers 503 NotActiveMaster, with the address of the active one in x-frostbyte-active-master if it knows it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from cluster.registry.leadership import Leadership
from cluster.registry.maintenance import MaintenanceRoutes
from cluster.registry.registry import Registry
from cluster.registry.state import ReportRefused
from storage.base.errors import FrostbyteError, NotActiveMaster, Refused, Unavailable
from storage.base.internal_auth import (
    MASTER_NODE_ID,
    NODE_HEADER,
    ROLE_DATANODE,
    ROLE_MASTER,
    access_token,
    derive_node_key,
    is_bearer,
    report_token,
)
from storage.datanode import wire
from storage.datanode.exchange import BadRequest, Exchange, Receive, Send
from storage.model import ClusterMap, NodeReport

REPORT_BYTES_MAX = 16 * 1024
MAP_WAIT_S_MAX = 20.0
"""below every idle deadline on the way"""
MAP = "/v1/map"
NODES = "/v1/nodes"
LEASE = "/v1/lease"
HEALTH = "/v1/health"

_NODE_ACTION = re.compile(r"/v1/nodes/([0-9a-f]{32})/(drain|resume)\Z")
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,3})?\Z")

_log = logging.getLogger(__name__)
_report = msgspec.msgpack.Decoder(NodeReport)


class MasterRole(msgspec.Struct, frozen=True):
    """What a master says of itself. active and term: of the lease as it knows it; error: why it knows no better."""

    is_active: bool
    active: str
    term: int
    error: str


class Unauthorized(Exception):
    """No token, or another one than this request needs."""


class MasterApp:
    """ASGI application over a Registry. maintenance: what jobs there are, if any."""

    def __init__(
        self,
        registry: Registry,
        leadership: Leadership,
        internal_key: bytes,
        maintenance: MaintenanceRoutes | None = None,
    ) -> None:
        self._registry = registry
        self._leadership = leadership
        self._internal_key = internal_key
        self._token = access_token(derive_node_key(internal_key, ROLE_MASTER, MASTER_NODE_ID))
        self._maintenance = maintenance
        self._handlers: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
            ("POST", wire.HEARTBEAT): self._heartbeat,
            ("GET", HEALTH): self._health,
            ("GET", MAP): self._map,
            ("GET", NODES): self._nodes,
            ("GET", LEASE): self._show_lease,
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            handler = self._handlers.get((exchange.method, exchange.path), self._answer_others)
            await handler(exchange)
        except Unauthorized:
            await exchange.answer_failure(401, "Unauthorized", "a token is missing or is not the right one")
        except BadRequest as refusal:
            await exchange.answer_failure(refusal.status, "BadRequest", str(refusal))
        except ReportRefused as refusal:
            _log.warning("%s refused: %s", exchange.path, refusal)
            await exchange.answer_failure(409, type(refusal).__name__, str(refusal))
        except NotActiveMaster as refusal:
            await self._point_to_the_active_one(exchange, refusal)
        except (Unavailable, Refused) as error:
            await exchange.answer_failure(503, type(error).__name__, str(error))
        except FrostbyteError as error:
            _log.error("%s %s: %s: %s", exchange.method, exchange.path, type(error).__name__, error)
            await exchange.answer_failure(500, type(error).__name__, str(error))
        except Exception as error:  # noqa: BLE001 - the process's edge: a defect costs one request
            _log.exception("%s %s", exchange.method, exchange.path)
            if not exchange.started:
                await exchange.answer_failure(500, "InternalError", type(error).__name__)

    async def _point_to_the_active_one(self, exchange: Exchange, refusal: NotActiveMaster) -> None:
        if self._leadership.is_active:  # the records refused a write of this term
            self._leadership.doubt()
        active = refusal.details.get("active", "")
        named = active if active.isascii() and active.isprintable() else ""
        headers = ((wire.ACTIVE_MASTER_HEADER.encode(), named.encode()),) if named else ()
        await exchange.answer_failure(503, NotActiveMaster.__name__, str(refusal), headers)

    async def _heartbeat(self, exchange: Exchange) -> None:
        node_id = exchange.header(NODE_HEADER.encode())
        try:
            expected = report_token(derive_node_key(self._internal_key, ROLE_DATANODE, node_id))
        except ValueError:
            raise Unauthorized from None
        _require(exchange, expected)
        self._leadership.require()
        try:
            report = _report.decode(await exchange.read_body(REPORT_BYTES_MAX))
        except (msgspec.MsgspecError, ValueError) as error:
            raise BadRequest(400, f"not a report: {error}") from None
        if report.node_id != node_id:
            raise BadRequest(400, "a node reports for itself only")
        answer = await self._registry.heartbeat(report)
        await exchange.answer(200, wire.encode(answer))

    async def _map(self, exchange: Exchange) -> None:
        _require(exchange, self._token)
        query = parse_qs(exchange.query.decode("latin-1"), max_num_fields=8)
        epoch, wait_s = int(_number(query, "epoch", -1)), _number(query, "wait_s", 0)
        self._leadership.require()
        cluster_map = await self._registry.wait_for_map(epoch, min(wait_s, MAP_WAIT_S_MAX))
        self._leadership.require()
        await exchange.answer(200, wire.encode(cluster_map))

    async def _nodes(self, exchange: Exchange) -> None:
        _require(exchange, self._token)
        self._leadership.require()
        await exchange.answer_bytes(200, (format_nodes(self._registry.cluster_map),))

    async def _show_lease(self, exchange: Exchange) -> None:
        _require(exchange, self._token)
        lease = self._leadership.lease
        is_active, error = self._leadership.is_active, self._leadership.status.last_error
        shown = MasterRole(is_active, lease.address if lease else "", lease.term if lease else 0, error)
        await exchange.answer_bytes(200, (msgspec.json.encode(shown),))

    async def _health(self, exchange: Exchange) -> None:
        await exchange.answer_bytes(200, (b"ok",))

    async def _answer_others(self, exchange: Exchange) -> None:
        """Orders to nodes, and about the jobs."""
        _require(exchange, self._token)
        self._leadership.require()
        match = _NODE_ACTION.match(exchange.path)
        if match is not None and exchange.method == "POST":
            order = self._registry.drain if match[2] == "drain" else self._registry.resume
            await order(match[1])
            await exchange.answer_bytes(200, (format_nodes(self._registry.cluster_map),))
        elif self._maintenance is None or not await self._maintenance.answer(exchange):
            raise BadRequest(404, "no such target")


def format_nodes(cluster_map: ClusterMap) -> bytes:
    """JSON for people and scripts: every field by name."""
    nodes = [
        {
            "number": node.number,
            "state": node.state,
            "last_heard_ms": node.last_heard_ms,
            **{name: getattr(node.report, name) for name in NodeReport.__struct_fields__},
        }
        for node in cluster_map.nodes
    ]
    return msgspec.json.encode({"epoch": cluster_map.epoch, "nodes": nodes})


def _require(exchange: Exchange, token: str) -> None:
    if not is_bearer(exchange.headers.get(b"authorization", b""), token):
        raise Unauthorized


def _number(query: dict[str, list[str]], name: str, default: float) -> float:
    values = query.get(name)
    if not values:
        return default
    if not _NUMBER.match(values[0]):
        raise BadRequest(400, f"{name} is a number")
    return float(values[0])
