"""What a terminal does to a command: Ctrl-C goes to every process of its group, and closing it hangs them all up."""

import signal
import subprocess
from functools import partial
from typing import Any

from prefect.settings import PREFECT_HOME


def prepare() -> None:
    """Let this process alone decide what a signal means, and let SIGTERM and a closed terminal mean what Ctrl-C does.

    As the first process of a container it would ignore SIGTERM; under nohup it goes on ignoring SIGHUP.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def keep_server_apart() -> None:
    """Let Prefect's temporary server have a group of its own: it has to be there still when a flow tells how it ended.

    What it has to say, as tracebacks of what it is interrupted in at its end, goes to a file in PREFECT_HOME. Importing
    that server takes seconds, which only a command that starts one has to spend.
    """
    from prefect.server.api.server import SubprocessASGIServer

    begin = SubprocessASGIServer._run_uvicorn_command
    home = PREFECT_HOME.value()

    def begin_apart(server: SubprocessASGIServer) -> "subprocess.Popen[Any]":
        home.mkdir(parents=True, exist_ok=True)
        ordinary = subprocess.Popen
        with (home / "temporary-server.log").open("wb") as log:
            subprocess.Popen = partial(ordinary, process_group=0, stdout=log, stderr=log)  # type: ignore[assignment, misc]
            try:
                return begin(server)
            finally:
                subprocess.Popen = ordinary  # type: ignore[misc]

    SubprocessASGIServer._run_uvicorn_command = begin_apart  # type: ignore[method-assign, assignment]
