"""A database on another machine is reached over TLS or not at all."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import FrostbyteError, Unavailable
from storage.metadata.postgresql.open import open_postgres_metadata
from storage.metadata.postgresql.transport import is_protected


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql:///frostbyte",
        "postgresql://u:p@localhost/x",
        "postgresql://u@127.0.0.1:5433,[::1]:5432/x",
        "postgresql://u@/x?host=%2Frun%2Fpostgresql",
        "postgresql://u@%2Frun%2Fpostgresql/x",
        "postgresql://u@db1:5432,db2:5432/x?sslmode=verify-full",
        "postgresql://u@10.0.0.1/x?target_session_attrs=any&sslmode=require",
    ],
)
def test_tls_or_this_machine_is_protected(dsn: str) -> None:
    """Every host that the DSN names."""
    assert is_protected(dsn, {})


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u@db/x",
        "postgresql://u:p%40ss@10.0.0.1:5432/x?sslmode=prefer",
        "postgresql://u@localhost,db2/x",
        "postgresql://u@[2001:db8::1]/x?sslmode=disable",
        "postgresql://u@/x?host=db",
        "postgresql://u@localhost/x?host=db&port=5432",
    ],
)
async def test_another_machine_in_the_clear_is_refused(dsn: str) -> None:
    """One host is enough; `prefer` does not protect."""
    assert not is_protected(dsn, {})
    with pytest.raises(FrostbyteError, match="in the clear") as refused:
        await open_postgres_metadata(dsn)
    assert not isinstance(refused.value, Unavailable)


def test_the_environment_counts_where_the_dsn_says_nothing() -> None:
    """As PostgreSQL's own clients have it."""
    assert not is_protected("postgresql:///x", {"PGHOST": "db"})
    assert is_protected("postgresql:///x", {"PGHOST": "db", "PGSSLMODE": "verify-full"})
    assert is_protected("postgresql://localhost/x", {"PGHOST": "db"})


@given(st.text(max_size=60))
def test_any_text_is_judged_or_refused(text: str) -> None:
    """ValueError is the only error there is."""
    with suppress(ValueError):
        assert is_protected(f"postgresql://{text}", {}) in (True, False)
