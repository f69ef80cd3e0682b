"""Object lock: documents and headers, what they mean and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.object_lock import (
    HOLD_HEADER,
    MODE_HEADER,
    NO_LOCK,
    UNTIL_HEADER,
    DefaultRetention,
    apply_default,
    format_legal_hold,
    format_lock_configuration,
    format_lock_headers,
    format_retention,
    parse_legal_hold,
    parse_lock,
    parse_lock_configuration,
    parse_lock_enabled,
    parse_retention,
)
from storage.metadata.commands import OBJECT_LOCK_SETTING, Retention
from storage.model import LockMode, ObjectLock

NOW_MS = 1_800_000_000_000
YEAR_9999_MS = 253_402_300_799_999
ENABLED = {OBJECT_LOCK_SETTING: format_lock_configuration(None)}
LATER = "2040-01-01T00:00:00Z"

modes = st.sampled_from([LockMode.GOVERNANCE, LockMode.COMPLIANCE])
times_ms = st.integers(NOW_MS + 1, YEAR_9999_MS)
periods = st.tuples(st.integers(1, 36_500), st.just(0)) | st.tuples(st.just(0), st.integers(1, 100))
defaults = st.builds(lambda mode, period: DefaultRetention(mode, *period), modes, periods)


def code_of(call: object, *arguments: object) -> str:
    """The code that a call is refused with."""
    assert callable(call)
    with pytest.raises(S3Error) as caught:
        call(*arguments)
    return caught.value.code


def configuration(rule: str, enabled: str = "Enabled") -> bytes:
    """An ObjectLockConfiguration around the DefaultRetention's inner text."""
    return (
        f"<ObjectLockConfiguration><ObjectLockEnabled>{enabled}</ObjectLockEnabled><Rule><DefaultRetention>{rule}"
        "</DefaultRetention></Rule></ObjectLockConfiguration>"
    ).encode()


@given(defaults | st.none())
def test_configurations_come_back(default: DefaultRetention | None) -> None:
    """What is stored says the same again."""
    assert parse_lock_configuration(format_lock_configuration(default)) == default


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (configuration("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>"), "MalformedXML"),
        (configuration("<Mode>GOVERNANCE</Mode>"), "MalformedXML"),
        (configuration("<Days>1</Days>"), "MalformedXML"),
        (configuration("<Mode>governance</Mode><Days>1</Days>"), "MalformedXML"),
        (configuration("<Mode>GOVERNANCE</Mode><Days>one</Days>"), "MalformedXML"),
        (configuration("<Mode>GOVERNANCE</Mode><Days></Days>"), "MalformedXML"),
        (configuration("<Mode>GOVERNANCE</Mode><Days>1</Days><Days>2</Days>"), "MalformedXML"),
        (configuration("<Mode>GOVERNANCE</Mode><Days>1</Days>", enabled="Disabled"), "MalformedXML"),
        (b"<ObjectLockConfiguration/>", "MalformedXML"),
        (configuration("").replace(b"<DefaultRetention></DefaultRetention>", b""), "MalformedXML"),
        (b"", "MalformedXML"),
        (configuration("<Mode>GOVERNANCE</Mode><Days>0</Days>"), "InvalidRetentionPeriod"),
        (configuration("<Mode>COMPLIANCE</Mode><Years>-1</Years>"), "InvalidRetentionPeriod"),
        (configuration("<Mode>COMPLIANCE</Mode><Days>36501</Days>"), "InvalidArgument"),
        (configuration("<Mode>COMPLIANCE</Mode><Years>101</Years>"), "InvalidArgument"),
        (configuration(f"<Mode>COMPLIANCE</Mode><Years>{'9' * 10_000}</Years>"), "InvalidArgument"),
    ],
)
def test_configurations_that_are_refused(document: bytes, code: str) -> None:
    """With AWS's codes; an endless number is no burden."""
    assert code_of(parse_lock_configuration, document) == code


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_order(raw: bytes) -> None:
    """Nothing but S3's own errors."""
    for parse in (parse_lock_configuration, parse_legal_hold, lambda text: parse_retention(text, NOW_MS)):
        with pytest.raises(S3Error, match="MalformedXML"):
            parse(raw)


@pytest.mark.parametrize(("text", "enabled"), [("true", True), ("True", True), ("false", False), ("", False)])
def test_enabling_at_creation(text: str, enabled: bool) -> None:
    """The header of CreateBucket."""
    assert parse_lock_enabled({"x-amz-bucket-object-lock-enabled": text}) is enabled


def test_enabling_at_creation_by_something_else() -> None:
    """InvalidArgument: a bucket without the lock that somebody asked for would be a trap."""
    assert code_of(parse_lock_enabled, {"x-amz-bucket-object-lock-enabled": "yes"}) == "InvalidArgument"


@pytest.mark.parametrize(
    ("made", "default", "ends"),
    [
        (datetime(2027, 5, 1, 12, tzinfo=UTC), DefaultRetention(LockMode.GOVERNANCE, days=1), (2027, 5, 2, 12)),
        (datetime(2027, 5, 1, 12, tzinfo=UTC), DefaultRetention(LockMode.GOVERNANCE, years=1), (2028, 5, 1, 12)),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), DefaultRetention(LockMode.GOVERNANCE, years=1), (2029, 3, 1, 12)),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), DefaultRetention(LockMode.GOVERNANCE, years=4), (2032, 2, 29, 12)),
    ],
)
def test_how_long_a_default_lasts(made: datetime, default: DefaultRetention, ends: tuple[int, ...]) -> None:
    """Days of 24 hours, years of the calendar."""
    until_ms = default.retain_until_ms(round(made.timestamp() * 1000))
    assert datetime.fromtimestamp(until_ms / 1000, UTC) == datetime(*ends, tzinfo=UTC)  # type: ignore[arg-type]


@given(modes, times_ms, st.booleans())
def test_headers_come_back(mode: LockMode, until_ms: int, hold: bool) -> None:
    """What a GET shows of a lock sets the same lock, to the millisecond."""
    lock = ObjectLock(mode, until_ms, hold)
    headers = {name.decode(): text.decode() for name, text in format_lock_headers(lock)}
    assert parse_lock(headers, ENABLED, NOW_MS) == lock


def test_a_version_without_a_lock_shows_none() -> None:
    """No header, and none asks for none."""
    assert format_lock_headers(NO_LOCK) == []
    assert parse_lock({}, {}, NOW_MS) == NO_LOCK
    assert parse_lock({MODE_HEADER: "", HOLD_HEADER: ""}, {}, NOW_MS) == NO_LOCK


@pytest.mark.parametrize(
    "headers",
    [
        {MODE_HEADER: "GOVERNANCE"},
        {UNTIL_HEADER: LATER},
        {MODE_HEADER: "governance", UNTIL_HEADER: LATER},
        {MODE_HEADER: "GOVERNANCE", UNTIL_HEADER: "tomorrow"},
        {MODE_HEADER: "GOVERNANCE", UNTIL_HEADER: "2020-01-01T00:00:00Z"},
        {MODE_HEADER: "GOVERNANCE", UNTIL_HEADER: "9999-12-31T23:59:59-14:00"},
        {HOLD_HEADER: "on"},
        {HOLD_HEADER: "x" * 5000},
    ],
)
def test_headers_that_are_refused(headers: dict[str, str]) -> None:
    """Half a retention, a mode or date that is none, a date that is past."""
    assert code_of(parse_lock, headers, ENABLED, NOW_MS) == "InvalidArgument"


@pytest.mark.parametrize("headers", [{MODE_HEADER: "GOVERNANCE", UNTIL_HEADER: LATER}, {HOLD_HEADER: "OFF"}])
def test_a_bucket_without_object_lock(headers: dict[str, str]) -> None:
    """InvalidRequest: the lock would not hold."""
    assert code_of(parse_lock, headers, {"cors": b""}, NOW_MS) == "InvalidRequest"


@given(defaults, modes, times_ms)
def test_a_default_is_for_those_without_a_retention(default: DefaultRetention, mode: LockMode, until_ms: int) -> None:
    """A retention of one's own wins; a legal hold stands beside either."""
    settings = {OBJECT_LOCK_SETTING: format_lock_configuration(default)}
    own = ObjectLock(mode, until_ms, True)
    assert apply_default(own, settings, NOW_MS) == own
    given = apply_default(ObjectLock(legal_hold=True), settings, NOW_MS)
    assert given == ObjectLock(default.mode, default.retain_until_ms(NOW_MS), True)
    assert given.retain_until_ms > NOW_MS


def test_no_default() -> None:
    """Neither without a rule nor without object lock."""
    assert apply_default(NO_LOCK, ENABLED, NOW_MS) == NO_LOCK
    assert apply_default(NO_LOCK, {}, NOW_MS) == NO_LOCK


@given(modes, times_ms)
def test_retentions_come_back(mode: LockMode, until_ms: int) -> None:
    """What is read can be put."""
    document = format_retention(ObjectLock(mode, until_ms))
    assert parse_retention(document, NOW_MS) == Retention(mode, until_ms)


def test_an_empty_retention_lifts() -> None:
    """As AWS has it, for a governance one with bypass."""
    assert parse_retention(b"<Retention/>", NOW_MS) == Retention(LockMode.NONE)


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ("<Mode>GOVERNANCE</Mode>", "MalformedXML"),
        (f"<RetainUntilDate>{LATER}</RetainUntilDate>", "MalformedXML"),
        (f"<Mode>abc</Mode><RetainUntilDate>{LATER}</RetainUntilDate>", "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode><RetainUntilDate>soon</RetainUntilDate>", "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode><RetainUntilDate>2020-01-01</RetainUntilDate>", "InvalidArgument"),
    ],
)
def test_retentions_that_are_refused(inner: str, code: str) -> None:
    """Both parts, and a date to come."""
    assert code_of(parse_retention, f"<Retention>{inner}</Retention>".encode(), NOW_MS) == code


def test_a_version_without_a_retention() -> None:
    """NoSuchObjectLockConfiguration, also under a legal hold."""
    assert code_of(format_retention, ObjectLock(legal_hold=True)) == "NoSuchObjectLockConfiguration"


@given(st.booleans())
def test_legal_holds_come_back(hold: bool) -> None:
    """ON and OFF."""
    assert parse_legal_hold(format_legal_hold(ObjectLock(legal_hold=hold))) is hold


def test_a_legal_hold_is_on_or_off() -> None:
    """MalformedXML for anything else."""
    assert code_of(parse_legal_hold, b"<LegalHold><Status>on</Status></LegalHold>") == "MalformedXML"
    assert code_of(parse_legal_hold, b"<LegalHold/>") == "MalformedXML"
