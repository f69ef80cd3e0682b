"""Group commit: one transaction for all that waits, in which a failing command undoes only itself."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from storage.base.clock import ManualClock
from storage.base.errors import NoSuchKey, PreconditionFailed, SessionFenced, Unavailable, UserAlreadyExists
from storage.metadata.commands import (
    CloseSession,
    Conditions,
    CreateUser,
    DeleteTarget,
    DeleteVersions,
    OpenSession,
    RenewSession,
    VersionCommitted,
)
from storage.metadata.sqlite.apply import apply_command
from storage.metadata.sqlite.database import DATABASE_NAME, Transaction, connect_writer, read_only_uri
from storage.metadata.sqlite.open import MetadataOwner, open_owned_metadata
from storage.metadata.sqlite.reader import SqliteMetadata
from storage.metadata.sqlite.schema import migrate
from storage.metadata.sqlite.writer import DELETE_TARGETS_PER_STEP, QUEUE_COMMANDS_MAX, LocalSink
from storage.model import AccessKey, User, Versioning
from tests.linear.racer import race_in_this_process
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.sqlite.owned import FullAtCommit, Owned


async def test_what_waits_together_is_one_transaction(owned: Owned) -> None:
    """One group, one time, every command in it, in the order of arrival."""
    worker = await Worker.start(owned.metadata)
    holder = await owned.hold()
    puts = [asyncio.create_task(worker.put(b"%d" % number)) for number in range(30)]
    await asyncio.sleep(0)
    owned.release()
    answers = await asyncio.gather(*puts)
    await holder
    group = owned.journal.groups[-1]
    assert [(getattr(command, "object_key", None), ok) for command, ok in group.entries] == [
        (b"%d" % number, True) for number in range(30)
    ]
    assert {answer.last_modified_ms for answer in answers} == {group.applied_at_ms}


async def test_what_a_group_knows_of_sessions_and_buckets_ends_with_what_changes_them(owned: Owned) -> None:
    """Within one group, and where it was rolled back and applied again."""
    worker = await Worker.start(owned.metadata)
    other = await Worker.start(owned.metadata, worker.bucket)
    again = worker.inline(10)
    await worker.put(b"taken", blob=again)
    for refused in ((), (b"r",)):
        key = b"k%d" % len(refused)
        holder = await owned.hold()
        steps = [
            worker.put(key),
            worker.put(key),
            *(worker.put(name, blob=again) for name in refused),  # after its first change
            worker.set_versioning(Versioning.ENABLED),
            worker.put(key),
            worker.set_versioning(Versioning.SUSPENDED),
            worker.put(key),
            other.put(key),
            owned.metadata.apply(CloseSession(other.session_id)),
            other.put(key),
        ]
        tasks = [asyncio.create_task(step) for step in steps]
        await asyncio.sleep(0)
        owned.release()
        await holder
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        put = [answer for answer in answers if isinstance(answer, VersionCommitted)]
        null = None if not refused else "null"
        assert [it.version_id for it in put[:2]] == [null, null]
        assert put[2].version_id not in (None, "null")
        assert [it.version_id for it in put[3:]] == ["null", "null"]
        assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [SessionFenced] * (
            1 + len(refused)
        )
        assert len(owned.journal.groups[-1].entries) == len(steps)
        other = await Worker.start(owned.metadata, worker.bucket)


async def test_a_refusal_does_not_undo_its_neighbours(owned: Owned) -> None:
    """The journal says which command was refused."""
    worker = await Worker.start(owned.metadata)
    holder = await owned.hold()
    absent = Conditions(if_none_match="*")
    puts = [asyncio.create_task(worker.put(b"k", f"e{number}", conditions=absent)) for number in range(3)]
    puts.append(asyncio.create_task(worker.put(b"other")))
    await asyncio.sleep(0)
    owned.release()
    first, second, third, other = await asyncio.gather(*puts, return_exceptions=True)
    await holder
    assert isinstance(second, PreconditionFailed)
    assert isinstance(third, PreconditionFailed)
    assert not isinstance(first, BaseException)
    assert not isinstance(other, BaseException)
    assert [ok for _, ok in owned.journal.groups[-1].entries] == [True, False, False, True]
    assert await worker.etag(b"k") == "e0"


async def test_a_failure_after_a_change_undoes_that_command_alone(owned: Owned) -> None:
    """CreateUser finds its access key taken when the user's row is already in."""
    metadata = owned.metadata
    await metadata.apply(CreateUser(User("i0", "n0", ""), AccessKey("AK", "i0", b"")))
    holder = await owned.hold()
    commands = [
        CreateUser(User("i1", "n1", "")),
        CreateUser(User("i2", "n2", ""), AccessKey("AK", "i2", b"")),
        CreateUser(User("i3", "n3", "")),
    ]
    tasks = [asyncio.create_task(metadata.apply(command)) for command in commands]
    await asyncio.sleep(0)
    owned.release()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await holder
    assert [type(outcome) for outcome in outcomes] == [type(None), UserAlreadyExists, type(None)]
    assert [user.name for user, _ in await metadata.list_users()] == ["n0", "n1", "n3"]
    assert [ok for _, ok in owned.journal.groups[-1].entries] == [True, False, True]


async def test_a_command_that_trips_over_a_bug_does_not_stop_the_writer(owned: Owned) -> None:
    """A number that no column can hold: Unavailable for it, and its neighbours are committed."""
    worker = await Worker.start(owned.metadata)
    holder = await owned.hold()
    tasks = [
        asyncio.create_task(owned.metadata.apply(command))
        for command in (OpenSession(b"one-----", "x"), RenewSession(worker.session_id, 2**64 - 1))
    ]
    put = asyncio.create_task(worker.put(b"k"))
    await asyncio.sleep(0)
    owned.release()
    opened, renewed, _ = await asyncio.gather(*tasks, put, return_exceptions=True)
    await holder
    assert opened is None
    assert isinstance(renewed, Unavailable)
    assert "outcome" not in renewed.details
    assert await worker.etag(b"k") == "e"


async def test_a_large_delete_lets_the_writes_beside_it_pass(owned: Owned) -> None:
    """It is applied in steps, and a PUT that came later is answered before its end."""
    worker = await Worker.start(owned.metadata)
    holder = await owned.hold()
    steps = 5
    targets = tuple(DeleteTarget(b"%d" % number) for number in range(steps * DELETE_TARGETS_PER_STEP))
    finished: list[str] = []

    async def note(name: str, task: asyncio.Task[object]) -> None:
        await task
        finished.append(name)

    delete = asyncio.create_task(worker.apply(DeleteVersions(worker.bucket.bucket_id, targets)))
    put = asyncio.create_task(worker.put(b"k"))
    notes = [asyncio.create_task(note("delete", delete)), asyncio.create_task(note("put", put))]
    await asyncio.sleep(0)
    owned.release()
    await asyncio.gather(holder, *notes)
    assert finished == ["put", "delete"]
    assert len(delete.result()) == len(targets)
    sizes = [
        len(command.targets)
        for group in owned.journal.groups
        for command, _ in group.entries
        if isinstance(command, DeleteVersions)
    ]
    assert sizes == [DELETE_TARGETS_PER_STEP] * steps


async def test_more_than_the_queue_holds_is_refused_at_once(owned: Owned) -> None:
    """Unavailable without an unknown outcome; the waiting ones are applied."""
    holder = await owned.hold()
    waiting = [
        asyncio.create_task(owned.metadata.apply(OpenSession(b"%08d" % number, "")))
        for number in range(QUEUE_COMMANDS_MAX - 1)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        await owned.metadata.apply(OpenSession(b"too many", ""))
    assert refused.value.details == {}
    owned.release()
    await asyncio.gather(holder, *waiting)
    assert len(await owned.metadata.list_sessions()) == QUEUE_COMMANDS_MAX


async def test_a_full_disk_undoes_the_group_and_is_survived(owned: Owned) -> None:
    """SQLite's own page limit stands in for the disk; deletes and later writes work again."""
    worker = await Worker.start(owned.metadata)
    await worker.put(b"k", "before")
    writing = owned.owner.writing
    (pages,) = writing.execute("PRAGMA page_count").fetchone()
    writing.execute(f"PRAGMA max_page_count={pages}").fetchone()
    outcomes = await asyncio.gather(*[worker.put(b"%d" % n, size=9000) for n in range(9)], return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 9
    await worker.delete(b"k")
    writing.execute("PRAGMA max_page_count=1000000").fetchone()
    await worker.put(b"k", "after")
    page = await owned.metadata.list_heads(worker.bucket.bucket_id)
    assert [entry.etag for entry in page.entries] == ["after"]


async def test_a_failing_journal_leaves_the_outcome_unknown_and_ends_the_owner(owned: Owned) -> None:
    """The rows are committed here, but not as durable as promised; nothing more is taken."""
    worker = await Worker.start(owned.metadata)
    owned.journal.failure = OSError("no datanode answers")
    with pytest.raises(Unavailable) as lost:
        await worker.put(b"k")
    assert lost.value.details == {"outcome": "unknown"}
    assert await owned.owner.committer.failed == "no datanode answers"
    with pytest.raises(Unavailable) as refused:
        await worker.put(b"k")
    assert refused.value.details == {}


@pytest.mark.parametrize("details", [{}, {"outcome": "unknown"}])
async def test_a_journal_that_does_not_take_a_group_undoes_it(owned: Owned, details: dict[str, str]) -> None:
    """The callers are told what it says of the outcome, and the writer goes on."""
    worker = await Worker.start(owned.metadata)
    owned.journal.failure = Unavailable("no datanode takes it", **details)
    with pytest.raises(Unavailable, match="no datanode takes it") as refused:
        await worker.put(b"k", "lost")
    assert refused.value.details == details
    owned.journal.failure = None
    await worker.put(b"k", "kept")
    page = await owned.metadata.list_heads(worker.bucket.bucket_id)
    assert [entry.etag for entry in page.entries] == ["kept"]


async def test_a_refused_step_leaves_the_outcome_of_its_command_unknown(owned: Owned) -> None:
    """The steps before it are committed."""
    worker = await Worker.start(owned.metadata)
    holder = await owned.hold()
    targets = tuple(DeleteTarget(b"%d" % number) for number in range(2 * DELETE_TARGETS_PER_STEP))
    delete = asyncio.create_task(worker.apply(DeleteVersions(worker.bucket.bucket_id, targets)))
    await asyncio.sleep(0)
    owned.journal.refuse_after = len(owned.journal.groups) + 1
    owned.release()
    await holder
    with pytest.raises(Unavailable) as refused:
        await delete
    assert refused.value.details == {"outcome": "unknown"}
    owned.journal.refuse_after = None


async def test_what_the_journal_refuses_is_not_queued(owned: Owned) -> None:
    """It is told at once, and was not applied."""
    owned.journal.reason = "no datanode answers"
    with pytest.raises(Unavailable, match="no datanode answers") as refused:
        await owned.metadata.apply(OpenSession(b"12345678", ""))
    assert refused.value.details == {}
    owned.journal.reason = ""
    assert await owned.metadata.list_sessions() == []


async def test_a_group_of_refusals_is_not_in_the_journal(owned: Owned) -> None:
    """There is nothing to replay of it."""
    worker = await Worker.start(owned.metadata)
    before = len(owned.journal.groups)
    with pytest.raises(NoSuchKey):
        await worker.put(b"k", conditions=Conditions(if_match="x"))
    assert len(owned.journal.groups) == before


async def test_a_full_disk_after_the_journal_took_the_group_leaves_its_outcome_unknown(owned: Owned) -> None:
    """Another owner may find it there and apply it."""
    worker = await Worker.start(owned.metadata)
    committer = owned.owner.committer
    cursor = committer._cursor
    committer._cursor = FullAtCommit(cursor)  # type: ignore[assignment]
    owned.journal.is_elsewhere = True
    with pytest.raises(Unavailable, match="disk is full") as refused:
        await worker.put(b"k", "lost")
    assert refused.value.details == {"outcome": "unknown"}
    committer._cursor = cursor
    await worker.put(b"k", "kept")
    assert await worker.etag(b"k") == "kept"


async def test_whoever_holds_the_writer_has_its_connection_alone(owned: Owned) -> None:
    """What is submitted meanwhile waits, and what comes before it is committed."""
    worker = await Worker.start(owned.metadata)
    before = asyncio.create_task(worker.put(b"before"))
    await asyncio.sleep(0)
    async with owned.owner.committer.held() as connection:
        assert before.done() or await before
        after = asyncio.create_task(worker.put(b"after"))
        await asyncio.sleep(0.05)
        assert not after.done()
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM heads").fetchone() == (1,)
    await after


async def test_closing_answers_what_was_submitted(tmp_path: Path) -> None:
    """And takes nothing after."""
    owner = await MetadataOwner.open(tmp_path)
    door = LocalSink(owner.committer)
    tasks = [asyncio.create_task(door.apply(OpenSession(b"%08d" % number, ""))) for number in range(500)]
    await asyncio.sleep(0)
    await owner.close()
    assert await asyncio.gather(*tasks) == [None] * 500
    with pytest.raises(Unavailable):
        await door.apply(OpenSession(b"late....", ""))


async def test_two_owners_are_never_there_at_a_time(tmp_path: Path) -> None:
    """The second is refused while the first lives, and passes after it closed."""
    first = await open_owned_metadata(tmp_path)
    with pytest.raises(Unavailable, match="another process owns"):
        await open_owned_metadata(tmp_path)
    await first.apply(OpenSession(b"12345678", "x"))
    await first.close()
    second = await open_owned_metadata(tmp_path)
    assert [session.owner for session in await second.list_sessions()] == ["x"]
    await second.close()


async def test_an_absent_owner_fences_nobody(tmp_path: Path) -> None:
    """While it was away no worker could renew its lease: leases start anew with the owner."""
    clock = ManualClock()
    first = await open_owned_metadata(tmp_path, clock=clock)
    await first.apply(OpenSession(b"12345678", "x"))
    await first.close()
    clock.advance(3600)
    second = await open_owned_metadata(tmp_path, clock=clock)
    assert (await second.list_sessions())[0].renewed_ms == clock.now_ms()
    await second.close()


def dump(directory: Path) -> list[str]:
    """Every row of the database, as SQL."""
    connection = sqlite3.connect(read_only_uri(directory / DATABASE_NAME), uri=True)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


async def test_the_journal_replays_to_the_same_rows(owned: Owned, tmp_path_factory: pytest.TempPathFactory) -> None:
    """After a random load, down to version ids, row ids and times."""
    await Worker.start(owned.metadata)
    await race_in_this_process(owned.metadata, "bucket", "replay", 8, 25)
    bucket = await owned.metadata.find_bucket("bucket")
    assert bucket is not None
    worker = await Worker.start(owned.metadata, bucket)
    await worker.apply(DeleteVersions(bucket.bucket_id, tuple(DeleteTarget(b"%d" % n) for n in range(200))))
    replica = tmp_path_factory.mktemp("replica")
    connection = connect_writer(replica / DATABASE_NAME)
    migrate(connection)
    transaction = Transaction(connection.cursor())
    for group in owned.journal.groups:
        transaction.begin(group.applied_at_ms)
        for command, applied in group.entries:
            if applied:
                apply_command(transaction, command)
    connection.close()
    assert dump(replica) == dump(owned.directory)


async def test_below_the_reserve_only_what_grows_is_refused(tmp_path: Path) -> None:
    """Deletes work on a disk that is nearly full."""
    first = await open_owned_metadata(tmp_path)
    worker = await Worker.start(first)
    await worker.put(b"k")
    upload = await worker.create_upload(b"m")
    part = await worker.put_part(upload, 1)
    await first.close()
    owner = await MetadataOwner.open(tmp_path, reserve_bytes=2**62)
    full = Worker(
        SqliteMetadata(tmp_path / DATABASE_NAME, LocalSink(owner.committer)), worker.session_id, worker.bucket
    )
    for refused in (full.put(b"k"), full.create_upload(b"x"), full.put_part(upload, 2)):
        with pytest.raises(Unavailable, match="below its reserve"):
            await refused
    await full.complete(upload, [part])
    await full.delete(b"m")
    await full.delete(b"k")
    await full.metadata.close()
    await owner.close()


async def test_time_goes_on_where_it_was_when_the_clock_was_set_back(tmp_path: Path) -> None:
    """Not only while an owner lives: the next one begins where the last renewal was recorded."""
    clock = ManualClock()
    before = await open_owned_metadata(tmp_path, clock=clock)
    await before.apply(OpenSession(b"a" * 8, "one"))
    recorded_ms = clock.now_ms()
    await before.close()
    clock.set_wall(-7200)
    after = await open_owned_metadata(tmp_path, clock=clock)
    await after.apply(OpenSession(b"b" * 8, "two"))
    assert {session.renewed_ms for session in await after.list_sessions()} == {recorded_ms}
    await after.close()
