"""The program of Prefect's temporary server, which lives as long as the command that started it. Knows no flow.

It serves the API without the UI on a socket that it inherits, and ends when its standard input reaches end of file:
the operating system closes the other end of that pipe however the command ends.
"""

import gc
import json
import os
import socket
import sqlite3
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn
    from prefect.settings import Settings

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
_SQLITE = "sqlite+aiosqlite:///"


def main(listener: socket.socket) -> None:
    """Serve Prefect's API on a socket until standard input reaches end of file."""
    started: list[uvicorn.Server] = []
    threading.Thread(target=_stop_at_end_of_file, args=[started], daemon=True).start()
    started.append(_server())
    started[0].run(sockets=[listener])
    if started[0].started:  # otherwise it did not get as far as serving
        _remember_setup()


def _server() -> "uvicorn.Server":
    gc.disable()  # the imports make many objects that stay, and looking through them takes a tenth of their time
    import uvicorn
    from prefect.server.api.server import create_app

    _skip_setup_if_done()
    application = create_app(ephemeral=True)
    gc.freeze()
    gc.enable()
    return uvicorn.Server(uvicorn.Config(application, log_level="error", timeout_graceful_shutdown=_GRACE_SECONDS))


def _skip_setup_if_done() -> None:
    """Skip migrations and the registration of blocks if an earlier server of this version has done both."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    with suppress(OSError, ValueError):
        if json.loads(_memory(settings).read_text()) == _setup(settings):
            settings.server.database.migrate_on_start = False
            settings.server.register_blocks_on_start = False
            settings.server.memoize_block_auto_registration = False


def _remember_setup() -> None:
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if setup := _setup(settings):
        with suppress(OSError):
            _memory(settings).write_text(json.dumps(setup))


def _memory(settings: "Settings") -> Path:
    return settings.home / "temporary-server.json"


def _setup(settings: "Settings") -> dict[str, str] | None:
    """Return the state of the database, and the version of Prefect that it is for; None if it is not a SQLite file."""
    from prefect import __version__

    url = settings.server.database.connection_url
    if url is None or not url.get_secret_value().startswith(_SQLITE):
        return None
    path = url.get_secret_value().removeprefix(_SQLITE)
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            [[revision]] = database.execute("SELECT version_num FROM alembic_version")
    except (sqlite3.Error, ValueError):
        return None
    return {"prefect": __version__, "database": path, "revision": revision}


def _stop_at_end_of_file(started: "list[uvicorn.Server]") -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    if not (started and started[0].started):
        os._exit(0)
    started[0].should_exit = True


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
