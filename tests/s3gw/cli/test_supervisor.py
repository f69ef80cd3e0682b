"""The supervisor over real child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from s3gw.cli import supervisor as supervisor_module
from s3gw.cli.launch import ChildSpec
from s3gw.cli.supervisor import Stage, StartFailed, Supervisor

WRITES_ITS_PID = "import os,sys,time; open(sys.argv[1],'a').write(f'{os.getpid()}\\n'); time.sleep(60)"
IGNORES_SIGTERM = (
    "import os,signal,sys,time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1],'a').write('x\\n'); time.sleep(60)"
)
NOTES_ITS_END = (
    "import signal,sys,time\n"
    "def end(*_):\n    open(sys.argv[1],'a').write(sys.argv[2]+'\\n'); sys.exit(0)\n"
    "signal.signal(15, end); open(sys.argv[3],'w').close(); time.sleep(60)"
)


def python(name: str, code: str, *arguments: str) -> ChildSpec:
    """A child that runs a line of Python."""
    return ChildSpec(name, (sys.executable, "-c", code, *arguments))


async def lines_of(path: Path, count: int) -> list[str]:
    """Wait until the file has this many lines."""
    async with asyncio.timeout(60):
        while not path.exists() or len(path.read_text().splitlines()) < count:
            await asyncio.sleep(0.02)
    return path.read_text().splitlines()


def is_running(pid: int) -> bool:
    """Whether a process of this id runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    """kill -9 of a child brings another one with a new process id."""
    pids = tmp_path / "pids"
    supervisor = Supervisor([Stage((python("child", WRITES_ITS_PID, str(pids)),))], drain_timeout_s=5)
    await supervisor.start()
    try:
        first = int((await lines_of(pids, 1))[0])
        os.kill(first, signal.SIGKILL)
        second = int((await lines_of(pids, 2))[1])
        assert first != second
        assert is_running(second)
    finally:
        await supervisor.stop()
    assert not is_running(second)


async def test_stages_stop_in_reverse_order(tmp_path: Path) -> None:
    """The stage started last has ended before an earlier one is told to."""
    ends = tmp_path / "ends"
    ready = [tmp_path / "up-1", tmp_path / "up-2"]
    stages = [
        Stage((python(f"stage {number}", NOTES_ITS_END, str(ends), str(number), str(path)),))
        for number, path in enumerate(ready, 1)
    ]
    supervisor = Supervisor(stages, drain_timeout_s=5)
    await supervisor.start()
    async with asyncio.timeout(60):
        while not all(path.exists() for path in ready):
            await asyncio.sleep(0.02)
    await supervisor.stop()
    assert ends.read_text().split() == ["2", "1"]


async def test_a_child_that_does_not_drain_is_killed(tmp_path: Path) -> None:
    """A child deaf to SIGTERM is gone after the drain timeout."""
    seen = tmp_path / "seen"
    supervisor = Supervisor([Stage((python("deaf", IGNORES_SIGTERM, str(seen)),))], drain_timeout_s=0.2)
    await supervisor.start()
    await lines_of(seen, 1)
    async with asyncio.timeout(60):
        await supervisor.stop()


async def test_the_next_stage_waits_until_the_one_before_is_ready(tmp_path: Path) -> None:
    """The second stage starts only after the first stage's `ready` has returned."""
    order: list[str] = []

    async def ready() -> None:
        order.append("ready" if not (tmp_path / "second").exists() else "late")

    stages = [
        Stage((python("first", WRITES_ITS_PID, str(tmp_path / "first")),), ready),
        Stage((python("second", WRITES_ITS_PID, str(tmp_path / "second")),)),
    ]
    supervisor = Supervisor(stages, drain_timeout_s=5)
    await supervisor.start()
    await lines_of(tmp_path / "second", 1)
    await supervisor.stop()
    assert order == ["ready"]


async def test_children_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    """kill -9 of the parent ends the children at once, deaf ones too: no orphan keeps a port or a lock."""
    pids = tmp_path / "pids"
    parent_code = (
        "import asyncio,sys\n"
        "from s3gw.cli.supervisor import ChildSpec, Stage, Supervisor\n"
        "async def main():\n"
        "    child = ChildSpec('child', (sys.executable, '-c', sys.argv[2], sys.argv[1]))\n"
        "    await Supervisor([Stage((child,))], 5).start()\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    root = Path(__file__).resolve().parents[3]
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        parent_code,
        str(pids),
        "import signal; signal.signal(15, signal.SIG_IGN); " + WRITES_ITS_PID,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    child = int((await lines_of(pids, 1))[0])
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(60):
        while is_running(child):
            await asyncio.sleep(0.02)


async def test_a_child_that_cannot_start_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five deaths at once, and the reason names it and its exit status; the other children still stop in order."""
    monkeypatch.setattr(supervisor_module, "RESTART_PAUSE_MIN_S", 0.001)
    starts, ends, up = tmp_path / "starts", tmp_path / "ends", tmp_path / "up"
    refuses = python("broken", "import sys; open(sys.argv[1],'a').write('x\\n'); sys.exit(2)", str(starts))
    stages = [Stage((python("other", NOTES_ITS_END, str(ends), "other", str(up)), refuses))]
    supervisor = Supervisor(stages, drain_timeout_s=5)
    await supervisor.start()
    async with asyncio.timeout(60):
        with pytest.raises(StartFailed, match=r"broken cannot start: it ended 5 times at once.* status 2"):
            await supervisor.failed()
        while not up.exists():
            await asyncio.sleep(0.02)
    await supervisor.stop()
    assert len(starts.read_text().splitlines()) == 5
    assert ends.read_text() == "other\n"


async def test_a_child_that_has_lived_is_started_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What worked once is worth another start, however often it dies: a full disk is no configuration error."""
    monkeypatch.setattr(supervisor_module, "RESTART_PAUSE_MIN_S", 0.001)
    monkeypatch.setattr(supervisor_module, "RESTART_PAUSE_MAX_S", 0.001)
    monkeypatch.setattr(supervisor_module, "LIVED_S", 0.0)
    starts = tmp_path / "starts"
    dies = python("dies", "import sys; open(sys.argv[1],'a').write('x\\n'); sys.exit(2)", str(starts))
    supervisor = Supervisor([Stage((dies,))], drain_timeout_s=5)
    await supervisor.start()
    failing = asyncio.create_task(supervisor.failed())
    try:
        await lines_of(starts, 7)
        assert not failing.done()
    finally:
        failing.cancel()
        await supervisor.stop()


SUPERVISES = (
    "import sys\n"
    "from s3gw.cli.supervisor import ChildSpec, Stage, run_supervised\n"
    "child = ChildSpec('child', (sys.executable, '-c', sys.argv[2], sys.argv[1]))\n"
    "run_supervised([Stage((child,))], 60, lambda: print('ready', flush=True))\n"
    "print('ended')"
)


async def supervise(child_code: str, path: Path) -> asyncio.subprocess.Process:
    """A process that supervises one child, which has started when this returns."""
    root = Path(__file__).resolve().parents[3]
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUPERVISES, str(path), child_code),
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=asyncio.subprocess.PIPE,
    )
    await lines_of(path, 1)
    return parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """The child is told, and the supervisor ends with status 0."""
    parent = await supervise(WRITES_ITS_PID, tmp_path / "pid")
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"ready\n"
    parent.send_signal(number)
    async with asyncio.timeout(60):
        output, _ = await parent.communicate()
    assert (output, parent.returncode) == (b"ended\n", 0)
    assert not is_running(int((tmp_path / "pid").read_text()))


async def test_a_second_signal_while_draining_kills_at_once(tmp_path: Path) -> None:
    """A child that is deaf to SIGTERM would have a minute."""
    deaf = "import os,signal; signal.signal(15, signal.SIG_IGN);" + WRITES_ITS_PID
    parent = await supervise(deaf, tmp_path / "pid")
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"ready\n"
    parent.send_signal(signal.SIGTERM)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(parent.wait(), 0.5)
    parent.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        await parent.wait()
    assert not is_running(int((tmp_path / "pid").read_text()))
