"""The builder of large buckets: what it says it makes is there."""

from __future__ import annotations

from pathlib import Path

from storage.metadata.sqlite.open import open_owned_metadata
from tests.bench.keys import KeyWriter, Shape, key_name


async def test_a_bucket_has_its_shape(tmp_path: Path) -> None:
    """Current keys are listed; markers and older versions are among the versions only."""
    metadata = await open_owned_metadata(tmp_path)
    try:
        writer = KeyWriter(metadata, "0f" * 32, "bk-1")
        await writer.open()
        await writer.make("plain", Shape(200))
        await writer.make("deep", Shape(10, markers=30, noncurrent=20))
        plain, deep = [(await metadata.find_bucket(name)).bucket_id for name in ("plain", "deep")]
        listed = await metadata.list_heads(plain)
        assert [entry.object_key for entry in listed.entries] == sorted(key_name(it, 200) for it in range(200))
        tops = await metadata.list_heads(plain, delimiter=b"/")
        assert list(tops.common_prefixes) == [b"%d/" % top for top in range(10)]
        for top in (b"0/", b"9/"):
            assert len((await metadata.list_heads(plain, prefix=top, delimiter=b"/")).common_prefixes) == 2
        assert len((await metadata.list_heads(deep)).entries) == 10
        versions = (await metadata.list_versions(deep)).entries
        assert sum(version.is_marker for version in versions) == 30
        assert sum(not version.is_marker and not version.is_latest for version in versions) == 20
    finally:
        await metadata.close()
