"""The supervisor over real child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from s3gw.cli.supervisor import ChildSpec, Stage, Supervisor

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
    async with asyncio.timeout(20):
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
    async with asyncio.timeout(20):
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
    async with asyncio.timeout(10):
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
    """kill -9 of the parent ends the children: no orphan keeps a port or a lock."""
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
        WRITES_ITS_PID,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    child = int((await lines_of(pids, 1))[0])
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(10):
        while is_running(child):
            await asyncio.sleep(0.02)
