"""The sync before the ack, seen from outside: a real datanode under strace.

kill -9 proves nothing about syncs, since the kernel keeps what was written. Here the system calls themselves are read:
the bytes of the chunk are synced, then it gets its name, then the directory is synced, and only then is it answered.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from storage.base.direct_file import AlignedBuffers
from storage.base.ids import ChunkId
from storage.chunks.footer import digest_of
from storage.chunks.near_drafts import NearDrafts
from storage.chunks.segment_format import slot_number, slot_offset
from storage.chunks.store import Buffer
from storage.datanode import near_wire
from tests.storage.chunks.conformance import chunk_id, cut, put, read, some_bytes
from tests.storage.datanode.nodes import running_node

TRACED = "openat,fdatasync,fsync,rename,renameat,renameat2,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg"
_UNFINISHED = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)= (-?\d+)")
_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


class Call(NamedTuple):
    """A system call. began and ended: places in the order of the trace."""

    name: str
    arguments: str
    result: int
    began: int
    ended: int


def parse_trace(text: str) -> list[Call]:
    """The calls of all threads, in the order in which they ended."""
    calls: list[Call] = []
    open_calls: dict[tuple[str, str], tuple[str, int]] = {}
    for place, line in enumerate(text.splitlines()):
        if match := _UNFINISHED.match(line):
            open_calls[match[1], match[2]] = (match[3], place)
        elif match := _RESUMED.match(line):
            arguments, began = open_calls.pop((match[1], match[2]))
            calls.append(Call(match[2], (arguments + match[3]).rstrip(" )"), int(match[4]), began, place))
        elif match := _WHOLE.match(line):
            calls.append(Call(match[2], match[3], int(match[4]), place, place))
    return calls


def only(calls: list[Call], names: str, pattern: str) -> Call:
    """The one successful call of these names whose arguments match."""
    found = [call for call in calls if call.name in names.split() and re.search(pattern, call.arguments)]
    assert len(found) == 1, (names, pattern, found)
    assert found[0].result >= 0
    return found[0]


def check_record_order(calls: list[Call], of: ChunkId, length: int, answer: Call) -> None:
    """Body and slot → fdatasync of the segment → answer, each ended before the next began. The segment's name is
    synced with its first chunk."""
    segment = f"/data/chunks/{str(of)[:29]}.segment>"
    offset = slot_offset(slot_number(of))
    slot = only(calls, "pwrite64", rf"{segment}, .*, 64, {offset}$")
    bodies = [call for call in calls if call.name in ("pwritev", "pwritev2") and segment in call.arguments]
    [body] = [call for call in bodies if call.ended < slot.began and call.result == -(-length // 4096) * 4096][-1:]
    synced = [call for call in calls if call.name == "fdatasync" and segment in call.arguments]
    synced = [call for call in synced if call.began > slot.ended and call.ended < answer.began]
    assert body.ended < slot.began
    assert synced, "the segment was not synced between the slot and the answer"
    assert all(call.result == 0 for call in synced)
    named = [call for call in calls if call.name == "fsync" and call.arguments.endswith("/data/chunks>")]
    assert any(call.ended < answer.began for call in named)


def check_order(calls: list[Call], of: ChunkId, answer: Call) -> None:
    """fdatasync of the file → rename → fsync of its directory → answer, each ended before the next began."""
    group = f"/data/chunks/{str(of)[:29]}"
    synced = only(calls, "fdatasync fsync", rf"/data/tmp/{of}\.[0-9a-f]+>")
    renamed = only(calls, "rename renameat renameat2", rf"/data/tmp/{of}\..*{group}/{of}\"")
    directory = [call for call in calls if call.name == "fsync" and f"{group}>" in call.arguments]
    directory = [call for call in directory if call.began > renamed.ended and call.ended < answer.began]
    assert synced.ended < renamed.began
    assert directory, "the directory was not synced between the rename and the answer"
    assert all(call.result == 0 for call in (synced, renamed, *directory))
    # The directory that holds the group's own name, made by the first chunk of the group.
    made = [call for call in calls if call.name == "fsync" and call.arguments.endswith("/data/chunks>")]
    assert any(call.ended < answer.began for call in made)


async def test_the_syncs_end_before_the_answer_begins(tmp_path: Path) -> None:
    """For a small chunk, a streamed one, and each chunk of a batch."""
    trace = tmp_path / "trace"
    prefix = ["strace", "-f", "-y", "-s", "16", "-e", f"trace={TRACED}", "-o", str(trace)]
    with running_node(tmp_path, prefix=prefix) as node:
        client = node.client()
        await put(client, chunk_id(1), some_bytes(1000))
        await put(client, chunk_id(2), some_bytes(3_000_000))
        await client.put_many([(chunk_id(n), some_bytes(100)) for n in range(3, 6)])
        await client.close()
        assert node.terminate() == 0
    calls = parse_trace(trace.read_text())
    created = [call for call in calls if '"HTTP/1.1 201 Cre' in call.arguments]
    batched = [call for call in calls if '"HTTP/1.1 200 OK' in call.arguments]
    assert (len(created), len(batched)) == (2, 1)
    check_record_order(calls, chunk_id(1), 1000, created[0])
    check_order(calls, chunk_id(2), created[1])
    for number in range(3, 6):
        check_record_order(calls, chunk_id(number), 100, batched[0])


async def test_a_lent_draft_is_synced_after_its_bytes_were_written(tmp_path: Path) -> None:
    """By the datanode, whoever wrote them; and it is told that they are there only then."""
    trace, of, data = tmp_path / "trace", chunk_id(1), some_bytes(3_000_000)
    prefix = ["strace", "-f", "-y", "-s", "16", "-e", f"trace={TRACED},pwrite64,recvfrom,read", "-o", str(trace)]
    loan = near_wire.Loan("ab" * near_wire.TOKEN_BYTES, len(data))
    drafts = NearDrafts(tmp_path / "data", AlignedBuffers())

    async def account() -> AsyncIterator[Buffer]:
        receipt = await drafts.fill(of, *loan, cut(data, 65_552))
        yield bytes(near_wire.padding_bytes(len(data)))
        yield near_wire.format_account(receipt)

    with running_node(tmp_path, prefix=prefix) as node:
        client = node.client()
        assert await client.lend(of, loan, account()) == digest_of(data)
        assert await read(client, of) == data
        await client.close()
        assert node.terminate() == 0
    drafts.close()
    calls = parse_trace(trace.read_text())
    [answer] = [call for call in calls if '"HTTP/1.1 201 Cre' in call.arguments]
    check_order(calls, of, answer)
    agreed = only(calls, "write sendto sendmsg", '"HTTP/1.1 100 ')
    made = only(calls, "openat", rf"/data/tmp/{of}\.{loan.token}\".*O_CREAT")
    footer = only(calls, "pwrite64", rf"/data/tmp/{of}\.{loan.token}>, \"FBF1")
    synced = only(calls, "fdatasync", rf"/data/tmp/{of}\.{loan.token}>")
    assert made.ended < agreed.began
    assert agreed.ended < footer.began
    assert footer.ended < synced.began


async def test_the_identity_is_synced_before_the_socket_accepts(tmp_path: Path) -> None:
    """A node that registered must not wake up with another name."""
    trace = tmp_path / "trace"
    prefix = ["strace", "-f", "-y", "-s", "300", "-e", f"trace={TRACED},link,linkat,listen", "-o", str(trace)]
    with running_node(tmp_path, prefix=prefix) as node:
        assert node.terminate() == 0
    calls = parse_trace(trace.read_text())
    synced = only(calls, "fsync", r"/data/\.node\.json\.")
    named = only(calls, "link linkat rename", r"\.node\.json\..*/data/node\.json\"")
    listening = only(calls, "listen", r"node\.sock|UNIX|socket")
    directory = [call for call in calls if call.name == "fsync" and call.arguments.endswith("/data>")]
    assert synced.ended < named.began
    assert any(named.ended < call.began and call.ended < listening.began for call in directory)


async def test_without_durability_nothing_is_synced(tmp_path: Path) -> None:
    """What the benchmark's other mode means; and that the trace would show a sync."""
    trace = tmp_path / "trace"
    prefix = ["strace", "-f", "-y", "-s", "16", "-e", f"trace={TRACED}", "-o", str(trace)]
    with running_node(tmp_path, prefix=prefix, durability="none") as node:
        client = node.client()
        await put(client, chunk_id(1), some_bytes(1000))
        await client.close()
        assert node.terminate() == 0
    calls = parse_trace(trace.read_text())
    assert not [call for call in calls if call.name in ("fsync", "fdatasync")]
    assert [call for call in calls if '"HTTP/1.1 201 Cre' in call.arguments]
