"""What a terminal does to a command and its children: sandbox, embedded Postgres, a temporary Prefect server."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.driver import ROOT, Warehouse

ENDS_WITHIN = 30  # seconds; a run that cannot reach its children any more takes minutes
_IN_THE_MIDDLE = re.compile(r" [1-3] of \d\d+ parts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_the_whole_group(warehouse: Warehouse, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, and a closed terminal, reach each process of a command; it ends soon, and as told, and so do they."""
    environment = {name: value for name, value in warehouse.environment.items() if name != "PREFECT_API_URL"}
    home = Path(warehouse.environment["DATA_DIR"]) / "prefect"  # one for both: setting it up takes seconds
    environment |= {"DATA_DIR": str(tmp_path / "data"), "PREFECT_HOME": str(home)}
    environment |= {"CONCURRENCY": "1"}  # so that something is left to be read whenever the signal comes
    with (tmp_path / "log").open("w+") as log:
        child = subprocess.Popen(
            [sys.executable, "flows/daily.py", "--sandbox"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # as at a terminal, not as under nohup
        )
        until = time.monotonic() + 90
        while time.monotonic() < until and not _IN_THE_MIDDLE.search((tmp_path / "log").read_text()):
            assert child.poll() is None
            time.sleep(0.05)
        os.killpg(child.pid, number)
        code = child.wait(ENDS_WITHIN)
    printed = (tmp_path / "log").read_text()
    assert code == 130, printed[-3000:]
    assert "the same command goes on where it stopped" in printed
    assert "Traceback" not in printed
    assert "Unable to connect" not in printed
