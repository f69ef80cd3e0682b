"""`frostbyte node add|list|drain|resume|remove`: datanodes of a cluster."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.registry.config import MasterConfig, load_internal_key
from s3gw.cli.home import FILES
from s3gw.cli.journal import find_holders
from s3gw.cli.master import choose_node, find_master, open_master
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, MasterOption, require_one_reader, run
from s3gw.cli.progress import Look, look_at_drain
from s3gw.cli.report import describe_nodes
from s3gw.cli.screen import show
from s3gw.cli.status import make_node_table
from s3gw.cli.watch import follow_to_the_end, watch
from s3gw.config import ConfigError
from storage.base.clock import SystemClock
from storage.base.files import store_file
from storage.base.internal_auth import ROLE_DATANODE, derive_node_key
from storage.datanode.config import parse_config

app = typer.Typer(no_args_is_help=True, help="Datanodes.")


@app.command("add")
def add(
    listen: Annotated[str, typer.Option(help="Where the new datanode serves: https://HOST:PORT.")] = "",
    zone: Annotated[str, typer.Option(help="Its zone, for the failure domain.")] = "default",
    tls_cert: Annotated[str, typer.Option(help="On the new host: certificate chain (PEM).")] = "node.pem",
    tls_key: Annotated[str, typer.Option(help="On the new host: its private key.")] = "node.key",
    tls_ca: Annotated[str, typer.Option(help="On the new host: what it trusts.")] = "ca.pem",
    node_id: Annotated[str, typer.Option(help="32 hex digits; made at random when none is given.")] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="Write the node's key there, and its name into the configuration.")
    ] = None,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Make the id and key of a new datanode, and print its config.json. The node joins when it is started with it."""
    found, _ = find_master(data, config, master)
    document = _describe(found, listen, zone, (tls_cert, tls_key, tls_ca), node_id or uuid.uuid4().hex)
    if key_file is not None:
        store_file(FILES, key_file.absolute(), document.pop("node_key").encode() + b"\n")
        document["node_key_file"] = str(key_file.absolute())
    text = json.dumps(document, indent=2)
    parse_config(text)
    print(text)
    if not as_json:
        typer.echo(
            "This is the config.json of the new datanode, and holds its key: store it there with mode 0600, then"
            " `frostbyte datanode --data DIR --config config.json`.",
            err=True,
        )


@app.command("list")
def list_nodes(
    as_json: JsonOption = False, data: DataOption = None, config: ConfigOption = None, master: MasterOption = None
) -> None:
    """Every datanode as the running master sees it."""
    nodes = run(_list(*find_master(data, config, master)))
    if as_json:
        print(json.dumps(nodes, indent=2))
    else:
        show(make_node_table(nodes))


@app.command("drain")
def drain(
    node: str,
    watched: Annotated[
        bool, typer.Option("--watch", help="Show what is left on it until it is safe to switch it off.")
    ] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Empty a node (its number or id): nothing new is placed on it, and what it holds is made anew on others."""
    require_one_reader(watched, as_json)
    found = find_master(data, config, master)
    number = run(_order(*found, node, "drain"))
    keep = "keep it running until `frostbyte status` says that it is safe to switch it off"
    _tell(number, "draining", f"is draining: {keep}", as_json)
    if watched:
        watch(lambda: _follow_drain(*found, number), "the drain goes on")


@app.command("resume")
def resume(
    node: str,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Take a drain back: the node is placed on again as soon as it is heard of."""
    number = run(_order(*find_master(data, config, master), node, "resume"))
    _tell(number, "resumed", "is no longer draining", as_json)


@app.command("remove")
def remove(
    node: str,
    force: Annotated[
        bool,
        typer.Option("--force", help="Do not wait for its pieces, as long as every chunk can be read without them."),
    ] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Let go of a node for good, once it is drained, or of a dead one. Says what has to happen first, if anything."""
    action = "remove?force=1" if force else "remove"
    number = run(_order(*find_master(data, config, master), node, action))
    _tell(number, "gone", "is gone; its data directory can be emptied", as_json)


def _tell(number: int, outcome: str, sentence: str, as_json: bool) -> None:
    print(json.dumps({"number": number, "outcome": outcome}) if as_json else f"node {number} {sentence}")


async def _list(config: MasterConfig, home: Path | None) -> list[dict[str, Any]]:
    async with open_master(config, home) as master:
        return describe_nodes(await master.fetch_map())


async def _order(config: MasterConfig, home: Path | None, text: str, action: str) -> int:
    async with open_master(config, home) as master:
        node = choose_node((await master.fetch_map()).nodes, text)
        await master.order(node, action)
        return node.number


async def _follow_drain(config: MasterConfig, home: Path | None, number: int) -> Look:
    most = 0
    async with open_master(config, home) as master:

        async def look() -> Look:
            nonlocal most
            nodes, survey = (await master.fetch_map()).nodes, await master.fetch_survey()
            most = max([most, *(it.pieces_left for it in survey.drains if it.number == number)])
            node = next(node for node in nodes if node.number == number)
            return look_at_drain(node, survey, most, SystemClock().now_ms(), find_holders(config))

        return await follow_to_the_end(look)


def _describe(config: MasterConfig, listen: str, zone: str, tls: tuple[str, str, str], node_id: str) -> dict[str, Any]:
    """A datanode's config.json. On this machine alone a socket beside the master's is enough."""
    address = config.listen_address
    if not listen and not address.is_unix:
        raise ConfigError("--listen https://HOST:PORT says where the new datanode will serve")
    if listen.startswith("https:") and address.is_unix:
        raise ConfigError(
            f"the master listens at {config.listen}, on this machine only: set internal.listen in config.json (for"
            " `frostbyte up`) or listen in the master's, then start it again"
        )
    document: dict[str, Any] = {
        "listen": listen or f"unix:{Path(address.path).with_name(f'datanode-{node_id[:8]}.sock')}",
        "cluster_id": config.cluster_id,
        "masters": [str(address) for address in config.addresses],
        "node_id": node_id,
        "node_key": derive_node_key(load_internal_key(Path(config.internal_key_file)), ROLE_DATANODE, node_id).hex(),
        "zone": zone,
    }
    if not document["listen"].startswith("unix:"):
        document |= dict(zip(("tls_cert", "tls_key", "tls_ca"), tls, strict=True))
    return document
