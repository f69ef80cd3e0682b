"""Lifecycle documents: they come back as AWS writes them, and bad ones are refused with AWS's codes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.lifecycle_rules import Lifecycle, LifecycleRule, encode_lifecycle
from s3gw.protocol.errors import S3Error
from s3gw.protocol.lifecycle import MINIMUM_SIZE_MODES, RULES_MAX, parse_lifecycle
from s3gw.protocol.lifecycle_answers import format_abortion, format_expiration, format_lifecycle
from storage.model import Bucket

DAY_MS = 86_400_000
TEXTS = st.text(st.sampled_from("ab/é&< "), max_size=6)
TAGS = st.dictionaries(st.sampled_from(["a", "b", "é"]), st.sampled_from(["", "1"]), max_size=2)
EXPIRATIONS = st.sampled_from(
    [{"expiration_days": 3}, {"expiration_date_ms": 20_000 * DAY_MS}, {"noncurrent_days": 1}, {"noncurrent_days": 7}]
)
EXPIRE = "<Expiration><Days>1</Days></Expiration>"
ABORT = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
MARKER = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
TAG = "<Tag><Key>a</Key><Value>1</Value></Tag>"


@st.composite
def kept_rules(draw: st.DrawFn) -> LifecycleRule:
    """Rules as a client may put them."""
    fields = draw(EXPIRATIONS) | {"enabled": draw(st.booleans())}
    if "noncurrent_days" in fields:
        fields["newer_noncurrent_versions"] = draw(st.integers(0, 100))
    if draw(st.booleans()):
        return LifecycleRule(
            "x", prefix=draw(TEXTS), has_filter=False, abort_upload_days=draw(st.integers(0, 9)), **fields
        )
    above = draw(st.none() | st.integers(0, 10))
    below = draw(st.none() | st.integers(11, 20))
    prefix = draw(st.none() | TEXTS)
    return LifecycleRule("x", prefix=prefix, tags=draw(TAGS), size_greater_than=above, size_less_than=below, **fields)


def rule(actions: str = EXPIRE, where: str = "<Filter/>", status: str = "Enabled", rule_id: str | None = None) -> str:
    """One rule as XML."""
    named = "" if rule_id is None else f"<ID>{rule_id}</ID>"
    return f"<Rule>{named}{where}<Status>{status}</Status>{actions}</Rule>"


def configuration(*rules: str) -> bytes:
    """A document of these rules."""
    return f"<LifecycleConfiguration>{''.join(rules)}</LifecycleConfiguration>".encode()


def only(body: bytes) -> LifecycleRule:
    """The one rule of a document."""
    (found,) = parse_lifecycle(body).rules
    return found


@given(st.lists(kept_rules(), min_size=1, max_size=4))
def test_a_document_comes_back(rules: list[LifecycleRule]) -> None:
    """What is formatted is parsed to the same rules."""
    named = Lifecycle(
        tuple(
            LifecycleRule(**{name: getattr(it, name) for name in it.__struct_fields__} | {"rule_id": f"rule {number}"})
            for number, it in enumerate(rules)
        ),
        MINIMUM_SIZE_MODES[1],
    )
    assert parse_lifecycle(format_lifecycle(named), MINIMUM_SIZE_MODES[1]) == named


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", "MalformedXML", ""),
        (configuration(), "MalformedXML", ""),
        (configuration("<Other/>"), "MalformedXML", ""),
        (configuration(rule(status="enabled")), "MalformedXML", ""),
        (configuration(rule(status="")), "MalformedXML", ""),
        (configuration(rule(where="")), "MalformedXML", ""),
        (configuration(rule(where="<Prefix>a</Prefix><Filter/>")), "MalformedXML", ""),
        (configuration(rule(where="<Filter><Surprise/></Filter>")), "MalformedXML", ""),
        (configuration(rule(where="<Filter><And/></Filter>")), "MalformedXML", ""),
        (configuration(rule(where="<Filter><And><And/></And></Filter>")), "MalformedXML", ""),
        (configuration(rule(where="<Filter><Tag/></Filter>")), "MalformedXML", ""),
        (configuration(rule(where=f"<Filter><And>{TAG}{TAG}</And></Filter>")), "InvalidTag", ""),
        (configuration(rule(where="<Filter><Prefix>a</Prefix><And><Prefix>b</Prefix></And></Filter>")),
         "MalformedXML", ""),
        (configuration(rule(where=f"<Prefix>{'p' * 1025}</Prefix>")), "InvalidRequest", "1024"),
        (configuration(rule("")), "InvalidRequest", "At least one action"),
        (configuration(rule("<Surprise/>")), "MalformedXML", ""),
        (configuration(rule("<Expiration/>")), "MalformedXML", ""),
        (configuration(rule("<Expiration><Days>1</Days><Days>2</Days></Expiration>")), "MalformedXML", ""),
        (configuration(rule("<Expiration><Days>x</Days></Expiration>")), "MalformedXML", ""),
        (configuration(rule("<Expiration><Days>1.5</Days></Expiration>")), "MalformedXML", ""),
        (configuration(rule(f"<Expiration><Days>{'9' * 5000}</Days></Expiration>")), "MalformedXML", ""),
        (configuration(rule("<Expiration><Days>0</Days></Expiration>")), "InvalidArgument", "'Days' for Expiration"),
        (configuration(rule("<Expiration><Days>-1</Days></Expiration>")), "InvalidArgument", "positive"),
        (configuration(rule("<Expiration><Days>2147483648</Days></Expiration>")), "InvalidArgument", "greater"),
        (configuration(rule("<Expiration><Date>soon</Date></Expiration>")), "MalformedXML", ""),
        (configuration(rule("<Expiration><Date>2030-02-30</Date></Expiration>")), "MalformedXML", ""),
        (configuration(rule("<Expiration><Date>2030-01-01T00:00:01Z</Date></Expiration>")), "InvalidArgument",
         "midnight"),
        (configuration(rule("<Expiration><ExpiredObjectDeleteMarker>yes</ExpiredObjectDeleteMarker></Expiration>")),
         "MalformedXML", ""),
        (configuration(rule("<NoncurrentVersionExpiration/>")), "MalformedXML", ""),
        (configuration(rule(f"{EXPIRE}<NoncurrentVersionExpiration><NoncurrentDays>0</NoncurrentDays>"
         "</NoncurrentVersionExpiration>")), "InvalidArgument", "'NoncurrentDays' for NoncurrentVersionExpiration"),
        (configuration(rule("<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>"
         "101</NewerNoncurrentVersions></NoncurrentVersionExpiration>")), "InvalidArgument", "100"),
        (configuration(rule(ABORT.replace(">1<", ">0<"))), "InvalidArgument", "'DaysAfterInitiation'"),
        (configuration(rule(ABORT, f"<Filter>{TAG}</Filter>")), "InvalidRequest", "cannot be specified with Tags"),
        (configuration(rule(MARKER, f"<Filter>{TAG}</Filter>")), "InvalidRequest", "cannot be specified with Tags"),
        (configuration(rule(MARKER, "<Filter><ObjectSizeLessThan>1</ObjectSizeLessThan></Filter>")), "InvalidRequest",
         "object size"),
        (configuration(rule(where="<Filter><ObjectSizeLessThan>0</ObjectSizeLessThan></Filter>")), "InvalidRequest",
         "between 1"),
        (configuration(rule(where="<Filter><ObjectSizeLessThan>x</ObjectSizeLessThan></Filter>")), "MalformedXML", ""),
        (configuration(rule(where="<Filter><And><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan><ObjectSizeLessThan>5"
         "</ObjectSizeLessThan></And></Filter>")), "InvalidRequest", "greater than"),
        (configuration(rule("<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>")),
         "NotImplemented", "one kind of storage"),
        (configuration(rule("<Transition><Date>20220927</Date></Transition>")), "MalformedXML", ""),
        (configuration(rule("<NoncurrentVersionTransition/>")), "NotImplemented", ""),
        (configuration(rule(rule_id="i" * 256)), "InvalidArgument", "255"),
        (configuration(rule(rule_id="i"), rule(rule_id="i")), "InvalidArgument", "unique"),
        (configuration(*[rule()] * (RULES_MAX + 1)), "InvalidRequest", "1000"),
    ],
)  # fmt: skip
def test_bad_documents(body: bytes, code: str, message: str) -> None:
    """Each with AWS's code."""
    with pytest.raises(S3Error) as caught:
        parse_lifecycle(body)
    assert caught.value.code == code
    assert message in caught.value.message


def test_rules_without_an_id_get_one() -> None:
    """Different ones, the same again for the same document, and none that the client chose."""
    body = configuration(rule(), rule(rule_id=""), rule(rule_id="mine"))
    ids = [found.rule_id for found in parse_lifecycle(body).rules]
    assert len(set(ids)) == 3
    assert all(ids)
    assert ids[2] == "mine"
    assert [found.rule_id for found in parse_lifecycle(body).rules] == ids
    assert len(parse_lifecycle(configuration(*[rule()] * RULES_MAX)).rules) == RULES_MAX


def test_the_old_form_stays_the_old_form() -> None:
    """A Prefix of the rule's own is given back as one, and a Filter as one."""
    for where in ("<Prefix></Prefix>", "<Prefix>a</Prefix>", "<Filter></Filter>", "<Filter><Prefix></Prefix></Filter>"):
        assert where.encode() in format_lifecycle(parse_lifecycle(configuration(rule(where=where))))


def test_conditions_of_a_filter_all_hold() -> None:
    """In an And, or side by side as lenient servers take them; given back in an And."""
    inner = f"<Prefix>a/</Prefix>{TAG}<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>"
    alone = only(configuration(rule(where=f"<Filter>{inner}</Filter>")))
    within = only(configuration(rule(where=f"<Filter><And>{inner}</And></Filter>", rule_id=alone.rule_id)))
    assert alone == within
    assert (alone.prefix, alone.tags, alone.size_greater_than) == ("a/", {"a": "1"}, 5)
    assert b"<Filter><And><Prefix>a/</Prefix>" in format_lifecycle(Lifecycle((alone,)))
    both = f"<Filter><Prefix>a/</Prefix><And><Prefix>a</Prefix>{TAG}</And></Filter>"
    assert only(configuration(rule(where=both))).prefix == "a/"


@pytest.mark.parametrize(
    "text", ["2030-01-01", "2030-01-01T00:00:00Z", "2030-01-01T00:00:00.000Z", "2030-01-01T02:00:00+02:00"]
)
def test_dates(text: str) -> None:
    """Midnight UTC, however it is written."""
    found = only(configuration(rule(f"<Expiration><Date>{text}</Date></Expiration>")))
    assert found.expiration_date_ms == 1_893_456_000_000
    assert b"<Date>2030-01-01T00:00:00.000Z</Date>" in format_lifecycle(Lifecycle((found,)))


def test_the_minimum_size_mode_is_checked() -> None:
    """AWS's default without the header."""
    body = configuration(rule())
    assert parse_lifecycle(body).minimum_size_mode == "all_storage_classes_128K"
    assert parse_lifecycle(body, "varies_by_storage_class").minimum_size_mode == "varies_by_storage_class"
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_lifecycle(body, "none")


def test_headers_of_an_object_and_an_upload() -> None:
    """Dates by the calendar, rule ids url-encoded; a day beyond all dates is the last one."""
    rules = (LifecycleRule('r "1"/é', expiration_days=1, abort_upload_days=2), LifecycleRule("2", expiration_days=5))
    bucket = Bucket(1, "b", "o", "r", 0, "k", settings={"lifecycle": encode_lifecycle(Lifecycle(rules))})
    assert format_expiration(bucket, b"k", 1, {}, 5) == [
        (b"x-amz-expiration", b'expiry-date="Sat, 03 Jan 1970 00:00:00 GMT", rule-id="r%20%221%22%2F%C3%A9"')
    ]
    assert format_abortion(bucket, b"k", 5) == [
        (b"x-amz-abort-date", b"Sun, 04 Jan 1970 00:00:00 GMT"),
        (b"x-amz-abort-rule-id", b"r%20%221%22%2F%C3%A9"),
    ]
    never = (LifecycleRule("r", expiration_days=2**31 - 1, abort_upload_days=2**31 - 1),)
    late = Bucket(1, "b", "o", "r", 0, "k", settings={"lifecycle": encode_lifecycle(Lifecycle(never))})
    assert b"31 Dec 9999" in format_expiration(late, b"k", 1, {}, 5)[0][1]
    assert b"31 Dec 9999" in format_abortion(late, b"k", 5)[0][1]
    plain = Bucket(1, "b", "o", "r", 0, "k")
    other = Bucket(1, "b", "o", "r", 0, "k", settings={"cors": b""})
    for bare in (plain, other):
        assert format_expiration(bare, b"k", 1, {}, 5) == format_abortion(bare, b"k", 5) == []


@given(st.binary(max_size=200))
def test_any_body_is_parsed_or_refused(body: bytes) -> None:
    """Nothing but a 400 is raised."""
    try:
        parse_lifecycle(body)
    except S3Error as error:
        assert error.status == 400
