"""The program of Prefect's temporary server, which lives as long as the command that started it. Knows no flow.

It serves the API without the UI on a socket that it inherits, and ends when its standard input reaches end of file:
the operating system closes the other end of that pipe however the command ends.
"""

import gc
import os
import socket
import sys
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn

BATCHED_TASK_RUNS = MappingProxyType(
    {
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    }
)
"""Settings with which a Prefect server stores task runs in batches instead of one by one."""
ENVIRONMENT = MappingProxyType(
    {
        **BATCHED_TASK_RUNS,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # Only automations need these; runs and task runs are recorded without them.
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
        # These shorten the imports by half a second.
        "PY_KEY_VALUE_DISABLE_BEARTYPE": "true",
        "PYDANTIC_DISABLE_PLUGINS": "true",
    }
)
"""Settings of a temporary server that differ from Prefect's defaults."""
_GRACE_SECONDS = 5  # for requests in progress, when the server ends


def main(listener: socket.socket) -> None:
    """Serve Prefect's API on a socket until standard input reaches end of file."""
    started: list[uvicorn.Server] = []
    threading.Thread(target=_stop_at_end_of_file, args=[started], daemon=True).start()
    started.append(_server())
    started[0].run(sockets=[listener])


def _server() -> "uvicorn.Server":
    gc.disable()  # the imports make many objects that stay, and looking through them takes a tenth of their time
    import uvicorn
    from prefect.server.api.server import create_app

    application = create_app(ephemeral=True)
    gc.freeze()
    gc.enable()
    return uvicorn.Server(uvicorn.Config(application, log_level="error", timeout_graceful_shutdown=_GRACE_SECONDS))


def _stop_at_end_of_file(started: "list[uvicorn.Server]") -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    if not (started and started[0].started):
        os._exit(0)
    started[0].should_exit = True


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
