"""PURE. Object lock: the documents of a bucket, of a retention and of a legal hold, and the headers that set them.

Source: Amazon S3 API Reference, PutObjectLockConfiguration, PutObjectRetention, PutObjectLegalHold, PutObject; User
Guide, "Locking objects with Object Lock". Whether a version may go is decided by the metadata, inside the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from s3gw.protocol.dates import format_lock_date, parse_iso_date
from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import Element, document, element, parse_xml
from storage.metadata.commands import OBJECT_LOCK_SETTING, Retention
from storage.model import LockMode, ObjectLock

DEFAULT_DAYS_MAX = 36_500
DEFAULT_YEARS_MAX = 100

MODE_HEADER = "x-amz-object-lock-mode"
UNTIL_HEADER = "x-amz-object-lock-retain-until-date"
HOLD_HEADER = "x-amz-object-lock-legal-hold"
BYPASS_HEADER = "x-amz-bypass-governance-retention"
ENABLE_HEADER = "x-amz-bucket-object-lock-enabled"

NO_LOCK = ObjectLock()

_MODES = {mode.value: mode for mode in (LockMode.GOVERNANCE, LockMode.COMPLIANCE)}
_PERIOD_DIGITS_MAX = 9
_PARSED_DOCUMENTS = 1024


class DefaultRetention(NamedTuple):
    """What a bucket gives to new versions that bring no retention of their own: either days or years, the other 0."""

    mode: LockMode
    days: int = 0
    years: int = 0

    def retain_until_ms(self, now_ms: int) -> int:
        """When it runs out for a version made now; a year ends on its own date, 29 February a day later."""
        if self.days:
            return now_ms + self.days * 86_400_000
        now = datetime.fromtimestamp(now_ms // 1000, UTC)
        try:
            then = now.replace(year=now.year + self.years)
        except ValueError:
            then = now.replace(year=now.year + self.years, month=3, day=1)
        return now_ms + (then - now) // timedelta(milliseconds=1)


# ------------------------------------------------------------------ of a bucket


def parse_lock_enabled(headers: Mapping[str, str]) -> bool:
    """x-amz-bucket-object-lock-enabled of CreateBucket. InvalidArgument."""
    text = headers.get(ENABLE_HEADER, "").strip().lower()
    if text not in ("", "true", "false"):
        raise S3Error("InvalidArgument", ArgumentName=ENABLE_HEADER, ArgumentValue=text[:256])
    return text == "true"


def parse_lock_configuration(raw: bytes) -> DefaultRetention | None:
    """ObjectLockConfiguration → the default retention, None without a rule.

    MalformedXML; InvalidRetentionPeriod for a period that is not positive, InvalidArgument for one too long.
    """
    root = parse_xml(raw, "ObjectLockConfiguration")
    if (root.child_text("ObjectLockEnabled") or "").strip() != "Enabled":
        raise S3Error("MalformedXML")
    rule = root.child("Rule")
    if rule is None:
        return None
    retention = rule.child("DefaultRetention")
    if retention is None:
        raise S3Error("MalformedXML")
    mode = _parse_mode(retention)
    days, years = _parse_period(retention, "Days"), _parse_period(retention, "Years")
    if (days is None) == (years is None):
        raise S3Error("MalformedXML")
    if (days or years or 0) <= 0:
        raise S3Error("InvalidRetentionPeriod")
    if (days or 0) > DEFAULT_DAYS_MAX or (years or 0) > DEFAULT_YEARS_MAX:
        raise S3Error("InvalidArgument", "Default retention period too large")
    return DefaultRetention(mode, days or 0, years or 0)


def format_lock_configuration(default: DefaultRetention | None) -> bytes:
    """ObjectLockConfiguration, as it is stored and as it is read back."""
    rule = ""
    if default is not None:
        period = element("Days", str(default.days)) if default.days else element("Years", str(default.years))
        rule = f"<Rule><DefaultRetention>{element('Mode', default.mode)}{period}</DefaultRetention></Rule>"
    return document("ObjectLockConfiguration", f"<ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}")


@lru_cache(maxsize=_PARSED_DOCUMENTS)
def read_default_retention(stored: bytes) -> DefaultRetention | None:
    """Of the setting that format_lock_configuration made; parsed once."""
    return parse_lock_configuration(stored)


# ------------------------------------------------------------------ of a new version


def names_lock(headers: Mapping[str, str]) -> bool:
    """Whether a request that makes a version says anything of its lock. An empty header says nothing."""
    return bool(headers.get(MODE_HEADER) or headers.get(UNTIL_HEADER) or headers.get(HOLD_HEADER))


def parse_lock(headers: Mapping[str, str], settings: Mapping[str, bytes], now_ms: int) -> ObjectLock:
    """The lock that the headers ask for, without the bucket's default. InvalidArgument; InvalidRequest for a bucket
    without object lock."""
    if not names_lock(headers):
        return NO_LOCK
    require_lock_setting(settings)
    hold = headers.get(HOLD_HEADER)
    if hold and hold not in ("ON", "OFF"):
        raise _invalid("Legal Hold must be either of 'ON' or 'OFF'", HOLD_HEADER, hold)
    mode, until = headers.get(MODE_HEADER), headers.get(UNTIL_HEADER)
    if not mode and not until:
        return ObjectLock(legal_hold=hold == "ON")
    if not mode or not until:
        raise S3Error("InvalidArgument", f"{UNTIL_HEADER} and {MODE_HEADER} must both be supplied")
    if mode not in _MODES:
        raise _invalid("Unknown wormMode directive.", MODE_HEADER, mode)
    until_ms = parse_iso_date(until)
    if until_ms is None:
        raise _invalid("The retain until date must be provided in ISO 8601 format", UNTIL_HEADER, until)
    _require_future(until_ms, now_ms)
    return ObjectLock(_MODES[mode], until_ms, hold == "ON")


def apply_default(lock: ObjectLock, settings: Mapping[str, bytes], now_ms: int) -> ObjectLock:
    """The lock of a version made now: its own retention, else the bucket's default."""
    stored = settings.get(OBJECT_LOCK_SETTING)
    if stored is None or lock.mode:
        return lock
    default = read_default_retention(stored)
    if default is None:
        return lock
    return ObjectLock(default.mode, default.retain_until_ms(now_ms), lock.legal_hold)


def require_lock_setting(settings: Mapping[str, bytes]) -> None:
    """InvalidRequest unless object lock is enabled for the bucket."""
    if OBJECT_LOCK_SETTING not in settings:
        raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")


def format_lock_headers(lock: ObjectLock) -> list[tuple[bytes, bytes]]:
    """Of a GET or HEAD; nothing for a version without a lock."""
    lines: list[tuple[bytes, bytes]] = []
    if lock.mode:
        lines.append((MODE_HEADER.encode("ascii"), lock.mode.encode("ascii")))
        lines.append((UNTIL_HEADER.encode("ascii"), format_lock_date(lock.retain_until_ms).encode("ascii")))
    if lock.legal_hold:
        lines.append((HOLD_HEADER.encode("ascii"), b"ON"))
    return lines


# ------------------------------------------------------------------ of a version that exists


def parse_retention(raw: bytes, now_ms: int) -> Retention:
    """Retention; an empty one lifts what is there. MalformedXML, InvalidArgument for a date that is not to come."""
    root = parse_xml(raw, "Retention")
    if not root.children:
        return Retention(LockMode.NONE)
    mode = _parse_mode(root)
    until_ms = parse_iso_date((root.child_text("RetainUntilDate") or "").strip())
    if until_ms is None:
        raise S3Error("MalformedXML")
    _require_future(until_ms, now_ms)
    return Retention(mode, until_ms)


def format_retention(lock: ObjectLock) -> bytes:
    """Retention. NoSuchObjectLockConfiguration for a version that has none."""
    if not lock.mode:
        raise S3Error("NoSuchObjectLockConfiguration")
    date = format_lock_date(lock.retain_until_ms)
    return document("Retention", f"{element('Mode', lock.mode)}<RetainUntilDate>{date}</RetainUntilDate>")


def parse_legal_hold(raw: bytes) -> bool:
    """LegalHold. MalformedXML."""
    status = (parse_xml(raw, "LegalHold").child_text("Status") or "").strip()
    if status not in ("ON", "OFF"):
        raise S3Error("MalformedXML")
    return status == "ON"


def format_legal_hold(lock: ObjectLock) -> bytes:
    """LegalHold."""
    return document("LegalHold", element("Status", "ON" if lock.legal_hold else "OFF"))


# ------------------------------------------------------------------ within


def _parse_mode(parent: Element) -> LockMode:
    try:
        return _MODES[(parent.child_text("Mode") or "").strip()]
    except KeyError:
        raise S3Error("MalformedXML") from None


def _parse_period(retention: Element, name: str) -> int | None:
    text = retention.child_text(name)
    if text is None:
        return None
    digits = text.strip().removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise S3Error("MalformedXML")
    number = int(digits) if len(digits) <= _PERIOD_DIGITS_MAX else 10**_PERIOD_DIGITS_MAX
    return -number if text.strip().startswith("-") else number


def _require_future(until_ms: int, now_ms: int) -> None:
    if until_ms <= now_ms:
        raise S3Error("InvalidArgument", "The retain until date must be in the future!")


def _invalid(message: str, name: str, text: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=text[:256])
