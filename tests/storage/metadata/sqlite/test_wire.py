"""Frames of the metadata socket: whatever pieces they come in, and whatever comes instead of them."""

from __future__ import annotations

import struct
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import REFUSALS, EntityTooSmall, FrostbyteError, Unavailable
from storage.metadata import commands as c
from storage.metadata.sqlite.wire import (
    COMMAND,
    DONE,
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    Frame,
    FrameReader,
    ProtocolError,
    decode_command,
    decode_outcome,
    encode_command,
    encode_frame,
    encode_outcome,
)
from storage.model import (
    Attributes,
    Blob,
    Bucket,
    Chunk,
    Extent,
    Grant,
    LockMode,
    Node,
    NodeReport,
    NodeState,
    PartInfo,
)

FRAMES = st.lists(st.builds(Frame, st.integers(0, 2**64 - 1), st.integers(0, 255), st.binary(max_size=200)), max_size=8)
COMMANDS: list[c.Command] = [
    c.OpenSession(b"s" * 8, "x"),
    c.CommitVersion(
        b"s" * 8,
        1,
        b"\x00\xff",
        c.NewVersion(b"u" * 8, 5, "e", "o", Attributes(user_metadata={"ä": "b"}), b"m"),
        (Blob(b"b" * 16, 5, "bk", 1, "inline", (Chunk(0, 0, 5, b"w", b"d", (1, 2)),), b"sealed"),),
        (Extent(b"b" * 16, 0, 5, 3),),
        c.Conditions(None, "*"),
    ),
    c.DeleteVersions(1, (c.DeleteTarget(b"k", "null", c.Conditions("e", None, 5, 7)), c.DeleteTarget(b"l")), True),
    c.DeleteVersions(1, (c.DeleteTarget(b"k", "v", noncurrent_only=True),)),
    c.ChangeObject(1, b"k", "v", {"t": ""}, (Grant("o", "READ"),), c.Retention(LockMode.GOVERNANCE, 5), False, True),
    c.ChangeObject(1, b"k", tags={}, acl=()),
    c.SetReplicas(b"b" * 16, 3, (1, 2), (1, 0), 5, 7),
    c.Relayout(b"b" * 16, 1, "ec:2+1", (c.ChunkLayout(0, b"d" * 24, (1, 0, 3)),), 7, 9),
    c.ForgetBlobs((b"b" * 16,), (2,), 7),
    c.SetNodeClosed("n", True, 7),
    c.CompleteUpload(b"s" * 8, 1, b"k", "id", c.NewVersion(b"u" * 8, 0, "e", "o", Attributes()), ()),
]
OUTCOMES: list[tuple[type[c.Command], object]] = [
    (c.OpenSession, None),
    (c.FenceSessions, [b"a", b"b"]),
    (c.CommitVersion, c.VersionCommitted("v", 5, "e")),
    (c.DeleteVersions, [c.Deleted("v", True), c.Deleted(refusal="NoSuchKey")]),
    (c.ChangeObject, c.ObjectChanged("v")),
    (c.CreateBucket, Bucket(1, "b", "o", "r", 5, "bk", settings={"cors": b"x"})),
    (c.PutPart, PartInfo(1, 5, "e", 7, b"b")),
    (c.RegisterNode, Node(1, NodeReport("n", "c", "unix:/x", "d", 1, 2, 3, 4), NodeState.UP, 5)),
    (c.SetReplicas, False),
    (c.Relayout, True),
    (c.SetNodeClosed, None),
]


@given(frames=FRAMES, cuts=st.lists(st.integers(1, 60), max_size=50))
def test_frames_come_whole_out_of_any_pieces(frames: list[Frame], cuts: list[int]) -> None:
    """In order, with their ids and kinds."""
    data = b"".join(encode_frame(*frame) for frame in frames)
    reader = FrameReader()
    found: list[Frame] = []
    for cut in cuts:
        found += reader.feed(data[:cut])
        data = data[cut:]
    found += reader.feed(data)
    assert found == frames


@given(data=st.binary(max_size=300))
def test_garbage_is_frames_or_a_protocol_error(data: bytes) -> None:
    """Nothing else, and never a frame above the bound."""
    try:
        for frame in FrameReader().feed(data):
            assert len(frame.body) <= FRAME_BYTES_MAX
            decode_command(frame)
    except ProtocolError:
        pass


@given(body=st.binary(max_size=100), kind=st.integers(0, 255), command=st.sampled_from([o[0] for o in OUTCOMES]))
def test_a_garbage_answer_is_an_outcome_or_a_protocol_error(body: bytes, kind: int, command: type[c.Command]) -> None:
    """Whatever the kind says."""
    with suppress(ProtocolError):
        decode_outcome(Frame(1, kind, body), command)


def test_a_frame_above_the_bound_is_refused_by_its_header() -> None:
    """Before its body is waited for."""
    header = struct.pack(">IQB", FRAME_BYTES_MAX + 1, 1, COMMAND)
    with pytest.raises(ProtocolError):
        list(FrameReader().feed(header))
    assert list(FrameReader().feed(struct.pack(">IQB", FRAME_BYTES_MAX, 1, COMMAND))) == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_commands_survive_the_way(command: c.Command) -> None:
    """Every field."""
    (frame,) = FrameReader().feed(encode_command(7, command))
    assert (frame.request_id, decode_command(frame)) == (7, command)


def test_commands_of_the_releases_before_are_understood() -> None:
    """Without the fields that were appended since."""
    body = msgspec.msgpack.encode(["DeleteVersions", 1, [[b"k", "v", [None, None]]]])
    assert decode_command(Frame(1, COMMAND, body)) == c.DeleteVersions(1, (c.DeleteTarget(b"k", "v"),))
    body = msgspec.msgpack.encode(["ForgetBlobs", [b"b"]])
    assert decode_command(Frame(1, COMMAND, body)) == c.ForgetBlobs((b"b",), (), 0)
    body = msgspec.msgpack.encode(["SetReplicas", b"b", 1, [1], [2]])
    assert decode_command(Frame(1, COMMAND, body)) == c.SetReplicas(b"b", 1, (1,), (2,), 0, 0)


def test_every_command_has_a_way() -> None:
    """The union of the wire knows each of them by its name, but for the owner's own."""
    known = {command.__name__ for command in c.Command.__subclasses__()} - {c.ExtendLeases.__name__}
    assert known == {command.__name__ for command in c.AnyCommand.__args__}


@pytest.mark.parametrize(("command", "outcome"), OUTCOMES, ids=lambda value: str(value)[:20])
def test_results_survive_the_way(command: type[c.Command], outcome: object) -> None:
    """As the type that the command's docstring says."""
    (frame,) = FrameReader().feed(encode_outcome(9, outcome))
    assert frame.kind == DONE
    assert decode_outcome(frame, command) == outcome


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_refusals_survive_the_way(name: str) -> None:
    """By class, text and details."""
    (frame,) = FrameReader().feed(encode_outcome(9, REFUSALS[name]("text", part_number="3")))
    error = decode_outcome(frame, c.CommitVersion)
    assert (type(error), str(error), error.details) == (REFUSALS[name], "text", {"part_number": "3"})


def test_unavailable_survives_the_way_and_an_unknown_refusal_is_still_one() -> None:
    """A newer owner may refuse by a name that this worker does not know."""
    (frame,) = FrameReader().feed(encode_outcome(9, Unavailable("down", outcome="unknown")))
    error = decode_outcome(frame, c.CommitVersion)
    assert (type(error), error.details) == (Unavailable, {"outcome": "unknown"})
    (frame,) = FrameReader().feed(encode_outcome(9, EntityTooSmall()))
    renamed = Frame(9, frame.kind, msgspec.msgpack.encode(("FromTheFuture", "text", {})))
    assert type(decode_outcome(renamed, c.CommitVersion)) is REFUSALS["Refused"]
    assert isinstance(error, FrostbyteError)


def test_a_command_that_no_frame_can_carry_is_not_sent() -> None:
    """Unavailable, with nothing on the wire."""
    with pytest.raises(Unavailable):
        encode_command(1, c.PutBucketSetting(1, "policy", bytes(FRAME_BYTES_MAX)))
    assert HEADER_BYTES == 13
