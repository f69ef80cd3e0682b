"""`python -m tests.bench.scale`: listings and deletions beside a million keys, markers or old versions; into
BENCHMARKS.md."""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from s3gw.cli.home import METADATA_SOCKET, metadata_directory, read_cluster_id, root_canonical_id, socket_directory
from storage.metadata.sqlite.open import open_metadata
from tests.bench.comparison import describe_machine, make_bucket
from tests.bench.keys import BATCH, KeyWriter, Shape, key_name
from tests.bench.load import measured, run_wrk
from tests.bench.report import format_number, format_spread, replace_section
from tests.bench.requests import SignedConnection, object_path, presign, presign_all
from tests.bench.sides import Side, frostbyte
from tests.bench.statistics import summarize

PAGES = 50
"""of one measurement: a listing that ends earlier begins anew"""
LISTINGS = (("flat", "", ""), ("ten common prefixes", "", "/"), ("a directory of directories", "3/", "/"))
"""how it is called, prefix, delimiter"""
DELETIONS = 20
PUT_RATE_MAX = 10_000
PUT_S = 5
BODY_BYTES = 1024


class Listed(NamedTuple):
    """PAGES pages."""

    items: int
    """keys and common prefixes"""
    wall_s: float
    cpu_s: float
    """of the server"""


class Deleted(NamedTuple):
    """The 99th percentile of PUTs, and what deletions of 1,000 keys beside them took."""

    alone_p99_ms: float
    beside_p99_ms: float
    deletion_ms: list[float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, measure and write the section."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000, help="of the large bucket, markers and old versions")
    parser.add_argument("--few-keys", type=int, default=10_000, help="that are current in the other buckets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="where the data go (a temporary directory)")
    parser.add_argument("--output", default="BENCHMARKS.md")
    options = parser.parse_args(arguments)
    few, many = options.few_keys, options.keys
    shapes = {
        "few": Shape(few),
        "many": Shape(many),
        "marked": Shape(few, markers=many),
        "stacked": Shape(few, noncurrent=many),
    }
    with tempfile.TemporaryDirectory(prefix="frostbyte-scale-", dir=options.directory) as name:
        home = Path(name)
        side = frostbyte(home / "frostbyte", 1)
        side.start()
        try:
            asyncio.run(build(home / "frostbyte" / "data", shapes))
            listings = measure_listings(side, list(shapes), options.rounds)
            deleted = measure_deletions(side, home, many)
        finally:
            side.stop()
    body = render(shapes, listings, deleted)
    output = Path(options.output)
    output.write_text(replace_section(output.read_text() if output.exists() else "", "scale", body))
    print(body)
    return 0


async def build(data: Path, shapes: dict[str, Shape]) -> None:
    """Through the running owner of the records, as workers commit."""
    metadata = await open_metadata(metadata_directory(data), socket_directory(data) / METADATA_SOCKET)
    try:
        writer = KeyWriter(metadata, root_canonical_id(read_cluster_id(data)), "keys-of-a-benchmark")
        await writer.open()
        for name, shape in shapes.items():
            await writer.make(name, shape)
    finally:
        await metadata.close()


def measure_listings(side: Side, buckets: Sequence[str], rounds: int) -> dict[tuple[str, str], list[Listed]]:
    """(bucket, listing) → a round each; round 0 warms up and is left out."""
    found: dict[tuple[str, str], list[Listed]] = {}
    for number in range(rounds + 1):
        for bucket in buckets if number % 2 else reversed(buckets):
            for name, prefix, delimiter in LISTINGS:
                listed = list_bucket(side, bucket, prefix, delimiter)
                if number:
                    found.setdefault((bucket, name), []).append(listed)
    return found


def list_bucket(side: Side, bucket: str, prefix: str, delimiter: str) -> Listed:
    """Page after page on one connection."""
    connection = SignedConnection(side.endpoint)
    asked = (
        f"/{bucket}?list-type=2&max-keys={BATCH}&prefix={quote(prefix, safe='')}&delimiter={quote(delimiter, safe='')}"
    )
    items, token = 0, ""
    with measured(side) as cost:
        for _ in range(PAGES):
            page = connection.send("GET", presign(side.endpoint, "GET", asked + token), signed=True)
            items += page.count(b"<Key>") + page.count(b"<CommonPrefixes>")
            following = page.partition(b"<NextContinuationToken>")[2].partition(b"<")[0].decode()
            token = f"&continuation-token={quote(following, safe='')}" if following else ""
    connection.close()
    return Listed(items, cost.wall_s, cost.side_share * cost.wall_s)


def measure_deletions(side: Side, home: Path, keys: int) -> Deleted:
    """PUTs into a bucket of their own: alone, then while keys of the large bucket are deleted, one request after
    another."""
    make_bucket(side)
    alone = put_p99_ms(side, home, "alone")
    took_ms: list[float] = []

    def delete() -> None:
        for number in range(DELETIONS):
            first = number * BATCH % keys
            took_ms.append(delete_keys(side, "many", [key_name(it, keys) for it in range(first, first + BATCH)]))

    deleting = threading.Thread(target=delete)
    deleting.start()
    beside = put_p99_ms(side, home, "beside")
    deleting.join()
    return Deleted(alone, beside, took_ms)


def put_p99_ms(side: Side, home: Path, label: str) -> float:
    """Of PUTs of 1 KiB with distinct keys, 16 in flight."""
    body, paths = home / "body", home / f"paths-{label}"
    body.write_bytes(bytes(BODY_BYTES))
    names = [object_path(side.bucket, f"{label}/{number:07}") for number in range(PUT_RATE_MAX * PUT_S)]
    paths.write_text("\n".join(presign_all(side.endpoint, "PUT", names)) + "\n")
    return run_wrk(side, "PUT", paths, body, PUT_S).p99_ms


def delete_keys(side: Side, bucket: str, object_keys: Sequence[bytes]) -> float:
    """One DeleteObjects, signed beforehand. → milliseconds. RuntimeError when a key is not deleted."""
    named = b"".join(b"<Object><Key>%b</Key></Object>" % object_key for object_key in object_keys)
    document = b"<Delete>%b</Delete>" % named
    digest = base64.b64encode(hashlib.md5(document).digest()).decode()
    connection = SignedConnection(side.endpoint)
    headers = connection.sign("POST", f"/{bucket}?delete=", document, {"Content-MD5": digest})
    with measured(side) as cost:
        answer = connection.send("POST", f"/{bucket}?delete=", document, headers, signed=True)
    connection.close()
    if answer.count(b"<Deleted>") != len(object_keys):
        raise RuntimeError(f"not everything was deleted: {answer[:300]!r}")
    return cost.wall_s * 1e3


def render(shapes: Mapping[str, Shape], listings: Mapping[tuple[str, str], list[Listed]], deleted: Deleted) -> str:
    """The section as Markdown."""
    lines = [
        f"## Listings and deletions beside {max(shapes['many']):,} keys",
        "",
        describe_machine(),
        "",
        "ListObjectsV2 in pages of 1,000 on one connection, presigned. CPU is what the server's processes used for a "
        "page; medians and ranges. The last column divides the CPU of a key or prefix by that in the smallest bucket.",
        "",
        "| bucket | listing | keys or prefixes/s | CPU, ms a page | CPU of one : smallest |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for (bucket, listing), rounds in sorted(listings.items(), key=lambda it: (it[0][1], list(shapes).index(it[0][0]))):
        rate = summarize([listed.items / listed.wall_s for listed in rounds])
        page_ms = summarize([listed.cpu_s / PAGES * 1e3 for listed in rounds])
        of_an_item = cpu_of_an_item_us(rounds) / cpu_of_an_item_us(listings["few", listing])
        figures = (format_spread(rate), format_spread(page_ms), f"{of_an_item:.2f}")
        lines.append(f"| {describe(shapes[bucket])} | {listing} | {' | '.join(figures)} |")
    lines += [
        "",
        f"DeleteObjects of 1,000 keys of the large bucket: {format_spread(summarize(deleted.deletion_ms))} ms beside "
        f"PUTs of 1 KiB, 16 in flight, whose p99 is {format_number(deleted.beside_p99_ms)} ms then and "
        f"{format_number(deleted.alone_p99_ms)} ms alone.",
    ]
    return "\n".join(lines) + "\n"


def cpu_of_an_item_us(rounds: Sequence[Listed]) -> float:
    """The median of the rounds."""
    return summarize([listed.cpu_s / listed.items * 1e6 for listed in rounds]).median


def describe(shape: Shape) -> str:
    """In words."""
    more = {"delete markers": shape.markers, "old versions": shape.noncurrent}
    return ", ".join([f"{shape.keys:,} keys", *(f"{count:,} {name}" for name, count in more.items() if count)])


if __name__ == "__main__":
    raise SystemExit(main())
