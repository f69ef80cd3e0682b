"""The client under test: boto3 with its defaults."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.endpoint import Endpoint


@pytest.fixture(scope="session")
def s3(endpoint: Endpoint) -> Any:
    """A boto3 client as a user makes one: nothing but endpoint, credentials and region."""
    return endpoint.boto3_client()
