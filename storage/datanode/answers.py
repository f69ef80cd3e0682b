"""What clients of a datanode make of its answers, whichever of its parts they ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from storage.base.address import Address
from storage.base.errors import NodeUnreachable
from storage.base.internal_client import Answer
from storage.datanode.wire import ERROR_HEADER

_T = TypeVar("_T")


def read_answer(address: Address, answer: Answer, parse: Callable[[bytes], _T]) -> _T:
    """The body of an answer that is no failure. NodeUnreachable where it is not of the protocol."""
    try:
        return parse(answer.body)
    except ValueError as error:
        raise strange(address, answer) from error


def strange(address: Address, answer: Answer) -> NodeUnreachable:
    """For an answer that no datanode gives: something else listens there, or one of another release."""
    name = answer.headers.get(ERROR_HEADER, "nothing known")
    return NodeUnreachable(f"{address} answered {answer.status} with {name[:100]}")
