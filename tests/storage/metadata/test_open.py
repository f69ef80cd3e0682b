"""The setting that chooses an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from storage.base.errors import FrostbyteError, Unavailable
from storage.metadata.open import open_metadata
from storage.metadata.postgresql.engine import PostgresMetadata
from storage.metadata.settings import MetadataSettings, check_metadata_settings
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
        await open_metadata(
            MetadataSettings(engine="postgresql", dsn=f"postgresql://u@/x?host={tmp_path}"), deadline_s=0
        )


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:hun/ter2@h/x", "postgresql://u:s@h:hunter2/x", "postgresql://u:hun@[x"]
)
async def test_a_dsn_that_makes_no_sense_is_not_shown(dsn: str) -> None:
    """Not a piece of it, since that may be of the password."""
    with pytest.raises(FrostbyteError, match="special characters in %XX") as refused:
        await open_metadata(MetadataSettings(engine="postgresql", dsn=dsn))
    assert "hun" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_without_the_extra_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """That says what to install."""
    monkeypatch.setattr("storage.metadata.settings.HAS_POSTGRESQL", False)
    problem = check_metadata_settings(MetadataSettings(engine="postgresql", dsn=SECRET))
    assert "pip install 'frostbyte[postgres]'" in problem
    assert "hunter2" not in problem


async def test_sqlite_alone_loads_no_postgresql() -> None:
    """Every process on one machine would pay for it."""
    code = "import sys, storage.metadata.open; sys.exit('asyncpg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
