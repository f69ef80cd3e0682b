"""`frostbyte recover --salvage`: a list of blobs, when nothing else is left."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from s3gw.cli.formats import format_size, format_time
from s3gw.cli.screen import show
from s3gw.config import ConfigError
from storage.chunks.salvage import SalvagedBlob, salvage_blobs

DAMAGED_SHOWN_MAX = 20


def print_salvage(directories: Sequence[Path], *, as_json: bool) -> None:
    """One line for each blob as it is found, as a store may hold millions; JSON is one object a line. ConfigError."""
    if not directories:
        raise ConfigError("--salvage wants directories of datanodes: --datanode DIR")
    found = salvage_blobs(directories)
    count = total_bytes = 0
    if not as_json:
        print(f"{'blob':32}  {'chunks':>7}  {'bytes':>10}  {'state':10}  {'pieces':14}  newest chunk")
    for blob in found.blobs:
        count += 1
        total_bytes += blob.size_bytes
        print(json.dumps(_as_json(blob)) if as_json else _as_line(blob))
    if not as_json:
        show(f"{count} blobs, {format_size(total_bytes)}. Names and keys are in the records alone.")
    for text in found.damaged[:DAMAGED_SHOWN_MAX]:
        print(f"not listed: {text}", file=sys.stderr)
    if len(found.damaged) > DAMAGED_SHOWN_MAX:
        print(f"not listed: {len(found.damaged) - DAMAGED_SHOWN_MAX} more", file=sys.stderr)


def _as_line(blob: SalvagedBlob) -> str:
    pieces = f"{blob.layout}, {blob.copies}"
    size, stored = format_size(blob.size_bytes), format_time(blob.stored_ms)
    return f"{blob.blob_id.hex():32}  {blob.chunks:>7}  {size:>10}  {blob.state:10}  {pieces:14}  {stored}"


def _as_json(blob: SalvagedBlob) -> dict[str, str | int]:
    return {**blob._asdict(), "blob_id": blob.blob_id.hex()}
