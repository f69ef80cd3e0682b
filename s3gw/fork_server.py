"""`python -m s3gw.fork_server --fd N`: has every role imported, and forks the supervisor's children.

Importing is most of what a role does at its start, and most of what it holds when idle. A process that is forked here
has done it already, and shares the pages that it only reads. No thread, event loop, database or key is in this process.

It is needed until everything runs, and then ended: what is started again is a program of its own (s3gw/cli/launch.py).
It is told nothing of what a child is for. A request is one end of a socket pair, handed to a process of its own, which
asks over it what to become: a secret that one role is given is never in the memory of another. That process is forked
twice, so that it becomes the supervisor's own child: the end of the fork server ends nothing else.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from s3gw.bare_packages import enter_bare_packages
from s3gw.gaps import fill_gaps
from s3gw.orders import ORDERS_BYTES_MAX, decode_orders
from s3gw.worker_config import METRICS_VARIABLE
from storage.base.arguments import Option, parse_options
from storage.base.internal_auth import INTERNAL_KEY_BYTES, ROLE_DATANODE, derive_node_key
from storage.base.log import configure_logging
from storage.base.prctl import die_with_parent, show_arguments
from storage.crypto.keys import KEY_BYTES, NONCE_BYTES

ROLES = ("s3gw", "cluster", "storage.metadata", "storage.datanode")
"""what may follow `python -m`; the function `main` of its __main__ is the role"""
LATE_MODULES = ("uvicorn.lifespan.off",)
"""which a role would import when it starts"""
DESCRIPTORS_MAX = 16
ADOPTION_POLL_S = 0.0002

_fillers: list[tuple[bytes, ...]] = []
"""kept for as long as the process lives"""

_log = logging.getLogger(__name__)


class Newborn(NamedTuple):
    """A process that knows only who to ask."""

    control: socket.socket
    parent_pid: int


def main() -> int:
    """In the server: 0 once the supervisor is gone. In a process that it forked: what the role returns."""
    options = (Option("--fd", int, "file descriptor of the socket of requests"),)
    arguments = parse_options("python -m s3gw.fork_server", __doc__, options)
    die_with_parent()
    configure_logging("fork-server")
    load_roles()
    newborn = serve(socket.socket(fileno=arguments.fd), os.getppid())
    return 0 if newborn is None else become(newborn)


def load_roles() -> None:
    """Import them all, and never look at what they are made of again: the collector would write to every page."""
    os.environ[METRICS_VARIABLE] = ""  # prometheus_client asks when imported whether processes count together
    gc.disable()
    enter_bare_packages()
    for role in ROLES:
        importlib.import_module(f"{role}.__main__")
    for module in LATE_MODULES:
        importlib.import_module(module)
    del os.environ[METRICS_VARIABLE]
    _use_openssl()
    gc.collect()
    _fillers.append(fill_gaps())
    gc.freeze()
    # Every entry that a child replaces in this cache would write to the page of a name that it may never use itself.
    if hasattr(sys, "_clear_type_cache"):
        sys._clear_type_cache()


def _use_openssl() -> None:
    """It makes its tables of algorithms when one is used first: 3 MiB that the children share. Of no key: of zeros."""
    AESGCM(bytes(KEY_BYTES)).encrypt(bytes(NONCE_BYTES), b"", None)
    derive_node_key(bytes(INTERNAL_KEY_BYTES), ROLE_DATANODE, "none")


def serve(requests: socket.socket, supervisor_pid: int) -> Newborn | None:
    """Fork a process for every socket that comes. → in such a process, its socket; None once nobody asks any more."""
    while True:
        _, received, _, _ = socket.recv_fds(requests, 1, 1)
        if not received:
            return None
        control = socket.socket(fileno=received[0])
        try:
            if _fork_orphan():
                return Newborn(control, supervisor_pid)
        except OSError as error:
            _log.error("cannot fork: %s", error)
        control.close()


def _fork_orphan() -> bool:
    """Fork a process that the supervisor adopts. → whether this is it. OSError."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return False
    between = os.getpid()
    try:
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)
    while os.getppid() == between:
        time.sleep(ADOPTION_POLL_S)
    return True


def become(newborn: Newborn) -> int:
    """Ask for orders, then be what they say. → the exit status."""
    os.setsid()  # a Ctrl-C reaches the supervisor alone, which then stops all in order
    die_with_parent()
    if os.getppid() != newborn.parent_pid:
        return 1
    try:
        newborn.control.send(str(os.getpid()).encode())
        packet, received, _, _ = socket.recv_fds(newborn.control, ORDERS_BYTES_MAX, DESCRIPTORS_MAX)
    except ConnectionError:
        return 1  # whoever asked for it was stopped meanwhile
    if not packet:
        return 1  # or has given up
    orders = decode_orders(packet)
    newborn.control.close()
    _keep_only(received, orders.descriptors)
    os.environ.update(orders.variables)
    module, *rest = _find_role(orders.arguments)
    if module not in ROLES or not show_arguments(orders.arguments, os.environ):
        os.execv(orders.arguments[0], orders.arguments)  # noqa: S606 - what the supervisor says, no shell
    sys.argv[1:] = rest
    gc.enable()
    return int(sys.modules[f"{module}.__main__"].main())


def _find_role(arguments: Sequence[str]) -> Sequence[str]:
    """What follows -m."""
    return arguments[arguments.index("-m") + 1 :] if "-m" in arguments else ("",)


def _keep_only(received: Sequence[int], numbers: Sequence[int]) -> None:
    """Of all descriptors only the standard ones and those received, under these numbers."""
    free = max((2, *received, *numbers)) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, free) for descriptor in received]
    os.closerange(3, free)
    for descriptor, number in zip(moved, numbers, strict=True):
        os.dup2(descriptor, number)
    os.closerange(free, max((free, *moved)) + 1)


if __name__ == "__main__":
    sys.exit(main())
