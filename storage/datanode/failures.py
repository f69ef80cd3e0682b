"""What a datanode tells of an error, whichever way the request came: a status, a name and a message."""

from __future__ import annotations

import logging
from typing import NamedTuple

from storage.base.errors import FrostbyteError
from storage.datanode import wire
from storage.datanode.exchange import BadRequest

BAD_REQUEST = "BadRequest"
INTERNAL = "InternalError"

_log = logging.getLogger(__name__)


class Failure(NamedTuple):
    """name: in wire.ERROR_HEADER and in the body."""

    status: int
    name: str
    message: str


def name_failure(error: Exception, request: str) -> Failure:
    """An error that the protocol does not know is logged: a defect, or a failing disk, costs one request. request: its
    method and target, for the log."""
    if isinstance(error, BadRequest):
        return Failure(error.status, BAD_REQUEST, str(error))
    name = type(error).__name__
    if not isinstance(error, FrostbyteError):
        _log.error("%s", request, exc_info=error)
        return Failure(500, INTERNAL, name)
    status = wire.STATUS_OF.get(name)
    if status is None:
        _log.error("%s: %s: %s", request, name, error)
    return Failure(status or 500, name, str(error))
