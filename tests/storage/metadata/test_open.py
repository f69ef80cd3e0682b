"""The setting that chooses an engine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from storage.base.errors import FrostbyteError, Unavailable
from storage.metadata.open import MetadataSettings, check_metadata_settings, open_metadata
from storage.metadata.postgresql.engine import PostgresMetadata
from storage.metadata.sqlite.reader import SqliteMetadata
from tests.storage.metadata.engines import Engine

SECRET = "postgresql://u:hunter2@db/frostbyte"


@pytest.mark.parametrize(
    "document",
    [
        "{}",
        '{"path": "p"}',
        '{"path": "p", "socket": "s", "dsn": "d"}',
        '{"engine": "postgresql"}',
        '{"engine": "postgresql", "dsn": "d", "path": "p"}',
        '{"engine": "oracle", "dsn": "d"}',
    ],
)
async def test_settings_that_fit_no_engine_are_refused(document: str) -> None:
    """In one line."""
    settings = msgspec.json.decode(document, type=MetadataSettings)
    assert check_metadata_settings(settings)
    with pytest.raises(FrostbyteError, match="metadata: "):
        await open_metadata(settings)


def test_what_there_was_before_still_means_sqlite() -> None:
    """A configuration without `engine`."""
    settings = msgspec.json.decode('{"path": "p", "socket": "s"}', type=MetadataSettings)
    assert (settings.engine, check_metadata_settings(settings)) == ("sqlite", "")


def test_a_password_is_not_shown() -> None:
    """In a log or a traceback."""
    settings = MetadataSettings(engine="postgresql", dsn=SECRET)
    assert "hunter2" not in repr(settings)
    assert check_metadata_settings(settings) == ""


async def test_either_engine_opens_by_its_settings(engine: Engine) -> None:
    """And is the one that was asked for."""
    (document,) = engine.client_arguments()
    settings = msgspec.json.decode(document, type=MetadataSettings)
    metadata = await open_metadata(settings)
    assert isinstance(metadata, PostgresMetadata if settings.engine == "postgresql" else SqliteMetadata)
    assert await metadata.configuration_sequence() == 1
    await metadata.close()


async def test_an_engine_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    """Within the deadline."""
    with pytest.raises(Unavailable):
        await open_metadata(MetadataSettings(path=str(tmp_path), socket=str(tmp_path / "s")), deadline_s=0.05)
    with pytest.raises(Unavailable):
        settings = MetadataSettings(engine="postgresql", dsn=f"postgresql://u@/x?host={tmp_path}")
        await open_metadata(settings, deadline_s=0.05)
