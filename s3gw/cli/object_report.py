"""PURE. What `frostbyte object health` says of one object: in sentences, and one row for each piece."""

from __future__ import annotations

from typing import Any, NamedTuple

from cluster.chunk_health import ChunkHealth, ObjectHealth, PieceHealth, PieceState
from cluster.maintenance.survey import Health
from cluster.redundancy import INLINE
from s3gw.cli.formats import count, format_age, format_size, format_time
from s3gw.cli.health import Verdict, describe_losses

VERDICTS = {
    Health.HEALTHY: Verdict.WELL,
    Health.DEGRADED: Verdict.DEGRADED,
    Health.ENDANGERED: Verdict.DEGRADED,
    Health.UNAVAILABLE: Verdict.LOST,
    Health.LOST: Verdict.LOST,
}
CHUNKS_LISTED_MAX = 100_000
"""of one object; more are counted only"""


class ObjectReport(NamedTuple):
    """name: s3://bucket/key as shown. chunks: those that are shown, in order; unlisted: how many more there are of
    those that were asked for. recorded_map: the master did not answer, and nodes are taken as recorded."""

    name: str
    health: ObjectHealth
    chunks: tuple[ChunkHealth, ...]
    unlisted: int
    recorded_map: bool


def describe_object(report: ObjectReport, now_ms: int) -> list[str]:
    """The whole of it; nothing that was not looked at is called good."""
    health = report.health
    found = [
        f"{report.name}, version {health.version_id}, {format_size(health.size)}: {health.health.value}",
        *_describe_chunks(health),
        *_describe_pieces(health, now_ms),
    ]
    if report.recorded_map:
        found.append("The master does not answer: nodes are those that were recorded last.")
    if report.unlisted:
        found.append(f"{count(report.unlisted, 'chunk')} more: not shown.")
    return found


def _describe_chunks(health: ObjectHealth) -> list[str]:
    inline = health.blobs.get(INLINE, 0)
    outside = {redundancy: number for redundancy, number in health.blobs.items() if redundancy != INLINE}
    found = []
    if not health.chunks:
        found.append("It has no bytes to keep.")
    if inline:
        found.append(f"{count(inline, 'blob')} in the metadata, as durable as that.")
    if outside:
        states = ", ".join(f"{number:,} {word.value}" for word, number in health.chunks.items())
        kept = ", ".join(f"{count(number, 'blob')} as {redundancy}" for redundancy, number in sorted(outside.items()))
        found.append(f"{count(sum(health.chunks.values()), 'chunk')}: {states} ({kept}).")
    if health.losses is not None:
        found.append(describe_losses(health.losses._asdict()))
    return found


def _describe_pieces(health: ObjectHealth, now_ms: int) -> list[str]:
    total = sum(health.pieces.values())
    if not total:
        return []
    states = ", ".join(f"{number:,} {state.value}" for state, number in health.pieces.items())
    found = [f"{count(total, 'piece')}: {states}."]
    good = health.pieces.get(PieceState.GOOD, 0)
    if health.unverified:
        found.append(f"Not read from the disk since they were written: {health.unverified:,} of {good:,} good ones.")
    if health.oldest_verified_ms:
        age = format_age(health.oldest_verified_ms, now_ms)
        found.append(f"Verified: the piece that was read from its disk longest ago was read {age} ago.")
    return found


def make_rows(chunk: ChunkHealth) -> list[tuple[str, ...]]:
    """chunk, offset, health, piece, node, failure domain, state, verified: what is equal to the row above is blank."""
    head = (str(chunk.chunk_index), format_size(chunk.offset), f"{chunk.health.value} ({chunk.redundancy})")
    rows = [_make_row(chunk, piece) for piece in chunk.pieces] or [("-", "metadata", "-", "-", "-")]
    return [(*(head if at == 0 else ("", "", "")), *row) for at, row in enumerate(rows)]


def _make_row(chunk: ChunkHealth, piece: PieceHealth) -> tuple[str, ...]:
    is_fragment = chunk.redundancy.startswith("ec:")
    name = f"fragment {piece.position}" if is_fragment else "replica"
    verified = format_time(piece.verified_ms) if piece.state is PieceState.GOOD else "-"
    return name, str(piece.node) if piece.node else "nowhere", piece.failure_domain or "-", piece.state.value, verified


def as_document(report: ObjectReport) -> dict[str, Any]:
    """For JSON."""
    health = report.health
    return {
        "object": report.name,
        **health._asdict(),
        "losses": health.losses and health.losses._asdict(),
        "recorded_map": report.recorded_map,
        "shown_chunks": [_as_chunk(chunk) for chunk in report.chunks],
        "unlisted_chunks": report.unlisted,
    }


def _as_chunk(chunk: ChunkHealth) -> dict[str, Any]:
    return {
        **chunk._asdict(),
        "blob_id": chunk.blob_id.hex(),
        "losses": chunk.losses and chunk.losses._asdict(),
        "pieces": [piece._asdict() for piece in chunk.pieces],
    }
