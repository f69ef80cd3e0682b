"""What asks a master, over a real socket: its refusals come with their reason."""

from __future__ import annotations

import json

import pytest

from cluster.registry.client import MasterClient
from storage.base.errors import Unavailable
from tests.cluster.registry.served_master import INTERNAL_KEY, Master


async def test_orders_and_questions_through_the_client(master: Master) -> None:
    """A refusal comes with the master's reason."""
    client = MasterClient(master.address, INTERNAL_KEY)
    assert json.loads(await client.call("GET", "/v1/nodes"))["nodes"] == []
    with pytest.raises(Unavailable, match=r"409.*there is no node"):
        await client.call("POST", f"/v1/nodes/{'f' * 32}/drain")
    await client.close()


async def test_a_wrong_internal_key_is_unavailable(master: Master) -> None:
    """The reason is in the message."""
    client = MasterClient(master.address, bytes(32))
    with pytest.raises(Unavailable, match="401"):
        await client.fetch_map()
    await client.close()
