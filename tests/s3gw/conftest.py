"""A gateway for each module of tests, and a fresh bucket for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from s3gw.connection import GatewayProtocol
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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[GatewayProtocol]:
    """The connections that servers of this process have made, oldest first."""
    protocols: list[GatewayProtocol] = []
    connection_made = GatewayProtocol.connection_made

    def watched(protocol: GatewayProtocol, transport: Any) -> None:
        connection_made(protocol, transport)
        protocols.append(protocol)

    monkeypatch.setattr(GatewayProtocol, "connection_made", watched)
    return protocols
