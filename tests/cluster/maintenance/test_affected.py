"""Names of what cannot be read: versions, parts of open uploads, keys that are no text; bounded, lost ones first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.maintenance import affected
from cluster.maintenance.affected import name_affected
from cluster.maintenance.survey import Health
from cluster.maintenance.survey_status import AffectedObject
from tests.cluster.maintenance.scene import Scene, open_scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Two nodes."""
    async with open_scene(tmp_path, 2) as opened:
        yield opened


async def test_objects_and_parts_by_name(scene: Scene) -> None:
    """Where each blob is used; what nothing uses any more is not told."""
    (lost,) = await scene.put(b"lost \xff", "replica:2", [1, 2])
    (silent,) = await scene.put(b"a/silent", "replica:2", [1, 2])
    (deleted,) = await scene.put(b"deleted", "replica:2", [1, 2])
    await scene.worker.delete(b"deleted")
    upload = await scene.worker.create_upload(b"parts")
    part = await scene.worker.put_part(upload, 1)
    named = await name_affected(
        scene.metadata,
        {
            silent.blob_id: Health.UNAVAILABLE,
            deleted.blob_id: Health.LOST,
            lost.blob_id: Health.LOST,
            part.blob_id: Health.LOST,
        },
    )
    assert named == (
        AffectedObject("lost", "bucket", "lost \\xff", "null"),
        AffectedObject("lost", "bucket", "parts", "", upload.upload_id),
        AffectedObject("unavailable", "bucket", "a/silent", "null"),
    )


async def test_no_more_names_than_fit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are lost come first."""
    monkeypatch.setattr(affected, "AFFECTED_NAMES_MAX", 3)
    monkeypatch.setattr(affected, "BLOBS_AT_ONCE", 2)
    blobs = {}
    for number in range(6):
        (place,) = await scene.put(b"key-%d" % number, "replica:2", [1, 2])
        blobs[place.blob_id] = Health.LOST if number >= 4 else Health.UNAVAILABLE
    named = await name_affected(scene.metadata, blobs)
    assert [it.state for it in named] == ["lost", "lost", "unavailable"]
    assert {it.object_key for it in named[:2]} == {"key-4", "key-5"}
