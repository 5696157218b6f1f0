"""Finds the Prefect server that a command uses, or starts a temporary one for as long as the command lasts.

Imports no Prefect, which takes seconds, so that the server starts while the command imports everything else. That is
why this module reads the sources of Prefect's settings itself.
"""

import atexit
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from klaviyo_pg.environment import without_secrets
from klaviyo_pg.errors import BadSettings
from tasks.temporary_server import ENVIRONMENT

_URL = "PREFECT_API_URL"
_PROGRAM = Path(__file__).with_name("temporary_server.py")
_HOST, _PORT = "127.0.0.1", 4200  # of `prefect server start`
_CLIENT = {
    "PREFECT_UI_URL": "",  # a temporary server has no UI
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",  # it is of the same version; the check takes half a second
}
_BACKLOG = 128  # connections that wait while the server starts
_START_SECONDS = 180  # on a slow machine, if the database has to be created
_STOP_SECONDS = 10
_ANSWER_SECONDS = 2.0


def find_or_start() -> "ExistingServer | TemporaryServer":
    """Use the configured server, one that runs in the background, or a temporary one: the first of these that exists.

    Call this before Prefect is imported: it may set PREFECT_API_URL in the environment, which Prefect reads then.
    Raises BadSettings if a temporary server is needed and PREFECT_HOME is not writable.
    """
    if url := _setting(_URL):
        return ExistingServer(url)
    home = _home()
    if url := _background_url(home):
        os.environ[_URL] = url
        return ExistingServer(url)
    server = TemporaryServer(home)
    os.environ |= {_URL: server.url, **_CLIENT}
    return server


class ExistingServer:
    """A Prefect server that runs independently of this process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def wait(self) -> None:
        """Return at once: the server is either running, or nothing that this process waits for."""

    @cached_property
    def responds(self) -> bool:
        """True if a quick check shows that the server responds. Only plain HTTP is checked: see `check_server`."""
        parts = urlsplit(self.url)
        with suppress(ValueError):  # raised if the port is not a number
            if parts.scheme == "http" and parts.hostname and parts.port:
                return _is_healthy(parts.hostname, parts.port, parts.path)
        return False


class TemporaryServer:
    """A Prefect server in a child process. It ends with this process, however that ends.

    It gets a separate process group, because Ctrl-C at the terminal must not stop it before the run is recorded.
    """

    responds = True
    """True, because `wait` returns only when the server responds."""

    def __init__(self, home: Path) -> None:
        self._log = home / "temporary-server.log"
        with socket.socket() as listener:
            listener.bind((_HOST, 0))
            listener.listen(_BACKLOG)
            self._port: int = listener.getsockname()[1]
            self._child = self._start(listener.fileno())
        # Prefect sends what is left of its logs at exit, and exit functions run in reverse order.
        atexit.register(self.stop)

    def _start(self, listener: int) -> "subprocess.Popen[bytes]":
        try:
            self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._log.write_bytes(b"")
            log = self._log.open("ab")  # appending, because two commands may share a home
        except OSError as error:
            raise BadSettings(
                f"Cannot write to PREFECT_HOME ({error.strerror}: {self._log.parent}). Set it to a writable folder."
            ) from None
        with log:
            return subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM), str(listener)],
                env={**ENVIRONMENT, **without_secrets(os.environ)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[listener],
                process_group=0,
            )

    @property
    def url(self) -> str:
        """The URL of the API."""
        return f"http://{_HOST}:{self._port}/api"

    def wait(self) -> None:
        """Wait until the server responds. Raises BadSettings if it ends instead, or takes too long."""
        until = monotonic() + _START_SECONDS
        while self._child.poll() is None and monotonic() < until:
            if _is_healthy(_HOST, self._port):
                return
        raise BadSettings(f"Prefect's temporary server did not start. See {self._log}.")

    def stop(self) -> None:
        """Stop the server, and wait until it has stored what it was sent."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(_STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._child.kill()
            self._child.wait()


def _background_url(home: Path) -> str | None:
    """Return the URL of the server that `prefect server start --background` started from this home, if it answers."""
    try:
        os.kill(int((home / "server.pid").read_text()), 0)
    except (OSError, ValueError, OverflowError):
        return None
    host = _setting("PREFECT_SERVER_API_HOST") or _HOST
    host = _HOST if host == "0.0.0.0" else host
    with suppress(ValueError):
        port = int(_setting("PREFECT_SERVER_API_PORT") or _PORT)
        if _is_healthy(host, port):
            return f"http://{host}:{port}/api"
    return None


def _is_healthy(host: str, port: int, path: str = "/api") -> bool:
    from http.client import HTTPConnection, HTTPException  # imported late, so that the server can start early

    connection = HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", f"{path}/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _home() -> Path:
    return Path(_setting("PREFECT_HOME") or "~/.prefect").expanduser()


def _setting(name: str) -> str | None:
    """Return a setting of Prefect, from the first of its sources that has it."""
    return next((str(value) for value in _values(name) if value), None)


def _values(name: str) -> Iterator[object]:
    keys = name.removeprefix("PREFECT_").lower().split("_")
    yield os.environ.get(name)
    yield _dotenv().get(name)
    yield _nested(_toml(Path("prefect.toml")), *keys)
    yield _nested(_toml(Path("pyproject.toml")), "tool", "prefect", *keys)
    yield _profile().get(name)


def _dotenv() -> dict[str, str | None]:
    path = Path(".env")
    if not path.is_file() or b"PREFECT_" not in path.read_bytes():
        return {}
    from dotenv import dotenv_values

    return dotenv_values(path)


def _profile() -> dict[str, Any]:
    """Return the settings of the active profile."""
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    stored = _toml(Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml"))
    active = os.environ.get("PREFECT_PROFILE") or stored.get("active", "")
    profile: dict[str, Any] = _nested(stored, "profiles", active) or {}
    return profile


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Prefect itself reports a file that is malformed
        return {}


def _nested(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
