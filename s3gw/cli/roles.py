"""Which processes a data directory needs, and the configuration file that each is started with.

Everything on one machine talks over Unix sockets in a private directory. A datanode is given its own key only, and
the gateways and the master the file of the internal key that all of them are derived from.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import msgspec

from cluster.registry.config import load_internal_key
from s3gw.cli.home import FILES, DatanodeHome, Home
from s3gw.cli.supervisor import ChildSpec, Stage
from storage.base.files import store_file
from storage.base.internal_auth import ROLE_DATANODE, derive_node_key

METADATA_READY_TIMEOUT_S = 60.0
METADATA_POLL_S = 0.005


def plan_stages(home: Home, listener_fd: int) -> tuple[Stage, ...]:
    """Metadata first, as everybody needs it; then master and datanodes; the gateways join when those can be found."""

    async def metadata_answers() -> None:
        await wait_for_socket(home.metadata_socket)

    metadata = ChildSpec(
        "metadata",
        _python("storage.metadata", "--data", str(home.metadata), "--socket", str(home.metadata_socket)),
    )
    master = ChildSpec("master", _python("cluster", "--config", str(_write(home, "master", describe_master(home)))))
    gateway_file = str(_write(home, "gateway", describe_gateway(home)))
    gateways = [
        ChildSpec(
            f"gateway-{number}", _python("s3gw", "--config", gateway_file, "--fd", str(listener_fd)), (listener_fd,)
        )
        for number in range(1, home.config.worker_count + 1)
    ]
    return (
        Stage((metadata,), metadata_answers),
        Stage((master, *(_datanode(home, datanode) for datanode in home.datanodes))),
        Stage(tuple(gateways)),
    )


def describe_master(home: Home) -> dict[str, Any]:
    """config.json of the master."""
    config = home.config
    return {
        "listen": master_address(home),
        "cluster_id": home.cluster_id,
        "internal_key_file": str(home.internal_key_file),
        "metadata": _metadata(home),
        "redundancy": f"replica:{config.replicas}",
        "maintenance": {
            "lease_ttl_s": config.lease_ttl_s,
            "sweep_interval_s": config.sweep_interval_s,
            "orphan_age_s": config.orphan_age_s,
            "quarantine_s": config.quarantine_s,
        },
    }


def describe_datanode(home: Home, datanode: DatanodeHome) -> dict[str, Any]:
    """config.json of one datanode."""
    internal_key = load_internal_key(home.internal_key_file)
    node_key = derive_node_key(internal_key, ROLE_DATANODE, datanode.node_id)
    return {
        "listen": f"unix:{home.sockets / f'datanode-{datanode.number}.sock'}",
        "cluster_id": home.cluster_id,
        "masters": [master_address(home)],
        "node_id": datanode.node_id,
        "node_key": base64.b64encode(node_key).decode(),
        "zone": home.config.zone or "default",
        "reserve_bytes": home.config.reserve_bytes,
        "durability": home.config.durability,
    }


def describe_gateway(home: Home) -> dict[str, Any]:
    """config.json of the gateway workers."""
    config = home.config
    return {
        "cluster_id": home.cluster_id,
        "keyring": str(config.home / "keyring"),
        "master_key_file": str(config.home / "master.key"),
        "internal_key_file": str(home.internal_key_file),
        "metadata": _metadata(home),
        "masters": [master_address(home)],
        "redundancy": f"replica:{config.replicas}",
        "region": config.region,
        "domains": config.domains,
        "trusted_proxies": config.trusted_proxies,
        "tls_cert": config.tls_cert,
        "tls_key": config.tls_key,
        "chunk_size_bytes": config.chunk_size_bytes,
        "inline_size_bytes_max": config.inline_size_bytes_max,
        "memory_budget_bytes": config.memory_budget_bytes,
        "lease_ttl_s": config.lease_ttl_s,
        "drain_timeout_s": config.drain_timeout_s,
        "cipher": config.cipher,
    }


def master_address(home: Home) -> str:
    """Where the master listens."""
    return f"unix:{home.sockets / 'master.sock'}"


async def wait_for_socket(path: Path) -> None:
    """Until somebody accepts connections there. TimeoutError past METADATA_READY_TIMEOUT_S."""
    async with asyncio.timeout(METADATA_READY_TIMEOUT_S):
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(path)
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(METADATA_POLL_S)
            else:
                writer.close()
                return


def _datanode(home: Home, datanode: DatanodeHome) -> ChildSpec:
    name = f"datanode-{datanode.number}"
    file = _write(home, name, describe_datanode(home, datanode))
    return ChildSpec(name, _python("storage.datanode", "--data", str(datanode.path), "--config", str(file)))


def _metadata(home: Home) -> dict[str, str]:
    return {"path": str(home.metadata), "socket": str(home.metadata_socket)}


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _write(home: Home, name: str, document: dict[str, Any]) -> Path:
    path = home.run / f"{name}.json"
    store_file(FILES, path, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    return path
