"""What forms say of themselves: their signature, their object, and how they want to be answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.form_data import Form
from s3gw.protocol.post_form import (
    choose_redirect,
    choose_status,
    expand_filename,
    format_post_response,
    parse_form_claim,
    parse_form_key,
    plan_form_headers,
    verify_form_claim,
)
from tests.s3gw.forms import make_policy, sign_v2, sign_v4

REGION = "us-east-1"


def lower(fields: dict[str, str]) -> dict[str, str]:
    """As the parser of forms gives them."""
    return {name.lower(): text for name, text in fields.items()}


def code_of(fields: dict[str, str], secret: str = "secret-of-alice") -> str:
    """How the form's signature is refused, `` when it holds."""
    try:
        claim = parse_form_claim(lower(fields), REGION)
        assert claim is not None and claim.access_key_id == "alice"
        verify_form_claim(claim, secret)
    except S3Error as error:
        return error.code
    return ""


V2 = sign_v2(make_policy([{"bucket": "b"}]))
V4 = sign_v4([{"bucket": "b"}])


def without(fields: dict[str, str], name: str) -> dict[str, str]:
    """All but one."""
    return {other: text for other, text in fields.items() if other != name}


def test_signatures_that_hold() -> None:
    """Of both kinds, for the very secret that made them."""
    assert code_of(V2) == code_of(V4) == ""
    assert code_of(V2, "another") == code_of(V4, "another") == "SignatureDoesNotMatch"


@pytest.mark.parametrize("fields", [V2, V4], ids=["v2", "v4"])
def test_any_change_of_the_policy_is_noticed(fields: dict[str, str]) -> None:
    """The policy is what is signed."""
    assert code_of(fields | {"policy": make_policy([{"bucket": "c"}])}) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("fields", [V2, V4], ids=["v2", "v4"])
def test_a_signature_is_whole_or_refused(fields: dict[str, str]) -> None:
    """Half of one is not taken for an anonymous form."""
    for name in fields:
        assert code_of(without(fields, name)) == "InvalidArgument", name
        assert code_of(fields | {name: ""}) == "InvalidArgument", name


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"x-amz-algorithm": "AWS4-ECDSA-P256-SHA256"}, "InvalidArgument"),
        ({"x-amz-credential": "alice"}, "AuthorizationQueryParametersError"),
        ({"x-amz-credential": V4["x-amz-credential"].replace(REGION, "mars")}, "AuthorizationQueryParametersError"),
        ({"x-amz-date": "20200101T000000Z"}, "AuthorizationQueryParametersError"),
        ({"x-amz-signature": "é"}, "SignatureDoesNotMatch"),
        ({"x-amz-security-token": "t"}, "InvalidToken"),
        ({"signature": "x"}, "InvalidArgument"),
    ],
)
def test_wrong_claims(change: dict[str, str], code: str) -> None:
    """Each by its own name."""
    assert code_of(V4 | change) == code


def test_an_anonymous_form() -> None:
    """Nothing of a signature, and no policy."""
    assert parse_form_claim({"key": "a"}, REGION) is None


def test_the_filename_is_put_in_everywhere() -> None:
    """Into every field, as often as it stands there."""
    form = Form({"key": "u/${filename}", "x-amz-meta-a": "${filename}${filename}", "b": "${FILENAME}"}, "f.txt")
    assert expand_filename(form) == {"key": "u/f.txt", "x-amz-meta-a": "f.txtf.txt", "b": "${FILENAME}"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [({}, "InvalidArgument"), ({"key": ""}, "InvalidArgument"), ({"key": "ä" * 513}, "KeyTooLongError")],
)
def test_no_key(fields: dict[str, str], code: str) -> None:
    """Missing, empty, too long in bytes."""
    with pytest.raises(S3Error) as refused:
        parse_form_key(fields)
    assert refused.value.code == code


def test_fields_become_headers() -> None:
    """Those that a PUT has; signatures, answers and unknown ones are left out."""
    fields = V4 | {
        "key": "k",
        "acl": "public-read",
        "content-type": "text/plain",
        "cache-control": "no-cache",
        "x-amz-meta-uni": "zażółć",
        "x-amz-storage-class": "STANDARD_IA",
        "tagging": "<Tagging><TagSet><Tag><Key>a b</Key><Value>1=2</Value></Tag></TagSet></Tagging>",
        "success_action_status": "201",
        "x-ignore-me": "1",
        "unknown": "1",
    }
    headers = plan_form_headers(fields)
    assert headers.pop("x-amz-meta-uni").encode("latin-1").decode() == "zażółć"
    assert headers == {
        "x-amz-acl": "public-read",
        "content-type": "text/plain",
        "cache-control": "no-cache",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-tagging": "a%20b=1%3D2",
    }


@given(st.text(max_size=20))
def test_no_field_can_split_a_header(text: str) -> None:
    """Either refused, or free of control characters."""
    try:
        headers = plan_form_headers({"content-type": text, "x-amz-meta-a": text})
    except S3Error as error:
        assert error.code == "InvalidArgument"
    else:
        assert all(character not in value for value in headers.values() for character in "\r\n\0")


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("http://h/p", "http://h/p?bucket=b&key=a%20b&etag=%22e%22"),
        ("https://h:1/p?x=1#there", "https://h:1/p?x=1&bucket=b&key=a%20b&etag=%22e%22#there"),
        ("", None),
        ("/p", None),
        ("javascript:alert(1)", None),
        ("http://", None),
        ("http://[", None),
        ("http://h/\r\nSet-Cookie: a", None),
        ("http://ä/", None),
    ],
)
def test_redirects(target: str, place: str | None) -> None:
    """What is no address is read as if it were not there."""
    assert choose_redirect({"success_action_redirect": target}, "b", b"a b", "e") == place
    assert choose_redirect({"redirect": target}, "b", b"a b", "e") == place


@pytest.mark.parametrize(("text", "status"), [("200", 200), ("201", 201), ("204", 204), ("404", 204), ("", 204)])
def test_statuses(text: str, status: int) -> None:
    """Anything else is 204."""
    assert choose_status({"success_action_status": text}) == status


def test_the_document_of_a_201() -> None:
    """Escaped, in no namespace."""
    document = format_post_response("http://h/b/a&b", "b", b"a&b", "e").decode()
    assert document.endswith(
        "<PostResponse><Location>http://h/b/a&amp;b</Location><Bucket>b</Bucket><Key>a&amp;b</Key>"
        "<ETag>&quot;e&quot;</ETag></PostResponse>"
    )
