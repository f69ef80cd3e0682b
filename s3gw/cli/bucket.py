"""`frostbyte bucket list`: every bucket of every user, against a running or a stopped server."""

from __future__ import annotations

import json
from typing import Any

import typer

from s3gw.cli.formats import format_time
from s3gw.cli.home import read_cluster_id
from s3gw.cli.offline import open_records
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, find_config, run
from s3gw.cli.screen import add_row, make_table, show
from s3gw.config import Config
from storage.model import Bucket

PAGE_BUCKETS = 1000

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
