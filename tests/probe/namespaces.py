"""Several hosts on one machine: a network namespace each, all of them behind one router in a namespace of its own.

A cut is a blackhole route on the router: packets vanish without a word, as behind a broken switch, and each direction
can be cut by itself. Needs root, iproute2 and a kernel that lets this container make namespaces.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000
COMMAND_TIMEOUT_S = 20

_T = TypeVar("_T")
_networks = itertools.count(1)


def explain_missing() -> str | None:
    """Why no namespaces can be made here; None when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    name = f"frost-try-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    if done.returncode != 0:
        return f"no network namespace can be made here: {done.stderr.strip()}"
    _ip("netns", "del", name)
    return None


class Host:
    """One namespace with one address."""

    def __init__(self, namespace: str, address: str) -> None:
        self.namespace = namespace
        self.address = address

    @property
    def program(self) -> tuple[str, ...]:
        """What a command line begins with to run there; the process is the command's own."""
        return ("ip", "netns", "exec", self.namespace)

    def enter(self) -> None:
        """Move the calling thread there, for good: its sockets are the host's from now on (setns(2))."""
        with Path(f"/run/netns/{self.namespace}").open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def call(self, function: Callable[[], _T]) -> _T:
        """What the function gives when it runs there, in a thread of its own."""
        with ThreadPoolExecutor(1, initializer=self.enter) as there:
            return there.submit(function).result()


class Network:
    """Hosts that reach each other through one router. Made by `running_network`."""

    def __init__(self) -> None:
        self._number = next(_networks)
        self._prefix = f"frost-{os.getpid()}-{self._number}"
        self._router = f"{self._prefix}-router"
        self._hosts: list[Host] = []

    def start(self) -> None:
        """The router."""
        _ip("netns", "add", self._router)
        _ip("-n", self._router, "link", "set", "lo", "up")
        _in(self._router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def add_host(self) -> Host:
        """10.77.N.1 and so on, with the router at the .254 of each net."""
        number = len(self._hosts) + 1
        host = Host(f"{self._prefix}-{number}", f"10.77.{number}.1")
        _ip("netns", "add", host.namespace)
        self._hosts.append(host)
        inner, outer = "eth0", f"host{number}"
        _ip("-n", self._router, "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", host.namespace)
        _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", inner)
        _ip("-n", self._router, "addr", "add", f"10.77.{number}.254/24", "dev", outer)
        for namespace, link in ((host.namespace, "lo"), (host.namespace, inner), (self._router, outer)):
            _ip("-n", namespace, "link", "set", link, "up")
        _ip("-n", host.namespace, "route", "add", "default", "via", f"10.77.{number}.254")
        return host

    @contextmanager
    def cut_off(self, *hosts: Host) -> Iterator[None]:
        """Nothing reaches these hosts; what they send goes out, and no answer comes back. Two of them cannot reach each
        other either."""
        for host in hosts:
            _ip("-n", self._router, "route", "add", "blackhole", f"{host.address}/32")
        try:
            yield
        finally:
            for host in hosts:
                _ip("-n", self._router, "route", "del", "blackhole", f"{host.address}/32")

    def stop(self) -> None:
        """Take everything away; processes inside must have ended."""
        for namespace in (*(host.namespace for host in self._hosts), self._router):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", namespace)


@contextmanager
def running_network() -> Iterator[Network]:
    """A network without hosts; gone with everything when the block is left."""
    network = Network()
    try:
        network.start()
        yield network
    finally:
        network.stop()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=COMMAND_TIMEOUT_S)


def _in(namespace: str, *command: str) -> None:
    _ip("netns", "exec", namespace, *command)
