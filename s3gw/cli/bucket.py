"""`frostbyte bucket list|redundancy|rewrite`: buckets of all users, against a running or a stopped server."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any

import typer

from cluster.bucket_redundancy import STOPPED, is_rewrite_stopped, redundancy_of_blob, redundancy_of_bucket
from cluster.redundancy import Redundancy, parse_redundancy
from cluster.registry.config import load_config as load_master_config
from cluster.survival import require_promise
from s3gw.cli.formats import format_time
from s3gw.cli.home import MASTER_FILE, read_cluster_id
from s3gw.cli.offline import open_records
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, find_config, run
from s3gw.cli.roles import GATEWAY_FILE
from s3gw.cli.screen import add_row, make_table, show
from s3gw.config import Config, ConfigError
from s3gw.worker_config import load_worker_config
from storage.metadata.commands import REDUNDANCY_SETTING, REWRITE_SETTING, PutBucketSetting
from storage.metadata.interface import Metadata
from storage.model import Bucket, ClusterMap, NodeState

PAGE_BUCKETS = 1000
PAGE_VERSIONS = 1000
DEFAULT = "default"

app = typer.Typer(no_args_is_help=True, help="Buckets of all users.")


@app.callback()
def buckets() -> None:
    """Buckets of all users."""


@app.command("list")
def list_buckets(as_json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Every bucket, by name, with its owner."""
    found = run(_list(find_config(data, config)))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = make_table("name", "owner", "region", "versioning", "created")
    for bucket in found:
        created = format_time(bucket["created_ms"])
        add_row(table, bucket["name"], bucket["owner"], bucket["region"], bucket["versioning"] or "-", created)
    show(table)


@app.command("redundancy")
def redundancy(
    name: str,
    setting: Annotated[
        str, typer.Argument(metavar="[replica:R|ec:k+m|default]", help="For what is written from now on.")
    ] = "",
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Show or set how the objects of a bucket are kept. Those that are there are laid out anew in the background."""
    found = run(_redundancy(find_config(data, config), name, setting))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    origin = "as the cluster has it by default" if found["is_default"] else "set for this bucket"
    print(f"{name}: {found['redundancy']}, {origin}")


@app.command("rewrite")
def rewrite(
    name: str,
    stop: Annotated[bool, typer.Option("--stop", help="Leave what was written before as it is.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Lay it out anew after all.")] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Show how much of a bucket is kept otherwise than its redundancy says; stop or resume laying it out anew."""
    if stop and resume:
        raise ConfigError("--stop or --resume, not both")
    found = run(_rewrite(find_config(data, config), name, STOPPED if stop else None, is_set=stop or resume))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    kept = ", ".join(f"{count} in {text}" for text, count in found["blobs"].items()) or "none on datanodes"
    state = "stopped" if found["is_stopped"] else "under way, or waiting for its turn" if found["left"] else "done"
    print(f"{name}: {found['redundancy']}; blobs: {kept}; {found['left']} to be laid out anew: {state}")


async def _redundancy(config: Config, name: str, setting: str) -> dict[str, Any]:
    read_cluster_id(config.home)
    wanted = _parse(setting) if setting not in ("", DEFAULT) else None
    async with open_records(config) as metadata:
        bucket = await _find(metadata, name)
        if wanted is not None:
            _require_nodes(wanted, await metadata.cluster_map())
            _require_survival(config, wanted)
        if setting:
            document = str(wanted).encode("ascii") if wanted is not None else None
            await metadata.apply(PutBucketSetting(bucket.bucket_id, REDUNDANCY_SETTING, document))
            bucket = await _find(metadata, name)
    placed = redundancy_of_bucket(bucket, _find_default(config))
    return {"name": name, "redundancy": str(placed), "is_default": REDUNDANCY_SETTING not in bucket.settings}


async def _rewrite(config: Config, name: str, document: bytes | None, *, is_set: bool) -> dict[str, Any]:
    """Blobs that objects share are counted for each of them."""
    read_cluster_id(config.home)
    default = _find_default(config)
    async with open_records(config) as metadata:
        bucket = await _find(metadata, name)
        if is_set:
            await metadata.apply(PutBucketSetting(bucket.bucket_id, REWRITE_SETTING, document))
            bucket = await _find(metadata, name)
        blobs: Counter[str] = Counter()
        left = 0
        after: int | None = 0
        while after is not None:
            page = await metadata.list_bucket_blobs(bucket.bucket_id, after, PAGE_VERSIONS)
            for blob in page.blobs:
                blobs[blob.redundancy] += 1
                left += blob.redundancy != str(redundancy_of_blob(bucket, default, blob.size))
            after = page.next_after
    return {
        "name": name,
        "redundancy": str(redundancy_of_bucket(bucket, default)),
        "blobs": dict(sorted(blobs.items())),
        "left": left,
        "is_stopped": is_rewrite_stopped(bucket),
    }


async def _find(metadata: Metadata, name: str) -> Bucket:
    bucket = await metadata.find_bucket(name)
    if bucket is None:
        raise ConfigError(f"there is no bucket {name[:64]}")
    return bucket


def _parse(text: str) -> Redundancy:
    try:
        return parse_redundancy(text)
    except ValueError as error:
        raise ConfigError(f"{error}, or {DEFAULT}") from None


def _require_nodes(wanted: Redundancy, cluster_map: ClusterMap) -> None:
    """Nodes that are away for a moment count: they are back before long, or are replaced."""
    leaving = (NodeState.GONE, NodeState.DRAINING)
    count = sum(node.state not in leaving for node in cluster_map.nodes)
    if count < wanted.width:
        raise ConfigError(f"{wanted} needs {wanted.width} datanodes; the cluster has {count}")


def _require_survival(config: Config, wanted: Redundancy) -> None:
    """The gateways of this data directory would refuse every write otherwise."""
    file = config.home / "run" / GATEWAY_FILE
    survived = load_worker_config(file).survived if file.exists() else None
    if survived is not None:
        try:
            require_promise(survived, wanted)
        except ValueError as error:
            raise ConfigError(str(error)) from None


def _find_default(config: Config) -> Redundancy:
    """As the last start was told."""
    file = config.home / "run" / MASTER_FILE
    return load_master_config(file).placed if file.exists() else config.placed


async def _list(config: Config) -> list[dict[str, Any]]:
    read_cluster_id(config.home)
    async with open_records(config) as metadata:
        names = {user.canonical_id: user.name for user, _ in await metadata.list_users()}
        found: list[Bucket] = []
        while True:
            page = await metadata.list_buckets(None, after=found[-1].name if found else "", limit=PAGE_BUCKETS)
            found += page
            if len(page) < PAGE_BUCKETS:
                break
    return [
        {
            "name": bucket.name,
            "owner": names.get(bucket.owner_id, bucket.owner_id),
            "region": bucket.region,
            "versioning": bucket.versioning.value,
            "bucket_key_id": bucket.bucket_key_id,
            "created_ms": bucket.created_ms,
        }
        for bucket in found
    ]
