"""How a supervisor starts a child: as a program of its own, or forked by a process that has every role imported.

Either way the child has its own session, no standard input, the descriptors that its spec names and no others, the
supervisor's environment without its secrets, and is killed by the kernel when the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from s3gw.cli.forks import ForkServer, inherited_variables, start_fork_server
from s3gw.orders import Orders
from storage.base.prctl import adopt_orphans, die_with_parent

LAUNCH_TIMEOUT_S = 60.0
"""for which a child is waited for; the fork server may have to import everything first"""
LAUNCH_ATTEMPTS = 2
"""the fork server may have died since the last one"""
PROCESS_ID_BYTES_MAX = 32


class ChildSpec(NamedTuple):
    """One process to keep running."""

    name: str
    argv: tuple[str, ...]
    pass_fds: tuple[int, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    """set in its environment beside the inherited ones, of which it does not get the secrets"""


class Child(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the number of the signal that ended it."""
        ...

    async def wait(self) -> int:
        """Until it ends. → its returncode."""
        ...

    def send_signal(self, signal: int) -> None:
        """ProcessLookupError when it has ended."""
        ...


Launch = Callable[[ChildSpec], Awaitable[Child]]
"""OSError when no process can be made"""


async def launch_program(spec: ChildSpec) -> Child:
    """As a program of its own, whatever it is."""
    return await asyncio.create_subprocess_exec(
        *spec.argv,
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=spec.pass_fds,
        env=inherited_variables() | dict(spec.variables),
        preexec_fn=die_with_parent,
        start_new_session=True,  # a Ctrl-C reaches the supervisor alone, which then stops them in order
    )


class ForkLauncher:
    """A fork server, and the children that it is asked for. Started when made, so that it imports meanwhile; started
    again when it is needed and has died, until it is told to rest."""

    def __init__(self, command: Sequence[str], running: ForkServer | None = None) -> None:
        """command: that of the fork server, without its --fd. running: one of this process, to go on with."""
        self._command = tuple(command)
        self._rests = False
        self._server: subprocess.Popen[bytes] | _Adopted
        adopt_orphans()
        if running is None:
            self._start()
        else:
            self._requests = socket.socket(fileno=running.requests_fd)
            self._server = _Adopted(running.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_server()

    @property
    def server_pid(self) -> int:
        """Of the fork server that runs, or has run last."""
        return self._server.pid

    @property
    def server(self) -> ForkServer:
        """The one that runs."""
        return ForkServer(self._command, self._server.pid, self._requests.fileno())

    def rest(self) -> None:
        """End the fork server, which would hold 11 MiB for nothing: what is launched from now on is a program of its
        own."""
        self._rests = True
        self._end_server()

    async def launch(self, spec: ChildSpec) -> Child:
        """Forked where it is a role; otherwise as a program all the same."""
        for _ in range(LAUNCH_ATTEMPTS):
            if self._rests:
                return await launch_program(spec)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours:
                ours.setblocking(False)
                with theirs:
                    self._hand_over(theirs)
                pid = await self._wait_for_process_id(ours)
                if pid:
                    child = ForkedChild(pid)
                    orders = Orders(spec.argv, dict(spec.variables), spec.pass_fds)
                    with suppress(ConnectionError):  # it was killed meanwhile, which `child` tells
                        socket.send_fds(ours, [orders.encode()], spec.pass_fds)
                    return child
            self._end_server()
        raise OSError("the fork server forks nothing")

    def _start(self) -> None:
        self._server, self._requests = start_fork_server(self._command)

    def _end_server(self) -> None:
        """It holds nothing that its end could harm."""
        self._requests.close()
        self._server.kill()
        self._server.wait()

    def _hand_over(self, control: socket.socket) -> None:
        if self._server.poll() is not None:
            self._requests.close()
            self._start()
        with suppress(ConnectionError):  # it dies right now: the other end of `control` tells
            socket.send_fds(self._requests, [b"+"], [control.fileno()])

    async def _wait_for_process_id(self, control: socket.socket) -> int:
        """0 when none came in time, or none can come."""
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(LAUNCH_TIMEOUT_S):
                return int(await loop.sock_recv(control, PROCESS_ID_BYTES_MAX) or b"0")
        return 0


class _Adopted:
    """A child that an earlier program of this process started; as subprocess.Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The returncode; None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Until it ends. → the returncode."""
        return self._reap(0)

    def kill(self) -> None:
        """Nothing when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


class ForkedChild:
    """A child of this process that another one forked. Made and used on one event loop."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the number of the signal that ended it."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Until it ends. → its returncode."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        """ProcessLookupError when it has ended."""
        if self._ended.done():
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        assert ended is not None  # only with WNOHANG
        exited = ended.si_code == os.CLD_EXITED
        self._ended.set_result(ended.si_status if exited else -ended.si_status)
