"""Which processes a data directory needs, and the configuration file that each is started with.

Everything on one machine talks over Unix sockets in a private directory, unless `internal.listen` opens the master and
the datanodes to other machines. A datanode is given its own key only, and the gateways and the master the file of the
internal key that all of them are derived from.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from cluster.registry.config import load_config as load_master_config
from cluster.registry.config import load_internal_key
from s3gw.acceptor import open_board
from s3gw.cli.forks import can_fork, fork_server_command, role_command, take_early
from s3gw.cli.home import FILES, MASTER_FILE, DatanodeHome, Home
from s3gw.cli.launch import ChildSpec, ForkLauncher
from s3gw.cli.readiness import SocketReadiness
from s3gw.cli.supervisor import Ready, Stage
from s3gw.config import parse_internal_listen
from s3gw.worker_config import METRICS_VARIABLE, load_worker_config
from storage.base.files import store_file
from storage.base.internal_auth import ROLE_DATANODE, derive_node_key
from storage.base.secret_variables import MASTER_KEY_VARIABLE, PREVIOUS_VARIABLE
from storage.datanode.config import load_config as load_datanode_config
from storage.journal.config import load_config as load_owner_config
from storage.metadata.settings import SQLITE

GATEWAY_FILE = "gateway.json"
METADATA_FILE = "metadata.json"
METRICS_DIRECTORY = "metrics"


def plan_stages(home: Home, listener_fd: int, ready: Ready) -> tuple[Stage, ...]:
    """The datanodes first, which need nobody, and are stopped last: the journal of the records is written to them. Then
    the owner of SQLite's records (PostgreSQL runs already), the master, and the gateways.

    `ready` returns once the gateways would take a write. ConfigError or ValueError when a role would refuse its file.
    """

    store_role_files(home)
    master = ChildSpec("master", role_command("cluster", "--config", str(home.run / MASTER_FILE)))
    datanodes = [
        ChildSpec(
            f"datanode-{datanode.number}",
            role_command(
                "storage.datanode", "--data", str(datanode.path), "--config", str(_datanode_file(home, datanode))
            ),
        )
        for datanode in home.datanodes
    ]
    metrics = home.run / METRICS_DIRECTORY
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(mode=0o700)
    gateways = plan_gateways(home.run / GATEWAY_FILE, home.config.worker_count, listener_fd, metrics)
    return Stage(tuple(datanodes)), *_plan_metadata(home), Stage((master,)), Stage(gateways, ready)


def _plan_metadata(home: Home) -> tuple[Stage, ...]:
    """Its owner, where there is one."""

    if home.records.engine != SQLITE:
        return ()
    command = role_command(
        "storage.metadata",
        *("--data", str(home.metadata), "--socket", str(home.metadata_socket)),
        *("--config", str(home.run / METADATA_FILE)),
    )
    return (
        Stage(
            (ChildSpec("metadata", command, variables=_master_key_variables()),),
            SocketReadiness(str(home.metadata_socket)).wait,
        ),
    )


def plan_gateways(config: Path, count: int, listener_fd: int, metrics: Path) -> tuple[ChildSpec, ...]:
    """Workers that share a listening socket, and an empty directory of counters so that any of them answers for all."""
    variables = ((METRICS_VARIABLE, str(metrics)), *_master_key_variables())
    board_fd = open_board(count)  # stays open: workers that are started again inherit it like the first ones
    command = role_command("s3gw", "--config", str(config), "--fd", str(listener_fd), "--board-fd", str(board_fd))
    return tuple(
        ChildSpec(f"gateway-{worker + 1}", (*command, "--worker", str(worker)), (listener_fd, board_fd), variables)
        for worker in range(count)
    )


def _master_key_variables() -> tuple[tuple[str, str], ...]:
    """For roles that open the keyring."""
    return tuple((it, os.environ[it]) for it in (MASTER_KEY_VARIABLE, PREVIOUS_VARIABLE) if it in os.environ)


def store_role_files(home: Home) -> list[Path]:
    """Each role's config.json in DIR/run, proven to be accepted by the role."""
    master, gateway = home.run / MASTER_FILE, home.run / GATEWAY_FILE
    _store(master, describe_master(home))
    load_master_config(master)
    _store(gateway, describe_gateway(home))
    load_worker_config(gateway)
    owned = []
    if home.records.engine == SQLITE:
        owned.append(home.run / METADATA_FILE)
        _store(owned[0], describe_metadata_owner(home))
        load_owner_config(owned[0])
    for datanode in home.datanodes:
        file = _datanode_file(home, datanode)
        _store(file, describe_datanode(home, datanode))
        load_datanode_config(file)
    return [master, *owned, gateway, *(_datanode_file(home, datanode) for datanode in home.datanodes)]


def describe_master(home: Home) -> dict[str, Any]:
    """config.json of the master."""
    config = home.config
    return {
        "listen": master_address(home),
        "masters": master_addresses(home) if config.internal.masters else [],
        "cluster_id": home.cluster_id,
        "internal_key_file": str(home.internal_key_file),
        "metadata": home.records,
        "redundancy": str(config.placed),
        "tls_cert": config.internal.tls_cert,
        "tls_key": config.internal.tls_key,
        "tls_ca": config.internal.tls_ca,
        "maintenance": {
            "lease_ttl_s": config.lease_ttl_s,
            "sweep_interval_s": config.sweep_interval_s,
            "orphan_age_s": config.orphan_age_s,
            "quarantine_s": config.quarantine_s,
            "history_s": config.history_s,
            "survey_interval_s": config.survey_interval_s,
            "surplus_age_s": config.surplus_age_s,
            "repair_bytes_per_s": config.repair_bytes_per_s,
            "rewrite_interval_s": config.rewrite_interval_s,
            "rewrite_bytes_per_s": config.rewrite_bytes_per_s,
            "rebalance_interval_s": config.rebalance_interval_s,
            "rebalance_bytes_per_s": config.rebalance_bytes_per_s,
            "lifecycle_day_s": config.lifecycle_day_s,
        },
    }


def describe_metadata_owner(home: Home) -> dict[str, Any]:
    """config.json of the owner of SQLite's records."""
    config = home.config
    return {
        "cluster_id": home.cluster_id,
        "keyring": str(config.home / "keyring"),
        "master_key_file": str(config.home / "master.key"),
        "internal_key_file": str(home.internal_key_file),
        "metadata": home.records,
        "tls_ca": config.internal.tls_ca,
    }


def describe_datanode(home: Home, datanode: DatanodeHome) -> dict[str, Any]:
    """config.json of one datanode."""
    config = home.config
    internal_key = load_internal_key(home.internal_key_file)
    node_key = derive_node_key(internal_key, ROLE_DATANODE, datanode.node_id)
    document: dict[str, Any] = {
        "listen": datanode_address(home, datanode.number),
        "cluster_id": home.cluster_id,
        "masters": master_addresses(home),
        "node_id": datanode.node_id,
        "node_key": base64.b64encode(node_key).decode(),
        "zone": config.zone or "default",
        "tls_cert": config.internal.tls_cert,
        "tls_key": config.internal.tls_key,
        "tls_ca": config.internal.tls_ca,
        "durability": config.durability,
        "scrub_bytes_per_s": config.scrub_bytes_per_s,
        "scrub_interval_s": config.scrub_interval_s,
    }
    if config.reserve_bytes is not None:
        document["reserve_bytes"] = config.reserve_bytes
    return document


def describe_gateway(home: Home) -> dict[str, Any]:
    """config.json of the gateway workers."""
    config = home.config
    return {
        "listen": config.listen,
        "workers": config.worker_count,
        "cluster_id": home.cluster_id,
        "keyring": str(config.home / "keyring"),
        "master_key_file": str(config.home / "master.key"),
        "internal_key_file": str(home.internal_key_file),
        "metadata": home.records,
        "masters": master_addresses(home),
        "datanode_directories": [str(datanode.path) for datanode in home.datanodes] if config.local_reads else [],
        "local_writes": config.local_writes,
        "redundancy": str(config.placed),
        "survive_min": config.survive_min,
        "region": config.region,
        "domains": config.domains,
        "trusted_proxies": config.trusted_proxies,
        "bucket_defaults": config.bucket_defaults,
        "tls_cert": config.tls_cert,
        "tls_key": config.tls_key,
        "internal_ca": config.internal.tls_ca,
        "chunk_size_bytes": config.chunk_size_bytes,
        "inline_size_bytes_max": config.inline_size_bytes_max,
        "memory_budget_bytes": config.memory_budget_bytes,
        "lease_ttl_s": config.lease_ttl_s,
        "drain_timeout_s": config.drain_timeout_s,
        "cipher": config.cipher,
    }


def master_address(home: Home) -> str:
    """Where the master listens."""
    return home.config.internal.listen or f"unix:{home.sockets / 'master.sock'}"


def master_addresses(home: Home) -> list[str]:
    """Of all masters, this machine's first."""
    return [master_address(home), *home.config.internal.masters]


def datanode_address(home: Home, number: int) -> str:
    """Where a datanode of this machine listens: a socket, or a port near the master's."""
    internal = home.config.internal
    if not internal.listen:
        return f"unix:{home.sockets / f'datanode-{number}.sock'}"
    address = parse_internal_listen(internal)
    return str(address._replace(port=address.port + number))


@contextmanager
def open_forks() -> Iterator[ForkLauncher | None]:
    """A process that begins to import all roles now, or has begun, to fork them. None where roles are programs of
    their own."""
    if not can_fork():
        yield None
        return
    with ForkLauncher(fork_server_command(), take_early()) as forks:
        yield forks


def _datanode_file(home: Home, datanode: DatanodeHome) -> Path:
    return home.run / f"datanode-{datanode.number}.json"


def _store(path: Path, document: dict[str, Any]) -> None:
    store_file(FILES, path, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
