"""A gateway for each module of tests, and a fresh bucket for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.s3gw.gateway import Gateway, running_gateway

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A running gateway with the users root, alice and bob."""
    with running_gateway() as running:
        yield running


@pytest.fixture(scope="module")
def s3(gateway: Gateway) -> Any:
    """Alice's boto3 client."""
    return gateway.client()


@pytest.fixture
def bucket(s3: Any) -> str:
    """The name of a new bucket of Alice's."""
    name = f"bucket-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    return name
