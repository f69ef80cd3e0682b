"""The document of a bucket's versioning state."""

from __future__ import annotations

import pytest

from s3gw.protocol.errors import S3Error
from s3gw.protocol.versioning import format_versioning, parse_versioning
from storage.model import Versioning


@pytest.mark.parametrize("state", [Versioning.ENABLED, Versioning.SUSPENDED])
def test_states_come_back(state: Versioning) -> None:
    """What is read can be put."""
    assert parse_versioning(format_versioning(state)) is state


def test_never_versioned() -> None:
    """No Status at all, which nobody can put."""
    document = format_versioning(Versioning.UNVERSIONED)
    assert b"Status" not in document
    with pytest.raises(S3Error, match="IllegalVersioningConfigurationException"):
        parse_versioning(document)


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ("<Status>enabled</Status>", "MalformedXML"),
        ("<Status>Enabled</Status><Status>Suspended</Status>", "MalformedXML"),
        ("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>", "NotImplemented"),
        ("<Status>Enabled</Status><MfaDelete>maybe</MfaDelete>", "MalformedXML"),
        ("<MfaDelete>Disabled</MfaDelete>", "IllegalVersioningConfigurationException"),
    ],
)
def test_what_is_refused(inner: str, code: str) -> None:
    """MFA delete above all: it would be a promise that nothing keeps."""
    with pytest.raises(S3Error) as caught:
        parse_versioning(f"<VersioningConfiguration>{inner}</VersioningConfiguration>".encode())
    assert caught.value.code == code


def test_mfa_delete_may_be_named_as_disabled() -> None:
    """As Terraform sends it."""
    inner = "<Status>Suspended</Status><MfaDelete>Disabled</MfaDelete>"
    document = f"<VersioningConfiguration>{inner}</VersioningConfiguration>".encode()
    assert parse_versioning(document) is Versioning.SUSPENDED
