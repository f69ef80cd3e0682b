"""The conditions of commits and deletes, which are decided inside them: nothing comes in between."""

from __future__ import annotations

import pytest

from storage.base.errors import NoSuchKey, PreconditionFailed
from storage.metadata.commands import Conditions, Deleted, DeleteTarget, DeleteVersions
from storage.model import Versioning
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine

ABSENT = Conditions(if_none_match="*")
PRESENT = Conditions(if_match="*")


async def test_if_none_match_star_lets_one_writer_through(worker: Worker) -> None:
    """The second is refused and changes nothing; after a delete it passes again."""
    await worker.put(b"k", "one", conditions=ABSENT)
    with pytest.raises(PreconditionFailed) as refused:
        await worker.put(b"k", "two", conditions=ABSENT)
    assert refused.value.details == {"condition": "If-None-Match"}
    assert await worker.etag(b"k") == "one"
    await worker.delete(b"k")
    await worker.put(b"k", "two", conditions=ABSENT)


async def test_if_none_match_passes_over_a_current_marker(versioned: Worker) -> None:
    """A deleted key is absent."""
    await versioned.put(b"k", "one")
    await versioned.delete(b"k")
    await versioned.put(b"k", "two", conditions=ABSENT)
    assert await versioned.etag(b"k") == "two"


async def test_etag_conditions_compare_with_the_current_version(worker: Worker) -> None:
    """If-Match needs equality, If-None-Match refuses it."""
    await worker.put(b"k", "one")
    with pytest.raises(PreconditionFailed) as refused:
        await worker.put(b"k", "two", conditions=Conditions(if_match="other"))
    assert refused.value.details == {"condition": "If-Match"}
    with pytest.raises(PreconditionFailed):
        await worker.put(b"k", "two", conditions=Conditions(if_none_match="one"))
    await worker.put(b"k", "two", conditions=Conditions(if_match="one", if_none_match="other"))
    await worker.put(b"k", "three", conditions=PRESENT)
    assert await worker.etag(b"k") == "three"


@pytest.mark.parametrize("condition", [PRESENT, Conditions(if_match="one")])
async def test_if_match_on_nothing_is_no_such_key(versioned: Worker, condition: Conditions) -> None:
    """A missing key and a current marker are both 404."""
    with pytest.raises(NoSuchKey):
        await versioned.put(b"k", conditions=condition)
    await versioned.put(b"k", "one")
    await versioned.delete(b"k")
    with pytest.raises(NoSuchKey):
        await versioned.put(b"k", conditions=condition)


async def test_a_conditional_delete_is_an_outcome_of_its_own_target(worker: Worker) -> None:
    """Its neighbours in the same command are deleted."""
    for object_key in (b"a", b"b", b"c"):
        await worker.put(object_key, "one")
    outcomes = await worker.apply(
        DeleteVersions(
            worker.bucket.bucket_id,
            (
                DeleteTarget(b"a"),
                DeleteTarget(b"b", None, Conditions(if_match="two")),
                DeleteTarget(b"none", None, PRESENT),
                DeleteTarget(b"c", None, Conditions(if_match="one")),
            ),
        )
    )
    assert outcomes == [Deleted(), Deleted(refusal="PreconditionFailed"), Deleted(), Deleted()]
    page = await worker.metadata.list_heads(worker.bucket.bucket_id)
    assert [entry.object_key for entry in page.entries] == [b"b"]


CONDITIONS_OF_A_DELETE = (
    # conditions, whether a version of 10 bytes and etag `one` meets them, whether a marker does
    (Conditions(if_match="*"), True, True),
    (Conditions(if_match="one"), True, False),
    (Conditions(if_match="two"), False, False),
    (Conditions(if_match=""), False, False),
    (Conditions(if_none_match="*"), False, True),
    (Conditions(if_none_match="one"), False, True),
    (Conditions(if_none_match="two"), True, True),
    (Conditions(size=10), True, False),
    (Conditions(size=0), False, True),
    (Conditions(size=2**63 - 1), False, False),
    (Conditions(last_modified_s=1_700_000_000), True, True),
    (Conditions(last_modified_s=1_699_999_999), False, False),
    (Conditions(last_modified_s=0), False, False),
    (Conditions("one", None, 10, 1_700_000_000), True, False),
    (Conditions("one", None, 11, 1_700_000_000), False, False),
)


@pytest.mark.parametrize(("conditions", "meets", "marker_meets"), CONDITIONS_OF_A_DELETE)
async def test_conditions_of_a_delete_are_of_what_it_would_remove(
    engine: Engine, worker: Worker, conditions: Conditions, meets: bool, marker_meets: bool
) -> None:
    """The current version, the version named, the marker that is current or named; whole seconds."""
    engine.clock.advance(0.9)
    refused = Deleted(refusal="PreconditionFailed")
    await worker.put(b"k", "one", 10)
    assert await worker.delete(b"k", None, conditions) == (Deleted() if meets else refused)
    versioned = await worker.in_bucket("versioned", Versioning.ENABLED)
    put = await versioned.put(b"k", "one", 10)
    outcome = await versioned.delete(b"k", None, conditions)
    assert outcome.is_marker == meets
    assert outcome.refusal == ("" if meets else "PreconditionFailed")
    marker = outcome if meets else await versioned.delete(b"k")
    outcome = await versioned.delete(b"k", None, conditions)
    assert outcome.refusal == ("" if marker_meets else "PreconditionFailed")
    outcome = await versioned.delete(b"k", marker.version_id, conditions)
    assert outcome.refusal == ("" if marker_meets else "PreconditionFailed")
    outcome = await versioned.delete(b"k", put.version_id, conditions)
    assert outcome == Deleted(put.version_id, refusal="" if meets else "PreconditionFailed")


async def test_conditions_are_not_asked_where_there_is_nothing(versioned: Worker) -> None:
    """The outcome is that of a deletion, and no marker is made."""
    never = Conditions("no such etag", None, 99, 1)
    put = await versioned.put(b"k")
    await versioned.delete(b"k", put.version_id)
    assert await versioned.delete(b"k", None, never) == Deleted()
    assert await versioned.delete(b"k", put.version_id, never) == Deleted(put.version_id)
    assert await versioned.delete(b"k", "null", PRESENT) == Deleted("null")
    assert (await versioned.metadata.list_versions(versioned.bucket.bucket_id)).entries == ()


@pytest.mark.parametrize("kind", ["version", "null version", "marker", "null marker"])
async def test_a_delete_of_what_is_noncurrent_leaves_the_newest(versioned: Worker, kind: str) -> None:
    """Decided by what is above it at that time, whatever it was before; what is older is deleted."""
    older = (await versioned.put(b"k", "older")).version_id
    if kind.startswith("null"):
        await versioned.set_versioning(Versioning.SUSPENDED)
    is_marker = kind.endswith("marker")
    version_id = (await (versioned.delete(b"k") if is_marker else versioned.put(b"k", "raced"))).version_id
    await versioned.set_versioning(Versioning.ENABLED)
    newer = (await versioned.put(b"k", "newer")).version_id
    listed = (await versioned.metadata.list_versions(versioned.bucket.bucket_id)).entries
    assert [entry.version_id for entry in listed] == [newer, version_id, older]

    await versioned.delete(b"k", newer)
    refused = await versioned.delete(b"k", version_id, noncurrent_only=True)
    assert refused == Deleted(version_id, refusal="PreconditionFailed")
    listed = (await versioned.metadata.list_versions(versioned.bucket.bucket_id)).entries
    assert [(entry.version_id, entry.is_latest) for entry in listed] == [(version_id, True), (older, False)]
    assert await versioned.delete(b"k", older, noncurrent_only=True) == Deleted(older)

    await versioned.put(b"k", "newest")
    other = Conditions(last_modified_s=0)
    refused = await versioned.delete(b"k", version_id, other, noncurrent_only=True)
    assert refused.refusal == "PreconditionFailed"
    removed = await versioned.delete(b"k", version_id, noncurrent_only=True)
    assert removed == Deleted(version_id, is_marker=is_marker)
    assert await versioned.delete(b"k", version_id, noncurrent_only=True) == Deleted(version_id)
    assert await versioned.etag(b"k") == "newest"


@pytest.mark.parametrize("versioning", list(Versioning))
async def test_the_current_version_is_never_noncurrent(worker: Worker, versioning: Versioning) -> None:
    """By key it is refused, without a marker; where there is nothing, it is that of a deletion."""
    bucket = await worker.in_bucket("any", versioning)
    assert await bucket.delete(b"k", noncurrent_only=True) == Deleted()
    await bucket.put(b"k", "one")
    assert (await bucket.delete(b"k", noncurrent_only=True)).refusal == "PreconditionFailed"
    listed = (await bucket.metadata.list_versions(bucket.bucket.bucket_id)).entries
    assert [(entry.etag, entry.is_latest) for entry in listed] == [("one", True)]


async def test_a_batch_sees_what_its_own_targets_made_current(versioned: Worker) -> None:
    """Those of one key in the order given: whatever is left last stays."""
    ids = [(await versioned.put(b"k", f"e{number}")).version_id for number in range(3)]
    targets = (DeleteTarget(b"k", ids[2]), *(DeleteTarget(b"k", ids[at], noncurrent_only=True) for at in (1, 0)))
    outcomes = await versioned.apply(DeleteVersions(versioned.bucket.bucket_id, targets))
    assert outcomes == [Deleted(ids[2]), Deleted(ids[1], refusal="PreconditionFailed"), Deleted(ids[0])]
    assert await versioned.etag(b"k") == "e1"
