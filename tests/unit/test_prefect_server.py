"""Which Prefect server a command uses, without Prefect being imported."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prefect
import pytest
from pydantic import SecretStr

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.settings import Settings
from tasks.server import ExistingServer, TemporaryServer, _background_url, find_or_start
from tasks.temporary_server import _setup

URL = "http://127.0.0.1:9/api"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a current folder for Prefect without any configuration."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        pytest.param(".env", f"KLAVIYO_API_KEY=x\nPREFECT_API_URL='{URL}'\n", id=".env"),
        pytest.param("prefect.toml", f'[api]\nurl = "{URL}"\n', id="prefect.toml"),
        pytest.param("pyproject.toml", f'[tool.prefect.api]\nurl = "{URL}"\n', id="pyproject.toml"),
        pytest.param(
            "home/profiles.toml", f'active = "own"\n[profiles.own]\nPREFECT_API_URL = "{URL}"\n', id="active profile"
        ),
    ],
)
def test_a_configured_server_is_used(file: str, text: str) -> None:
    """A server that is configured in a file that Prefect reads is left to Prefect."""
    Path(file).write_text(text)
    assert find_or_start().url == URL
    assert "PREFECT_API_URL" not in os.environ


def test_a_server_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in the environment is used as it is."""
    monkeypatch.setenv("PREFECT_API_URL", URL)
    assert find_or_start().url == URL
    assert os.environ["PREFECT_API_URL"] == URL


@pytest.mark.parametrize(
    ("file", "text"),
    [
        pytest.param("pyproject.toml", '[tool.prefect.deployments]\ndefault_work_pool_name = "x"\n', id="other table"),
        pytest.param("home/profiles.toml", f'[profiles.own]\nPREFECT_API_URL = "{URL}"\n', id="inactive profile"),
        pytest.param("home/profiles.toml", "active = ", id="malformed profiles"),
        pytest.param(".env", "PREFECT_API_URL=\n", id="blank"),
    ],
)
def test_without_a_configured_server_one_is_started(
    file: str, text: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """If no server is configured, a temporary one starts, and the environment names it."""
    Path(file).write_text(text)
    monkeypatch.setattr(TemporaryServer, "_start", lambda self, listener: None)
    monkeypatch.setattr("atexit.register", lambda function: None)
    for name in ("PREFECT_API_URL", "PREFECT_UI_URL", "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"):
        monkeypatch.setenv(name, "")
    server = find_or_start()
    assert isinstance(server, TemporaryServer)
    assert os.environ["PREFECT_API_URL"] == server.url


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server that is healthy."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_temporary_server_gets_no_secrets(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """It needs neither the API key nor the password nor the salt. Every secret setting is left out."""
    started: list[dict[str, str]] = []
    monkeypatch.setattr("subprocess.Popen", lambda *arguments, env, **others: started.append(env))
    monkeypatch.setattr("atexit.register", lambda function: None)
    secret = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert {"klaviyo_api_key", "database_url", "personal_data_salt"} <= set(secret)
    for name in ("pgpassword", *secret):
        monkeypatch.setenv(name.upper(), "hunter2")
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("OTHER", "kept")
    TemporaryServer(home)
    assert "hunter2" not in started[0].values()
    assert started[0]["OTHER"] == "kept"


def test_a_server_in_the_background_is_found(port: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that `prefect server start --background` left its process ID of is used if it answers."""
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", str(port))
    assert _background_url(home) is None
    (home / "server.pid").write_text("4194304000")
    assert _background_url(home) is None, "the process has ended"
    (home / "server.pid").write_text(str(os.getpid()))
    assert _background_url(home) == f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "1")
    assert _background_url(home) is None, "nothing answers"


@pytest.mark.parametrize(
    ("url", "responds"),
    [
        pytest.param("http://127.0.0.1:{port}/api", True, id="local"),
        pytest.param("http://127.0.0.1:1/api", False, id="nothing listens"),
        pytest.param("https://127.0.0.1:{port}/api", False, id="left to Prefect's client"),
        pytest.param("http://127.0.0.1:x/api", False, id="malformed"),
    ],
)
def test_a_local_server_is_checked_at_once(port: int, url: str, responds: bool) -> None:
    """A local server can be checked without Prefect's client."""
    assert ExistingServer(url.format(port=port)).responds is responds


def test_an_unwritable_home_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If PREFECT_HOME cannot be created, the error names it, and no server is started."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(BadSettings, match=r"Cannot write to PREFECT_HOME \(Not a directory: .*/file/home\)"):
        find_or_start()
    assert "PREFECT_API_URL" not in os.environ


def settings(home: Path, url: str) -> Any:
    """Return settings of Prefect, as far as a temporary server looks at them before it starts."""
    database = SimpleNamespace(connection_url=SecretStr(url))
    return SimpleNamespace(home=home, server=SimpleNamespace(database=database))


def test_the_setup_of_a_database_is_recognized(home: Path) -> None:
    """A temporary server recognizes the state of a SQLite file, and nothing else."""
    file = home / "prefect.db"
    sqlite = settings(home, f"sqlite+aiosqlite:///{file}")
    assert _setup(sqlite) is None, "there is no file"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        assert _setup(sqlite) is None, "it is empty"
        database.execute("INSERT INTO alembic_version VALUES ('abc')")
        database.commit()
    assert _setup(sqlite) == {"prefect": prefect.__version__, "database": str(file), "revision": "abc"}
    assert _setup(settings(home, "postgresql+asyncpg://user:secret@host/prefect")) is None
