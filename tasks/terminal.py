"""What a terminal does to a command: Ctrl-C goes to every process of its group, and closing it hangs them all up."""

import os
import signal
import subprocess
from functools import partial
from typing import Any

from prefect.server.api.server import SubprocessASGIServer


def prepare() -> None:
    """Let this process alone decide what a signal means, and let SIGTERM and a closed terminal mean what Ctrl-C does.

    As the first process of a container it would ignore SIGTERM; under nohup it goes on ignoring SIGHUP.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    os.environ.setdefault(
        "PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL"
    )  # of the temporary server, which ends with the run
    SubprocessASGIServer._run_uvicorn_command = _begun_apart  # type: ignore[method-assign, assignment]


_begun = SubprocessASGIServer._run_uvicorn_command


def _begun_apart(server: SubprocessASGIServer) -> "subprocess.Popen[Any]":
    """Prefect's temporary server, in a group of its own: it has to be there still when the flow tells how it ended."""
    ordinary = subprocess.Popen
    subprocess.Popen = partial(ordinary, process_group=0)  # type: ignore[assignment, misc]
    try:
        return _begun(server)
    finally:
        subprocess.Popen = ordinary  # type: ignore[misc]
