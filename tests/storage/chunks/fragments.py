"""Erasure coding of whole chunks in memory: what tests compare with, and what the twins of datanodes do."""

from __future__ import annotations

from collections.abc import Mapping

from storage.chunks.erasure import CHUNK_HEADER_BYTES, SEALED_FRAME_BYTES, Striping, stripe_coder


def cut_frames(sealed: bytes) -> list[bytes]:
    """The frames of a sealed chunk."""
    body = sealed[CHUNK_HEADER_BYTES:]
    return [body[at : at + SEALED_FRAME_BYTES] for at in range(0, len(body), SEALED_FRAME_BYTES)]


def split_chunk(sealed: bytes, needed: int, width: int) -> list[bytes]:
    """Every fragment of a sealed chunk, whole."""
    frames = cut_frames(sealed)
    stripes = [frames[at : at + needed] for at in range(0, len(frames), needed)]
    parity = [stripe_coder(needed, width).encode(stripe) for stripe in stripes]
    striping = Striping(needed, width, len(sealed))
    fragments = []
    for number in range(width):
        if number < needed:
            cells = [stripe[number] for stripe in stripes if number < len(stripe)]
        else:
            cells = [bytes(row[number - needed]) for row in parity]
        fragments.append(striping.header(sealed[:CHUNK_HEADER_BYTES], number) + b"".join(cells))
    return fragments


def cells_of(fragment: bytes, number: int, striping: Striping) -> list[bytes]:
    """One for each stripe, empty where the chunk has no such frame."""
    spans = [striping.cell(number, stripe) for stripe in range(striping.stripe_count)]
    return [fragment[span.offset : span.offset + span.length] for span in spans]


def rebuild_fragment(fragments: Mapping[int, bytes], number: int, striping: Striping) -> bytes:
    """A fragment out of others, by number."""
    coder = stripe_coder(striping.needed, striping.width)
    cells = {given: cells_of(fragment, given, striping) for given, fragment in fragments.items()}
    made = [striping.header(next(iter(fragments.values()))[:CHUNK_HEADER_BYTES], number)]
    for stripe in range(striping.stripe_count):
        here = {given: rows[stripe] for given, rows in cells.items()}
        (cell,) = coder.rebuild(here, [number], striping.parity_length(stripe))
        made.append(bytes(cell[: striping.cell(number, stripe).length]))
    return b"".join(made)


def join_chunk(fragments: Mapping[int, bytes], striping: Striping) -> bytes:
    """The sealed chunk out of any of its fragments, by number."""
    data = [fragments.get(number) or rebuild_fragment(fragments, number, striping) for number in range(striping.needed)]
    rows = [cells_of(fragment, number, striping) for number, fragment in enumerate(data)]
    frames = [rows[number][stripe] for stripe in range(striping.stripe_count) for number in range(striping.needed)]
    return next(iter(fragments.values()))[:CHUNK_HEADER_BYTES] + b"".join(frames)
