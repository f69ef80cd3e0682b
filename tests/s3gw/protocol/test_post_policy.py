"""Policies of forms: what they are refused for, and what they refuse."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.post_policy import PostPolicy, check_post_length, evaluate_post_policy, parse_post_policy

EXPIRATION = "2026-05-06T07:08:09Z"
EXPIRATION_S = 1_778_051_289.0


def encode(document: Any) -> str:
    """As a form carries it; text and bytes are taken as they are."""
    raw = (
        document
        if isinstance(document, bytes)
        else (document if isinstance(document, str) else json.dumps(document)).encode()
    )
    return base64.b64encode(raw).decode()


def policy_of(*conditions: Any) -> PostPolicy:
    """A policy of these conditions and of bucket `b`."""
    return parse_post_policy(encode({"expiration": EXPIRATION, "conditions": [{"bucket": "b"}, *conditions]}))


def refusal_of(policy: PostPolicy, fields: dict[str, str], bucket: str = "b", now_s: float = 0.0) -> str:
    """Why the form is denied, `` when it is not."""
    try:
        evaluate_post_policy(policy, fields, bucket, now_s)
    except S3Error as error:
        assert (error.code, error.status) == ("AccessDenied", 403)
        return error.message.removeprefix("Invalid according to Policy: ")
    return ""


@pytest.mark.parametrize(
    ("condition", "fields", "refusal"),
    [
        ({"key": "a"}, {"key": "a"}, ""),
        ({"key": "a"}, {"key": "A"}, 'Policy Condition failed: ["eq", "$key", "a"]'),
        ({"KeY": "a"}, {"key": "a"}, ""),
        (["eq", "$key", "a"], {"key": "a"}, ""),
        (["EQ", "$KEY", "a"], {"key": "b"}, 'Policy Condition failed: ["eq", "$key", "a"]'),
        (["starts-with", "$key", "user/"], {"key": "user/x"}, ""),
        (["StArTs-WiTh", "$key", "user/"], {"key": "use"}, 'Policy Condition failed: ["starts-with", "$key", "user/"]'),
        (["starts-with", "$key", ""], {"key": "anything"}, ""),
        (["starts-with", "$key", ""], {}, ""),
        (["starts-with", "$x-amz-meta-a", "b"], {}, 'Policy Condition failed: ["starts-with", "$x-amz-meta-a", "b"]'),
        (["starts-with", "$Content-Type", "image/"], {"content-type": "image/a,image/b"}, ""),
        (
            ["starts-with", "$Content-Type", "image/"],
            {"content-type": "image/a, text/b"},
            'Policy Condition failed: ["starts-with", "$content-type", "image/"]',
        ),
        (["content-length-range", 1, 10], {}, ""),
        (["content-length-range", 1, 10], {"acl": "private", "x": "y"}, "Extra input fields: acl, x"),
        (
            ["content-length-range", 1, 10],
            {"policy": "", "signature": "", "awsaccesskeyid": "", "x-amz-signature": "", "x-ignore-this": ""},
            "",
        ),
        (["content-length-range", 1, 10], {"x-amz-checksum-sha256": "any"}, ""),
        (["content-length-range", 1, 10], {"x-amz-date": "unsaid"}, "Extra input fields: x-amz-date"),
    ],
)
def test_conditions(condition: Any, fields: dict[str, str], refusal: str) -> None:
    """Names in any case, values as they are; every field has to be spoken of."""
    assert refusal_of(policy_of(condition), fields) == refusal


def test_the_bucket_has_to_be_spoken_of() -> None:
    """It is a field like any other, whose value the address gives."""
    silent = parse_post_policy(encode({"expiration": EXPIRATION, "conditions": [{"key": "a"}]}))
    assert refusal_of(silent, {"key": "a"}) == "Extra input fields: bucket"
    assert refusal_of(policy_of(), {}, bucket="other") == 'Policy Condition failed: ["eq", "$bucket", "b"]'
    assert refusal_of(policy_of(), {"bucket": "b"}, bucket="other") != ""


def test_the_expiration() -> None:
    """To the second, or its fraction."""
    assert refusal_of(policy_of(), {}, now_s=EXPIRATION_S) == ""
    assert refusal_of(policy_of(), {}, now_s=EXPIRATION_S + 0.1) == "Policy expired."
    fine = parse_post_policy(encode({"expiration": "2026-05-06T07:08:09.500Z", "conditions": [{"bucket": "b"}]}))
    assert fine.expiration_s == EXPIRATION_S + 0.5


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "null",
        b"\xff",
        "[" * 5000,
        '{"expiration": ' + "9" * 5000 + "}",
        {"conditions": [{"bucket": "b"}]},
        {"expiration": EXPIRATION},
        {"EXPIRATION": EXPIRATION, "conditions": [{"bucket": "b"}]},
        {"expiration": EXPIRATION, "CONDITIONS": [{"bucket": "b"}]},
        {"expiration": EXPIRATION, "conditions": [{"bucket": "b"}], "more": 1},
        *(
            {"expiration": expiration, "conditions": [{"bucket": "b"}]}
            for expiration in ("", "tomorrow", "2026-05-06 07:08:09+00:00", "2026-13-06T07:08:09Z", 5, None)
        ),
        *(
            {"expiration": EXPIRATION, "conditions": conditions}
            for conditions in (
                [],
                {},
                "bucket",
                [{}],
                [{"a": "b", "c": "d"}],
                [{"a": 1}],
                ["eq"],
                [[]],
                [5],
                [["eq", "$key"]],
                [["eq", "key", "a"]],
                [["eq", "$", "a"]],
                [["ends-with", "$key", "a"]],
                [["eq", "$key", 1]],
                [["content-length-range", 0]],
                [["content-length-range", 0, 1, 2]],
                [["content-length-range", -1, 0]],
                [["content-length-range", "a", 1]],
                [["content-length-range", 0, True]],
                [["content-length-range", 0, 1.5]],
                [["content-length-range", 0, 1 << 80]],
                [{"a": "b"}] * 300,
            )
        ),
    ],
    ids=lambda document: str(document)[:60],
)
def test_documents_that_are_none(document: Any) -> None:
    """Each is InvalidPolicyDocument, 400."""
    with pytest.raises(S3Error) as refused:
        parse_post_policy(encode(document))
    assert (refused.value.code, refused.value.status) == ("InvalidPolicyDocument", 400)


@pytest.mark.parametrize("encoded", ["!", "YQ", "a" * 5, "\xff", "YQ==YQ=="])
def test_what_is_no_base64(encoded: str) -> None:
    """Refused alike."""
    with pytest.raises(S3Error) as refused:
        parse_post_policy(encoded)
    assert refused.value.code == "InvalidPolicyDocument"


@pytest.mark.parametrize(
    ("written", "meant"), [(r"\$foo", "$foo"), (r"\\$foo", r"\$foo"), (r"\v", "\v"), (r"\u0041", "A"), (r"\\\$", r"\$")]
)
def test_escapes(written: str, meant: str) -> None:
    r"""Those of JSON, and `\$` and `\v`, which AWS adds."""
    text = f'{{"expiration": "{EXPIRATION}", "conditions": [{{"key": "{written}"}}]}}'
    assert parse_post_policy(encode(text)).conditions[0].text == meant


def test_lines_within_the_encoding() -> None:
    """Some encoders break base64 into lines."""
    encoded = encode({"expiration": EXPIRATION, "conditions": [{"bucket": "b"}]})
    assert parse_post_policy(f"{encoded[:40]}\r\n{encoded[40:]}\n") == policy_of()


@pytest.mark.parametrize(
    ("ranges", "size", "code"),
    [
        ([], 5 << 30, ""),
        ([(0, 10)], 10, ""),
        ([(0, 10)], 11, "EntityTooLarge"),
        ([(5, 10)], 5, ""),
        ([(5, 10)], 4, "EntityTooSmall"),
        ([("5", "10")], 4, "EntityTooSmall"),
        ([(0, 10), (0, 5)], 6, "EntityTooLarge"),
        ([(0, 0)], 0, ""),
    ],
)
def test_lengths(ranges: list[tuple[Any, Any]], size: int, code: str) -> None:
    """Both ends belong to a range, and all ranges count."""
    policy = policy_of(*(["content-length-range", low, high] for low, high in ranges))
    refused = ""
    try:
        check_post_length(policy, size, size)
    except S3Error as error:
        refused = error.code
        assert error.extra["ProposedSize"] == str(size)
    assert refused == code


def test_a_length_that_is_not_known_yet() -> None:
    """Refused only when no length in question could do."""
    policy = policy_of(["content-length-range", 5, 10])
    check_post_length(policy, 0, 5)
    check_post_length(policy, 10, 20)
    for low, high in ((11, 20), (0, 4)):
        with pytest.raises(S3Error):
            check_post_length(policy, low, high)


TEXTS = st.text(max_size=20)


@given(st.dictionaries(st.text("abcXYZ-", min_size=1, max_size=8).map(str.lower), TEXTS, max_size=6), st.data())
def test_exactly_what_is_said_is_allowed(fields: dict[str, str], data: st.DataObject) -> None:
    """A form passes the policy that says all of it by value or by prefix, and no other value does."""
    fields.pop("bucket", None)
    conditions: list[Any] = []
    for name, text in fields.items():
        cut = data.draw(st.integers(0, len(text)))
        exact = data.draw(st.booleans())
        conditions.append({name: text} if exact else ["starts-with", f"${name}", text[:cut]])
    policy = policy_of(*conditions)
    assert refusal_of(policy, fields) == ""
    for condition in conditions:
        if isinstance(condition, dict):
            ((name, text),) = condition.items()
            assert refusal_of(policy, fields | {name: text + "x"}) != ""
    assert refusal_of(policy, fields | {"unsaid": ""}) == "Extra input fields: unsaid"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
        lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
        max_leaves=12,
    )
)
def test_any_json_is_a_policy_or_refused(document: Any) -> None:
    """Nothing else happens."""
    for whole in (document, {"expiration": EXPIRATION, "conditions": document}):
        try:
            parse_post_policy(encode(whole))
        except S3Error as error:
            assert error.code == "InvalidPolicyDocument"
