"""Random commands against a plain-dict model: versions, listings, uploads, layouts, releases; checked at every step."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage.base.errors import NoSuchKey, NoSuchVersion, PreconditionFailed, Refused, SourceChanged
from storage.metadata.commands import (
    ChangeObject,
    ChunkLayout,
    Conditions,
    Deleted,
    ForgetBlobs,
    ObjectChanged,
    Relayout,
    SetReplicas,
    SetVersioning,
)
from storage.model import Extent, PartInfo, Upload, Versioning
from tests.storage.metadata.builders import PART_BYTES, Worker
from tests.storage.metadata.conformance.test_listing import expected_page, items
from tests.storage.metadata.conformance.test_version_listing import expected_items, listed_items
from tests.storage.metadata.engines import Engine, SqliteEngine
from tests.storage.metadata.postgresql.engine import PostgresEngine

KEYS = st.sampled_from([b"a", b"a/1", b"a/2", b"b/x/y", b"b/x/z", b"c", b"\xff/\xff"])
CONDITIONS = st.sampled_from([None, "absent", "present", "match", "mismatch"])


class Entry(NamedTuple):
    """A version or marker in the model; the newest of a key is last in its list."""

    version_id: str
    etag: str | None
    extents: tuple[Extent, ...] = ()


class MetadataMachine(RuleBasedStateMachine):
    """One engine and its model."""

    make_engine: Callable[[Path], Engine] = SqliteEngine

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.engine = type(self).make_engine(self.directory)
        self.entries: dict[bytes, list[Entry]] = {}
        self.uploads: dict[str, tuple[Upload, dict[int, PartInfo]]] = {}
        self.chunked_blobs: set[bytes] = set()
        self.generations: dict[bytes, int] = {}
        """of blobs that were laid out anew"""
        self.retired: set[tuple[bytes, int]] = set()
        """old layouts: blob and generation"""
        self.forgotten: set[bytes] = set()
        self.versioning = Versioning.UNVERSIONED
        self.tagged: dict[str, dict[str, str]] = {}
        self.count = 0

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    @initialize()
    def start(self) -> None:
        self.run(self.engine.start())
        metadata = self.run(self.engine.connect())
        self.worker = self.run(Worker.start(metadata))

    def teardown(self) -> None:
        if hasattr(self, "worker"):
            self.run(self.engine.stop())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.directory)

    # ------------------------------------------------------------------ the model

    def current(self, object_key: bytes) -> Entry | None:
        """None for a missing key and for a current marker."""
        stack = self.entries.get(object_key, [])
        return stack[-1] if stack and stack[-1].etag is not None else None

    def conditions(self, object_key: bytes, kind: str | None) -> tuple[Conditions, type[Refused] | None]:
        """The condition as sent, and how the model expects it to be refused."""
        current = self.current(object_key)
        if kind == "absent":
            return Conditions(if_none_match="*"), PreconditionFailed if current else None
        if kind == "present":
            return Conditions(if_match="*"), None if current else NoSuchKey
        if kind == "match" and current:
            return Conditions(if_match=current.etag), None
        if kind in ("match", "mismatch"):
            return Conditions(if_match="no such etag"), PreconditionFailed if current else NoSuchKey
        return Conditions(), None

    def push(self, object_key: bytes, entry: Entry) -> None:
        stack = self.entries.setdefault(object_key, [])
        if self.versioning != Versioning.ENABLED:
            stack[:] = [other for other in stack if other.version_id != "null"]
        stack.append(entry)

    def next_etag(self) -> str:
        self.count += 1
        return f"etag-{self.count}"

    # ------------------------------------------------------------------ the rules

    @rule(object_key=KEYS, inline=st.booleans(), condition=CONDITIONS)
    def put(self, object_key: bytes, inline: bool, condition: str | None) -> None:
        conditions, refused = self.conditions(object_key, condition)
        etag = self.next_etag()
        blob = self.worker.inline(10) if inline else self.worker.chunked(30, 10)
        if refused is not None:
            with pytest.raises(refused):
                self.run(self.worker.put(object_key, etag, blob=blob, conditions=conditions))
            return
        committed = self.run(self.worker.put(object_key, etag, blob=blob, conditions=conditions))
        assert (committed.version_id is None) == (self.versioning == Versioning.UNVERSIONED)
        if not inline:
            self.chunked_blobs.add(blob.blob_id)
        extent = Extent(blob.blob_id, 0, blob.size)
        self.push(object_key, Entry(committed.version_id or "null", etag, (extent,)))

    @rule(source=KEYS, object_key=KEYS)
    def copy(self, source: bytes, object_key: bytes) -> None:
        entry = self.current(source)
        etag = self.next_etag()
        if entry is None:
            return
        committed = self.run(self.worker.share(entry.extents, object_key, etag))
        plain = tuple(Extent(extent.blob_id, extent.offset, extent.length) for extent in entry.extents)
        self.push(object_key, Entry(committed.version_id or "null", etag, plain))

    @precondition(lambda self: self.chunked_blobs - self.forgotten - self.referenced())
    @rule(object_key=KEYS)
    def copy_of_a_released_blob(self, object_key: bytes) -> None:
        blob_id = min(self.chunked_blobs - self.forgotten - self.referenced())
        with pytest.raises(SourceChanged):
            self.run(self.worker.share([Extent(blob_id, 0, 30)], object_key))

    @rule(object_key=KEYS)
    def delete(self, object_key: bytes) -> None:
        outcome = self.run(self.worker.delete(object_key))
        if self.versioning == Versioning.UNVERSIONED:
            assert outcome == Deleted()
            self.entries.pop(object_key, None)
        else:
            assert outcome.is_marker
            assert (outcome.version_id == "null") == (self.versioning == Versioning.SUSPENDED)
            self.push(object_key, Entry(outcome.version_id or "", None))

    @rule(object_key=KEYS, at=st.integers(0, 5))
    def delete_version(self, object_key: bytes, at: int) -> None:
        stack = self.entries.get(object_key, [])
        if not stack:
            return
        entry = stack.pop(at % len(stack))
        outcome = self.run(self.worker.delete(object_key, entry.version_id))
        assert outcome == Deleted(entry.version_id, is_marker=entry.etag is None)
        if not stack:
            del self.entries[object_key]

    @rule(versioning=st.sampled_from([Versioning.ENABLED, Versioning.SUSPENDED]))
    def set_versioning(self, versioning: Versioning) -> None:
        self.run(self.worker.apply(SetVersioning(self.worker.bucket.bucket_id, versioning)))
        self.versioning = versioning

    @rule(object_key=KEYS)
    def create_upload(self, object_key: bytes) -> None:
        upload = self.run(self.worker.create_upload(object_key))
        self.uploads[upload.upload_id] = (upload, {})

    @precondition(lambda self: self.uploads)
    @rule(at=st.integers(0, 9), part_number=st.integers(1, 3), size=st.sampled_from([PART_BYTES, PART_BYTES, 3, 0]))
    def put_part(self, at: int, part_number: int, size: int) -> None:
        upload, parts = self.pick_upload(at)
        part = self.run(self.worker.put_part(upload, part_number, size, self.next_etag()))
        parts[part_number] = part
        if size:
            self.chunked_blobs.add(part.blob_id)

    @precondition(lambda self: self.uploads)
    @rule(at=st.integers(0, 9), left_out=st.integers(0, 4), condition=CONDITIONS)
    def complete_upload(self, at: int, left_out: int, condition: str | None) -> None:
        upload, stored = self.pick_upload(at)
        parts = [stored[number] for number in sorted(stored) if number != left_out]
        conditions, refused = self.conditions(upload.object_key, condition)
        etag = self.next_etag()
        if not parts or any(part.size < PART_BYTES for part in parts[:-1]) or refused is not None:
            with pytest.raises(Refused):
                self.run(self.worker.complete(upload, parts, etag, conditions))
            return
        committed = self.run(self.worker.complete(upload, parts, etag, conditions))
        assert self.run(self.worker.complete(upload, parts, "retried")) == committed
        offset, extents = 0, []
        for part in parts:
            if part.size:
                extents.append(Extent(part.blob_id, offset, part.size, part.part_number))
            offset += part.size
        self.push(upload.object_key, Entry(committed.version_id or "null", etag, tuple(extents)))
        del self.uploads[upload.upload_id]

    @precondition(lambda self: self.uploads)
    @rule(at=st.integers(0, 9))
    def abort_upload(self, at: int) -> None:
        upload, _ = self.pick_upload(at)
        self.run(self.worker.abort(upload))
        del self.uploads[upload.upload_id]

    def pick_upload(self, at: int) -> tuple[Upload, dict[int, PartInfo]]:
        return list(self.uploads.values())[at % len(self.uploads)]

    @rule()
    def forget(self) -> None:
        """Asks to forget everything; only what is released goes."""
        blob_ids = tuple(sorted(self.chunked_blobs))
        generations = tuple(self.generations.get(blob_id, 0) for blob_id in blob_ids)
        self.run(self.worker.apply(ForgetBlobs(blob_ids, generations)))
        self.forgotten |= self.chunked_blobs - self.referenced()

    @precondition(lambda self: self.retired)
    @rule(at=st.integers(0, 9))
    def forget_layout(self, at: int) -> None:
        """Whatever became of its blob."""
        blob_id, generation = sorted(self.retired)[at % len(self.retired)]
        self.run(self.worker.apply(ForgetBlobs((blob_id,), (generation,))))
        self.retired.remove((blob_id, generation))

    @precondition(lambda self: self.chunked_blobs)
    @rule(at=st.integers(0, 30), step=st.integers(-1, 3))
    def lay_out(self, at: int, step: int) -> None:
        """A blob that is referenced becomes of a later generation; one that is not stays. Step 0: the next generation;
        -1: by who looked too early."""
        blob_id = sorted(self.chunked_blobs)[at % len(self.chunked_blobs)]
        generation = self.generations.get(blob_id, 0)
        count = len(self.run(self.worker.metadata.read_chunks(blob_id, 0)))
        chunks = tuple(ChunkLayout(index, b"d" * 24, (4, generation, 6)) for index in range(count))
        if step < 0:
            early = Relayout(blob_id, generation + 1, "ec:2+1", chunks)
            assert self.run(self.worker.apply(early)) is False
            return
        chosen = generation + step if step else 0
        is_laid_out = self.run(self.worker.apply(Relayout(blob_id, generation, "ec:2+1", chunks, 0, chosen)))
        assert is_laid_out == (blob_id in self.referenced())
        if is_laid_out:
            self.retired.add((blob_id, generation))
            self.generations[blob_id] = chosen or generation + 1

    @precondition(lambda self: self.generations)
    @rule(at=st.integers(0, 9), is_late=st.booleans())
    def move_a_fragment(self, at: int, is_late: bool) -> None:
        """There and back, of the layout that there is."""
        blob_id = sorted(self.generations)[at % len(self.generations)]
        generation = self.generations[blob_id]
        chunks = self.run(self.worker.metadata.read_chunks(blob_id, 0, 1))
        before = chunks[0].nodes if chunks else (4, 0, 6)
        move = SetReplicas(blob_id, 0, before, (4, 5, 7), generation - is_late)
        assert self.run(self.worker.apply(move)) is (bool(chunks) and not is_late)
        back = SetReplicas(blob_id, 0, (4, 5, 7), before, generation)
        assert self.run(self.worker.apply(back)) is (bool(chunks) and not is_late)

    @rule(
        prefix=st.sampled_from([b"", b"a", b"a/", b"b/x"]),
        delimiter=st.sampled_from([b"", b"/"]),
        after=st.one_of(st.just(b""), KEYS),
        limit=st.integers(1, 4),
    )
    def list_heads(self, prefix: bytes, delimiter: bytes, after: bytes, limit: int) -> None:
        live = [object_key for object_key in self.entries if self.current(object_key)]
        page = self.run(
            self.worker.metadata.list_heads(
                self.worker.bucket.bucket_id, prefix=prefix, after=after, delimiter=delimiter, limit=limit
            )
        )
        assert items(page) == expected_page(live, prefix, after, delimiter, limit)
        assert all(entry.etag == self.entries[entry.object_key][-1].etag for entry in page.entries)

    @rule(
        prefix=st.sampled_from([b"", b"a", b"b/x"]),
        delimiter=st.sampled_from([b"", b"/"]),
        at=st.integers(0, 20),
        limit=st.integers(1, 5),
    )
    def list_versions(self, prefix: bytes, delimiter: bytes, at: int, limit: int) -> None:
        stacks = {key: [entry.version_id for entry in reversed(stack)] for key, stack in self.entries.items()}
        starts = [(b"", ""), *((key, version_id) for key in sorted(stacks) for version_id in stacks[key])]
        after = starts[at % len(starts)]
        page = self.run(
            self.worker.metadata.list_versions(
                self.worker.bucket.bucket_id, prefix=prefix, delimiter=delimiter, after=after, limit=limit
            )
        )
        assert listed_items(page) == list(expected_items(stacks, prefix, delimiter, after))[:limit]

    @rule(object_key=KEYS, at=st.integers(0, 5), is_held=st.booleans())
    def hold(self, object_key: bytes, at: int, is_held: bool) -> None:
        """And let go of it, so that the other rules may delete; tags stay until their version goes."""
        stack = self.entries.get(object_key, [])
        if not stack:
            return
        entry = stack[at % len(stack)]
        tags = {"etag": entry.etag or ""}
        change = ChangeObject(self.worker.bucket.bucket_id, object_key, entry.version_id, tags, legal_hold=is_held)
        if entry.etag is None:
            with pytest.raises(NoSuchVersion):
                self.run(self.worker.apply(change))
            return
        assert self.run(self.worker.apply(change)) == ObjectChanged(entry.version_id)
        if is_held:
            outcome = self.run(self.worker.delete(object_key, entry.version_id))
            assert outcome == Deleted(entry.version_id, refusal="ObjectLocked")
            self.run(self.worker.apply(msgspec.structs.replace(change, legal_hold=False)))
        self.tagged[entry.etag] = tags

    # ------------------------------------------------------------------ what always holds

    def referenced(self) -> set[bytes]:
        found = {extent.blob_id for stack in self.entries.values() for entry in stack for extent in entry.extents}
        return found | {part.blob_id for _, parts in self.uploads.values() for part in parts.values() if part.size}

    @invariant()
    def the_store_is_whole(self) -> None:
        if hasattr(self, "worker"):
            assert self.run(self.engine.check()) == []

    @invariant()
    def every_version_reads_as_the_model_says(self) -> None:
        if not hasattr(self, "worker"):
            return
        for object_key, stack in self.entries.items():
            for entry in stack:
                read = self.run(
                    self.worker.metadata.read_version(self.worker.bucket.bucket_id, object_key, entry.version_id)
                )
                assert (read.version.is_marker, read.extents) == (entry.etag is None, entry.extents)
                assert (read.version.etag, read.is_current) == (entry.etag or "", entry is stack[-1])
                assert read.version.attributes.tags == self.tagged.get(entry.etag or "", {})
                generations = [self.generations.get(blob.blob_id, 0) for blob in read.blobs]
                assert [blob.generation for blob in read.blobs] == generations
                assert [blob.redundancy == "ec:2+1" for blob in read.blobs] == list(map(bool, generations))

    @invariant()
    def what_is_released_is_what_nothing_references(self) -> None:
        """And every old layout that was not forgotten."""
        if not hasattr(self, "worker"):
            return
        released = self.run(self.worker.metadata.list_released_blobs(2**62, 10_000))
        unreferenced = self.chunked_blobs - self.referenced() - self.forgotten
        assert {(blob.blob_id, blob.generation) for blob in released} == self.retired | {
            (blob_id, self.generations.get(blob_id, 0)) for blob_id in unreferenced
        }
        places = self.run(self.worker.metadata.list_chunk_places(None, 10_000))
        assert {place.blob_id for place in places} == self.chunked_blobs - self.forgotten
        assert {place.blob_id for place in places if place.is_released} == unreferenced


class PostgresMachine(MetadataMachine):
    """The same commands and the same model."""

    make_engine = PostgresEngine


SETTINGS = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
MetadataMachine.TestCase.settings = SETTINGS
PostgresMachine.TestCase.settings = SETTINGS
TestMetadataModel = MetadataMachine.TestCase
TestPostgresModel = PostgresMachine.TestCase
