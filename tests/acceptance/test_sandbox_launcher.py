"""The lifetime of a sandbox process: it ends with the process that launched it, and only then."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from sandbox.launcher import running

ROOT = Path(__file__).parents[2]
TIME_TO_EXIT = 60  # seconds
_LAUNCH = """
import sys, time
from sandbox.launcher import running
with running(members=5, events=int(sys.argv[1])) as box:
    print(box.pid, flush=True)
    time.sleep(600)
"""
_LONG_GENERATION = 100_000_000  # events, which take many minutes to generate


def has_exited(process: psutil.Process) -> bool:
    """Return whether a process has exited, even if its parent has not waited for it."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def launcher(events: int) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that launches a sandbox and waits."""
    command = [sys.executable, "-c", _LAUNCH, str(events)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_sandbox_exits_when_its_launcher_is_killed() -> None:
    with launcher(events=10) as process:
        assert process.stdout is not None
        sandbox = psutil.Process(int(process.stdout.readline()))
        assert not has_exited(sandbox)
        process.kill()
        assert wait_until(lambda: has_exited(sandbox), TIME_TO_EXIT)


def test_a_sandbox_that_is_generating_exits_when_its_launcher_is_killed() -> None:
    with launcher(_LONG_GENERATION) as process:
        children = psutil.Process(process.pid).children
        assert wait_until(children, 300)
        (sandbox,) = children()
        assert wait_until(lambda: sandbox.net_connections(kind="tcp"), 300)  # listens before it generates
        process.kill()
        assert wait_until(lambda: has_exited(sandbox), TIME_TO_EXIT)


def test_a_sandbox_exits_at_the_end_of_the_block() -> None:
    with running(members=5, events=10) as box:
        sandbox = psutil.Process(box.pid)
        assert not has_exited(sandbox)
    assert has_exited(sandbox)


def test_an_exception_in_the_block_ends_the_sandbox() -> None:
    with pytest.raises(RuntimeError), running(members=5, events=10) as box:
        sandbox = psutil.Process(box.pid)
        raise RuntimeError
    assert has_exited(sandbox)


def test_the_command_ignores_the_end_of_its_input() -> None:
    """A sandbox that was started from a shell keeps running until it gets a signal."""
    command = [sys.executable, "-m", "sandbox", "--port=0", "--members=5", "--events=10"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split(" is ready at ")[1].split()[0]
        time.sleep(0.5)
        with urlopen(f"{url}/sandbox/state", timeout=60) as answer:
            assert answer.status == 200
        process.terminate()
        assert process.wait(TIME_TO_EXIT) == 0
