"""SANS-IO. The shapes of the datanode protocol: targets, bodies, batches, and errors as HTTP statuses.

Bodies that are not chunks are msgpack. Every parser here is bounded and raises ValueError for what does not fit,
whatever bytes it is given; both sides use the same functions.

    PUT    /v1/chunks/{id}             the sealed bytes, Content-Length given → 201 receipt
    GET    /v1/chunks/{id}             whole, or one `Range: bytes=a-b` / `bytes=a-` → 200, 206, 416 beyond the end
    HEAD   /v1/chunks/{id}             Content-Length and x-frostbyte-digest
    POST   /v1/chunks/{id}/verify      → receipt
    POST   /v1/chunks/{id}/pull        PullRequest → 201 receipt
    POST   /v1/chunks/{id}/rebuild     RebuildRequest → 201 receipt
    POST   /v1/batch/inspect           [id, …] → [[length, digest, stored_ms, verified_ms] | nil, …]
    POST   /v1/batch/put               [[id, bytes], …] → [[receipt | nil, error, message], …]
    POST   /v1/batch/get               [[id, offset, length], …] → [[bytes | nil, error, message], …]
    POST   /v1/batch/pull              [[id, PullRequest], …] → [[receipt | nil, error, message], …]
    POST   /v1/batch/delete            [id, …] → [bool, …]
    POST   /v1/batch/quarantine        [id, …] → [bool, …]: whatever is there; see judged_wire.py
    POST   /v1/quarantine/purge        older_than_ms → count
    GET    /v1/inventory?after=&limit= → [[id, length, stored_ms, verified_ms], …]
    GET    /v1/damaged?after=&limit=   → [[id, found_ms], …]: rot that was set aside and is not acknowledged yet
    POST   /v1/damaged/forget          [id, …] → [bool, …]: the master knows
    GET    /v1/scrub                   → ScrubStatus
    POST   /v1/scrub                   ScrubOrder → ScrubStatus
    GET    /v1/space                   → [capacity, free, reserve]

A failure is `[name, message]` with the name also in x-frostbyte-error, since a HEAD has no body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import parse_qs

import msgspec

from storage.base.errors import (
    ChunkConflict,
    ChunkError,
    ChunkNotFound,
    ChunkTruncated,
    Corrupt,
    FrostbyteError,
    JournalConflict,
    JournalError,
    JournalFenced,
    JournalFileNotFound,
    NodeFull,
    NodeUnreachable,
    Unavailable,
)
from storage.base.ids import CHUNK_ID_BYTES, ChunkId, chunk_id_from_bytes, parse_chunk_id
from storage.chunks.erasure import PARITY_MAX
from storage.chunks.store import DIGEST_BYTES, Buffer, ChunkReceipt, ChunkState, InventoryEntry, Space
from storage.model import NodeState

CHUNK_BYTES_MAX = 64 * 1024 * 1024
"""of one sealed chunk; eight times the default"""
BATCH_BYTES_MAX = 16 * 1024 * 1024
"""of the chunk bytes in one batch; its framing comes on top"""
BATCH_ITEMS_MAX = 1024
BATCH_BODY_BYTES_MAX = BATCH_BYTES_MAX + 64 * BATCH_ITEMS_MAX
SMALL_BODY_BYTES_MAX = 16 * 1024
INVENTORY_ENTRIES_MAX = 10_000
MESSAGE_CHARACTERS_MAX = 500

CHUNKS = "/v1/chunks/"
VERIFY = "/verify"
PULL = "/pull"
REBUILD = "/rebuild"
BATCH_PUT = "/v1/batch/put"
BATCH_GET = "/v1/batch/get"
BATCH_PULL = "/v1/batch/pull"
BATCH_DELETE = "/v1/batch/delete"
BATCH_QUARANTINE = "/v1/batch/quarantine"
PURGE = "/v1/quarantine/purge"
BATCH_INSPECT = "/v1/batch/inspect"
DAMAGED = "/v1/damaged"
DAMAGED_FORGET = "/v1/damaged/forget"
SCRUB = "/v1/scrub"
INVENTORY = "/v1/inventory"
SPACE = "/v1/space"
HEARTBEAT = "/v1/heartbeat"
"""of the master"""

DIGEST_HEADER = "x-frostbyte-digest"
DIGEST_WANTED_HEADER = "x-frostbyte-digest-wanted"
"""of a GET with a short Range: answer with the digest and the chunk's length too, which costs a look at its footer"""
ERROR_HEADER = "x-frostbyte-error"
ACTIVE_MASTER_HEADER = "x-frostbyte-active-master"
"""of a master that stands by: where the active one is"""
NODE_RETIRED = "NodeRetired"
"""why a master refuses the report of a node that is gone: in ERROR_HEADER"""

STATUS_OF: dict[str, int] = {
    ChunkNotFound.__name__: 404,
    ChunkConflict.__name__: 409,
    ChunkTruncated.__name__: 400,
    NodeFull.__name__: 507,
    Corrupt.__name__: 422,
    NodeUnreachable.__name__: 502,
    Unavailable.__name__: 503,
    ChunkError.__name__: 500,
    JournalFileNotFound.__name__: 404,
    JournalConflict.__name__: 409,
    JournalFenced.__name__: 412,
    JournalError.__name__: 500,
}
"""errors that cross the wire by name; anything else is a defect, and a 500"""

_ERRORS: dict[str, type[FrostbyteError]] = {
    kind.__name__: kind
    for kind in (
        ChunkNotFound,
        ChunkConflict,
        ChunkTruncated,
        NodeFull,
        Corrupt,
        NodeUnreachable,
        Unavailable,
        ChunkError,
        JournalFileNotFound,
        JournalConflict,
        JournalFenced,
        JournalError,
    )
}

_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{1,15})?\Z")
_T = TypeVar("_T")

ChunkIdBytes = Annotated[bytes, msgspec.Meta(min_length=CHUNK_ID_BYTES, max_length=CHUNK_ID_BYTES)]
_Position = Annotated[int, msgspec.Meta(ge=0, le=CHUNK_BYTES_MAX)]
_Moment = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Text = Annotated[str, msgspec.Meta(max_length=MESSAGE_CHARACTERS_MAX)]
Items = msgspec.Meta(max_length=BATCH_ITEMS_MAX)
Outcome = tuple[Any, str, str]


class PullRequest(msgspec.Struct, frozen=True, array_like=True):
    """Copy a chunk from another datanode. source: its address. ticket: made with the source's key. length and digest:
    what the caller knows of the sealed bytes; a copy that differs is not kept."""

    source: Annotated[str, msgspec.Meta(max_length=512)]
    ticket: Annotated[str, msgspec.Meta(max_length=96)]
    length: Annotated[int, msgspec.Meta(gt=0, le=CHUNK_BYTES_MAX)]
    digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class FragmentSource(msgspec.Struct, frozen=True, array_like=True):
    """A fragment that another datanode holds under the same id. ticket: made with its key, as in PullRequest."""

    number: Annotated[int, msgspec.Meta(ge=0, le=31)]
    address: Annotated[str, msgspec.Meta(max_length=512)]
    ticket: Annotated[str, msgspec.Meta(max_length=96)]


class RebuildRequest(msgspec.Struct, frozen=True, array_like=True):
    """Make fragment `number` of an erasure-coded chunk (storage.chunks.erasure) out of `needed` others. sealed_length:
    of the whole chunk. digest: of the fragment to be made; what comes out otherwise is not kept."""

    needed: Annotated[int, msgspec.Meta(ge=1, le=24)]
    width: Annotated[int, msgspec.Meta(ge=2, le=32)]
    number: Annotated[int, msgspec.Meta(ge=0, le=31)]
    sealed_length: Annotated[int, msgspec.Meta(gt=64, le=CHUNK_BYTES_MAX)]
    digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    sources: Annotated[tuple[FragmentSource, ...], msgspec.Meta(max_length=32)]


class DamagedChunk(msgspec.Struct, frozen=True, array_like=True):
    """A chunk whose bytes on the medium were not what was stored; it was set aside at found_ms."""

    chunk_id: bytes
    found_ms: int


class ScrubOrder(msgspec.Struct, frozen=True):
    """pace_bytes_per_s: how fast to read from now on until the next start; 0 as configured. begin: start a new pass at
    once, wherever the present one is."""

    pace_bytes_per_s: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0
    begin: bool = False


class ScrubStatus(msgspec.Struct, frozen=True):
    """A pass over all chunks in the order of their ids. total_chunks and total_bytes are as counted at its begin."""

    pass_started_ms: int = 0
    """of the pass under way, or of the last one when `is_running` is false; 0 before the first"""
    pass_ended_ms: int = 0
    """of the last whole pass; 0 when there was none"""
    is_running: bool = False
    checked_chunks: int = 0
    checked_bytes: int = 0
    total_chunks: int = 0
    total_bytes: int = 0
    damaged: int = 0
    """found by this pass"""
    pace_bytes_per_s: int = 0


class HeartbeatAnswer(msgspec.Struct, frozen=True):
    """A master's answer to a NodeReport: a msgpack map, so that later fields do not disturb older datanodes."""

    epoch: Annotated[int, msgspec.Meta(ge=0)]
    heartbeat_interval_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    state: NodeState = NodeState.UP
    """what the node is to the master: one that is draining or gone takes no new chunk"""


class ChunkRange(NamedTuple):
    """length None: to the end."""

    offset: int
    length: int | None


_encoder = msgspec.msgpack.Encoder()
_failure = msgspec.msgpack.Decoder(tuple[_Text, str])
_receipt = msgspec.msgpack.Decoder(ChunkReceipt)
_pull = msgspec.msgpack.Decoder(PullRequest)
_rebuild = msgspec.msgpack.Decoder(RebuildRequest)
_scrub_order = msgspec.msgpack.Decoder(ScrubOrder)
_scrub_status = msgspec.msgpack.Decoder(ScrubStatus)
_heartbeat = msgspec.msgpack.Decoder(HeartbeatAnswer)
_put_items = msgspec.msgpack.Decoder(Annotated[list[tuple[ChunkIdBytes, memoryview]], Items])
_pulls = msgspec.msgpack.Decoder(Annotated[list[tuple[ChunkIdBytes, PullRequest]], Items])
_spans = msgspec.msgpack.Decoder(Annotated[list[tuple[ChunkIdBytes, _Position, _Position]], Items])
_chunk_ids = msgspec.msgpack.Decoder(Annotated[list[ChunkIdBytes], Items])
_put_outcomes = msgspec.msgpack.Decoder(Annotated[list[tuple[ChunkReceipt | None, str, str]], Items])
_get_outcomes = msgspec.msgpack.Decoder(Annotated[list[tuple[bytes | None, str, str]], Items])
_flags = msgspec.msgpack.Decoder(Annotated[list[bool], Items])
_states = msgspec.msgpack.Decoder(Annotated[list[ChunkState | None], Items])
_damaged = msgspec.msgpack.Decoder(Annotated[list[DamagedChunk], msgspec.Meta(max_length=INVENTORY_ENTRIES_MAX)])
_moment = msgspec.msgpack.Decoder(_Moment)
_entries = msgspec.msgpack.Decoder(Annotated[list[InventoryEntry], msgspec.Meta(max_length=INVENTORY_ENTRIES_MAX)])
_space = msgspec.msgpack.Decoder(tuple[_Moment, _Moment, _Moment])


def encode(value: Any) -> bytes:
    """Any of the shapes above as msgpack."""
    return _encoder.encode(value)


def decode(decoder: msgspec.msgpack.Decoder[_T], body: Buffer) -> _T:
    """A body of one shape. ValueError."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a body of this protocol: {error}") from error


# --- targets and headers


def chunk_target(chunk_id: ChunkId, action: str = "") -> str:
    """Of one chunk; action is empty, VERIFY, PULL or REBUILD."""
    return f"{CHUNKS}{chunk_id}{action}"


def page_target(target: str, after: ChunkId | None, limit: int) -> str:
    """Of one page of INVENTORY or DAMAGED."""
    return f"{target}?after={after or ''}&limit={limit}"


def parse_page(query: bytes) -> tuple[ChunkId | None, int]:
    """(after, limit) of page_target, the limit cut to INVENTORY_ENTRIES_MAX. ValueError."""
    asked = parse_qs(query.decode("latin-1"), max_num_fields=4)
    after, limit = asked.get("after", [""])[0], asked.get("limit", [""])[0]
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 6 and int(limit) >= 1):
        raise ValueError("limit is a number of entries")
    return parse_chunk_id(after) if after else None, min(int(limit), INVENTORY_ENTRIES_MAX)


def format_range(offset: int, length: int | None) -> str:
    """A Range header for [offset, offset+length); length is at least 1."""
    return f"bytes={offset}-" if length is None else f"bytes={offset}-{offset + length - 1}"


def parse_range(header: str) -> ChunkRange:
    """The two forms of a single range that this protocol uses (RFC 9110 §14.1.2); ValueError for any other."""
    match = _RANGE.match(header)
    if match is None:
        raise ValueError("one range, bytes=a-b or bytes=a-")
    first, last = int(match[1]), match[2]
    if last is None:
        return ChunkRange(first, None)
    length = int(last) - first + 1
    if length < 1:
        raise ValueError("a range ends before it begins")
    return ChunkRange(first, length)


def parse_content_length(header: str) -> int:
    """Of a chunk: 1 to CHUNK_BYTES_MAX. ValueError."""
    if not (header.isascii() and header.isdigit() and len(header) <= 15):
        raise ValueError("Content-Length is needed")
    length = int(header)
    if not 1 <= length <= CHUNK_BYTES_MAX:
        raise ValueError(f"a chunk has 1 to {CHUNK_BYTES_MAX} bytes")
    return length


# --- failures


def encode_failure(name: str, message: str) -> bytes:
    """The body that goes with ERROR_HEADER."""
    return encode((name, message[:MESSAGE_CHARACTERS_MAX]))


def error_of(name: str, message: str) -> FrostbyteError | None:
    """The error that a name stands for; None for a name that this protocol does not have."""
    kind = _ERRORS.get(name)
    return kind(message[:MESSAGE_CHARACTERS_MAX]) if kind is not None else None


def parse_failure(name: str, body: Buffer) -> FrostbyteError | None:
    """A failed answer as the error to raise; the header's name counts, the body only explains."""
    return error_of(name, parse_failure_text(body))


def parse_failure_text(body: Buffer) -> str:
    """What a failed answer says for people; empty when it says nothing of this protocol."""
    try:
        return decode(_failure, body)[1][:MESSAGE_CHARACTERS_MAX]
    except ValueError:
        return ""


# --- single bodies


def parse_receipt(body: Buffer) -> ChunkReceipt:
    """ValueError."""
    receipt = decode(_receipt, body)
    if receipt.length < 1 or len(receipt.digest) != DIGEST_BYTES:
        raise ValueError("not a receipt")
    return receipt


def parse_pull_request(body: Buffer) -> PullRequest:
    """ValueError."""
    return decode(_pull, body)


def parse_rebuild_request(body: Buffer) -> RebuildRequest:
    """ValueError; also when the numbers are not those of one chunk, or too few fragments are named."""
    request = decode(_rebuild, body)
    sources = {source.number for source in request.sources}
    if not request.needed < request.width <= request.needed + PARITY_MAX:
        raise ValueError(f"{request.needed} of {request.width} fragments are not of this format")
    if len(sources) != len(request.sources) or len(sources) < request.needed:
        raise ValueError(f"{request.needed} other fragments are needed")
    if request.number in sources or max(request.number, *sources) >= request.width:
        raise ValueError(f"a chunk of {request.width} fragments has no such sources of number {request.number}")
    return request


def parse_scrub_order(body: Buffer) -> ScrubOrder:
    """ValueError."""
    return decode(_scrub_order, body)


def parse_scrub_status(body: Buffer) -> ScrubStatus:
    """ValueError."""
    return decode(_scrub_status, body)


def parse_damaged(body: Buffer) -> list[DamagedChunk]:
    """ValueError."""
    return decode(_damaged, body)


def parse_heartbeat_answer(body: Buffer) -> HeartbeatAnswer:
    """ValueError."""
    return decode(_heartbeat, body)


def parse_moment(body: Buffer) -> int:
    """A time in milliseconds, or a count. ValueError."""
    return decode(_moment, body)


def parse_inventory(body: Buffer) -> list[InventoryEntry]:
    """ValueError."""
    return decode(_entries, body)


def parse_space(body: Buffer) -> Space:
    """ValueError."""
    return Space(*decode(_space, body))


# --- batches


def encode_put_items(items: Sequence[tuple[ChunkId, Buffer]]) -> bytes:
    """The body of BATCH_PUT."""
    return encode([(chunk_id.to_bytes(), data) for chunk_id, data in items])


def parse_put_items(body: Buffer) -> list[tuple[ChunkId, memoryview]]:
    """Chunks as views into the body, in order. ValueError."""
    return [(chunk_id_from_bytes(raw), data) for raw, data in decode(_put_items, body)]


def encode_pulls(pulls: Sequence[tuple[ChunkId, PullRequest]]) -> bytes:
    """The body of BATCH_PULL."""
    return encode([(chunk_id.to_bytes(), request) for chunk_id, request in pulls])


def parse_pulls(body: Buffer) -> list[tuple[ChunkId, PullRequest]]:
    """ValueError; also when the chunks have more than BATCH_BYTES_MAX together."""
    pulls = decode(_pulls, body)
    if sum(request.length for _, request in pulls) > BATCH_BYTES_MAX:
        raise ValueError(f"one batch carries at most {BATCH_BYTES_MAX} bytes")
    return [(chunk_id_from_bytes(raw), request) for raw, request in pulls]


def encode_spans(spans: Sequence[tuple[ChunkId, int, int]]) -> bytes:
    """The body of BATCH_GET."""
    return encode([(chunk_id.to_bytes(), offset, length) for chunk_id, offset, length in spans])


def parse_spans(body: Buffer) -> list[tuple[ChunkId, int, int]]:
    """ValueError; also when the spans ask for more than BATCH_BYTES_MAX together."""
    spans = decode(_spans, body)
    if sum(length for _, _, length in spans) > BATCH_BYTES_MAX:
        raise ValueError(f"one batch carries at most {BATCH_BYTES_MAX} bytes")
    return [(chunk_id_from_bytes(raw), offset, length) for raw, offset, length in spans]


def encode_chunk_ids(chunk_ids: Sequence[ChunkId]) -> bytes:
    """The body of BATCH_INSPECT, BATCH_DELETE, BATCH_QUARANTINE and DAMAGED_FORGET."""
    return encode([chunk_id.to_bytes() for chunk_id in chunk_ids])


def parse_chunk_ids(body: Buffer) -> list[ChunkId]:
    """ValueError."""
    return [chunk_id_from_bytes(raw) for raw in decode(_chunk_ids, body)]


def parse_flags(body: Buffer, count: int) -> list[bool]:
    """One per chunk asked about. ValueError."""
    return _counted(decode(_flags, body), count)


def parse_states(body: Buffer, count: int) -> list[ChunkState | None]:
    """One per chunk asked about. ValueError."""
    return _counted(decode(_states, body), count)


def encode_outcomes(outcomes: Sequence[Any]) -> bytes:
    """One outcome per item: a value, or an error of the tree."""
    return encode([_encode_outcome(outcome) for outcome in outcomes])


def parse_put_outcomes(body: Buffer, count: int) -> list[ChunkReceipt | ChunkError]:
    """One per item of the request, of BATCH_PUT or (Corrupt among the errors) of BATCH_PULL. ValueError."""
    return [_parse_outcome(*outcome) for outcome in _counted(decode(_put_outcomes, body), count)]


def parse_get_outcomes(body: Buffer, count: int) -> list[bytes | ChunkError | Corrupt]:
    """One per span of the request. ValueError."""
    return [_parse_outcome(*outcome) for outcome in _counted(decode(_get_outcomes, body), count)]


def plan_batches(sizes: Sequence[int]) -> Iterator[slice]:
    """Cut items of these sizes (bytes) into runs that fit a batch. An item above BATCH_BYTES_MAX is a run alone."""
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (total + size > BATCH_BYTES_MAX or index - start >= BATCH_ITEMS_MAX):
            yield slice(start, index)
            start, total = index, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def _encode_outcome(outcome: Any) -> Outcome:
    if isinstance(outcome, FrostbyteError):
        name = type(outcome).__name__
        return None, name if name in _ERRORS else ChunkError.__name__, str(outcome)[:MESSAGE_CHARACTERS_MAX]
    return outcome, "", ""


def _parse_outcome(value: Any, name: str, message: str) -> Any:
    if value is not None:
        return value
    return error_of(name, message) or ChunkError(f"{name}: {message}"[:MESSAGE_CHARACTERS_MAX])


def _counted(items: list[_T], count: int) -> list[_T]:
    if len(items) != count:
        raise ValueError(f"{len(items)} outcomes for {count} items")
    return items
