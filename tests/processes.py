"""Finds the processes that a command has started, however they are related to it. Knows no command."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_MARK = "TEST_OF_KILLED_PROCESSES"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Marked:
    """A command whose descendants can be found by a mark in their environment, which they inherit."""

    process: "subprocess.Popen[bytes]"
    mark: str

    def descendants(self) -> list[psutil.Process]:
        """Return the processes that the command has started and that still run, without the command itself."""
        marked = [each for each in psutil.process_iter() if _has_mark(each, self.mark)]
        found = {each: None for each in marked}
        for each in marked:  # Postgres overwrites the environment of its children
            found |= dict.fromkeys(_children(each))
        return [each for each in found if each.pid != self.process.pid and _is_running(each)]

    def kill(self) -> None:
        """Kill the command, and nothing else, so that it cannot clean up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def seconds_until_alone(self, limit: float) -> float | None:
        """Wait until no descendant runs, and return how long it took; None if it takes longer than `limit` seconds."""
        began = time.monotonic()
        while self.descendants():
            if time.monotonic() - began > limit:
                return None
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - began


def start(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], output: int | None = subprocess.DEVNULL
) -> Marked:
    """Start a Python command of the project in a folder, with a mark."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, _MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    return Marked(process, mark)


def bare_environment() -> dict[str, str]:
    """Return this process's environment without settings of the project or of Prefect."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "KLAVIYO_")) and name not in ("DATABASE_URL", "DATA_DIR")
    }


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return bool(process.environ().get(_MARK) == mark)
    except (psutil.Error, OSError):  # it has just ended, or belongs to someone else
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
