"""A command at a terminal, with its sandbox, embedded Postgres and temporary Prefect server."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.launcher import Sandbox, running
from tests.driver import PATIENCE, ROOT, Warehouse, account, copy_prefect_home

ENDS_WITHIN = 120  # seconds; a run that cannot reach its servers any more takes minutes
_IN_THE_MIDDLE = re.compile(r" [1-3] of \d\d+ chunks done")
DAILY = [sys.executable, "flows/daily.py"]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account, whose daily run takes less time than that of the account of --sandbox."""
    with running(members=60, events=500, days=10, latency_ms=20) as box:
        yield box


@pytest.fixture(scope="module")
def home(prefect: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PREFECT_HOME that is set up."""
    home = tmp_path_factory.mktemp("terminal") / "prefect-home"
    copy_prefect_home(prefect, home)
    return home


@pytest.fixture
def environment(warehouse: Warehouse, home: Path, tmp_path: Path) -> dict[str, str]:
    """An environment without a Prefect server. The tests share PREFECT_HOME."""
    environment = {name: value for name, value in warehouse.environment.items() if name != "PREFECT_API_URL"}
    return {**environment, "DATA_DIR": str(tmp_path / "data"), "PREFECT_HOME": str(home)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "is_demo"), [(signal.SIGINT, True), pytest.param(signal.SIGHUP, False, marks=pytest.mark.slow)]
)
def test_a_signal_for_the_whole_group(
    environment: dict[str, str], box: Sandbox, tmp_path: Path, number: signal.Signals, is_demo: bool
) -> None:
    """Ctrl-C, or closing the terminal, stops a command and its servers soon, and the command says how to resume."""
    environment |= {} if is_demo else account(box)
    environment |= {"CONCURRENCY": "1"}  # so that something remains to be read whenever the signal arrives
    with (tmp_path / "log").open("w+") as log:
        child = subprocess.Popen(
            [*DAILY, "--sandbox"] if is_demo else DAILY,
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # as at a terminal, not as under nohup
        )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not _IN_THE_MIDDLE.search((tmp_path / "log").read_text()):
            assert child.poll() is None
            time.sleep(0.05)
        os.killpg(child.pid, number)
        code = child.wait(ENDS_WITHIN)
    printed = (tmp_path / "log").read_text()
    assert code == 130, printed[-3000:]
    assert "Rerun with the same arguments to resume." in printed
    assert "Traceback" not in printed
    assert "Unable to connect" not in printed


def test_a_terminal_shows_a_live_display(environment: dict[str, str], box: Sandbox) -> None:
    """At a terminal, a live display replaces the log lines, and ends with the summary and the next commands."""
    ours, theirs = pty.openpty()
    environment |= {**account(box, "shop"), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(DAILY, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        printed = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _read(ours))
    os.close(ours)
    assert child.returncode == 0, printed
    assert "Metrics, lists, campaigns and flows: 8 chunks" in printed
    assert re.search(r"requests/s of \d+ allowed, \d+ retr", printed)
    assert "shop: complete" in printed
    assert "klaviyo-pg psql" in printed
    assert " | INFO " not in printed
    assert "View at" not in printed


def _read(terminal: int) -> str:
    """Return everything that is written to a terminal until nothing has it open any more."""
    parts = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # how Linux reports the end
        pass
    return b"".join(parts).decode()
