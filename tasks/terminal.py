"""What a terminal does to a command: Ctrl-C goes to every process of its group, and closing it hangs them all up."""

import os
import signal
import subprocess
from functools import partial
from typing import Any

from httpx import HTTPError
from prefect.settings import PREFECT_HOME

from klaviyo_pg.errors import BadSettings

TASK_RUNS_TOGETHER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
"""A Prefect server's environment in which it stores runs of tasks many at a time."""
_STARTS = 2  # of the temporary server: the port that was free may be taken by then


def prepare() -> None:
    """Let this process alone decide what a signal means, and let SIGTERM and a closed terminal mean what Ctrl-C does.

    As the first process of a container it would ignore SIGTERM; under nohup it goes on ignoring SIGHUP.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def start_server() -> None:
    """Start the temporary server that Prefect uses where PREFECT_API_URL is not set, in a group of its own.

    It has to be there still when a flow tells how it ended. What it has to say, as tracebacks of what its end
    interrupts, goes to a file in PREFECT_HOME. Raises BadSettings where it does not start. Importing it takes seconds,
    which only a command that needs it has to spend.
    """
    from prefect.server.api.server import SubprocessASGIServer

    for name, value in TASK_RUNS_TOGETHER.items():
        os.environ.setdefault(name, value)
    path = PREFECT_HOME.value() / "temporary-server.log"
    begin = SubprocessASGIServer._run_uvicorn_command
    begun: list[subprocess.Popen[Any]] = []

    def begin_apart(server: SubprocessASGIServer) -> "subprocess.Popen[Any]":
        if len(begun) == _STARTS:  # Prefect would go on for ever: it takes each failure for a port that is not free
            raise RuntimeError
        ordinary = subprocess.Popen
        with path.open("ab") as log:
            subprocess.Popen = partial(ordinary, process_group=0, stdout=log, stderr=log)  # type: ignore[assignment, misc]
            try:
                begun.append(begin(server))
            finally:
                subprocess.Popen = ordinary  # type: ignore[misc]
        return begun[-1]

    SubprocessASGIServer._run_uvicorn_command = begin_apart  # type: ignore[method-assign, assignment]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    except OSError as error:
        raise BadSettings(f"PREFECT_HOME: {path.parent} cannot be written to ({error.strerror}).") from None
    try:
        SubprocessASGIServer().start()  # the one instance, which Prefect finds running
    except (RuntimeError, OSError, HTTPError):
        raise BadSettings(f"Prefect's temporary server did not start; {path} says why.") from None
