"""What boto3 makes of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from botocore.exceptions import ClientError


class Refusal(NamedTuple):
    """Code, status and the headers of an error response."""

    code: str
    status: int
    headers: dict[str, str]
    error: dict[str, Any]


def refusal(call: Callable[..., Any], **arguments: Any) -> Refusal:
    """Call, and return how it was refused; AssertionError when it was not."""
    try:
        call(**arguments)
    except ClientError as caught:
        answer = caught.response
        metadata = answer["ResponseMetadata"]
        error = answer["Error"]
        return Refusal(error["Code"], metadata["HTTPStatusCode"], metadata["HTTPHeaders"], error)
    raise AssertionError(f"{call} was not refused")
