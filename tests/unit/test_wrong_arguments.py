"""Wrong settings and arguments that a command notices by itself, before it needs a server or an account."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from klaviyo_pg.cli import main
from klaviyo_pg.settings import Settings

CONFIGURED = {
    "KLAVIYO_API_KEY": "pk_none",
    "DATABASE_URL": "postgresql://127.0.0.1:9/none",
    "PREFECT_API_URL": "http://127.0.0.1:9/api",  # so that no temporary server is started
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in CONFIGURED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test whose command gets as far as looking for a Prefect server."""

    def start() -> None:
        raise AssertionError("The command was not refused.")

    monkeypatch.setattr("klaviyo_pg.cli.startup.find_or_start", start)


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that a command replaces."""
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in usual.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        pytest.param({"KLAVIYO_API_KEY": ""}, [], "Set KLAVIYO_API_KEY", id="no key"),
        pytest.param({"KLAVIYO_DIALECT": "graphql"}, [], "KLAVIYO_DIALECT", id="unknown dialect"),
        pytest.param({"KLAVIYO_BASE_URL": "http://example.com"}, [], "https://", id="plain http to elsewhere"),
        pytest.param({"DATABASE_URL": "mysql://localhost/x"}, [], "postgresql://", id="not a Postgres"),
        pytest.param({"LOOKBACK_DAYS": "a week"}, [], "LOOKBACK_DAYS", id="not a number"),
        pytest.param({}, ["--tables", "send"], "There is no table send", id="a table that does not exist"),
        pytest.param({}, ["--since", "tomorrow"], "--since tomorrow", id="not a date"),
        pytest.param({"METRICS": "["}, [], "METRICS", id="malformed JSON"),
        pytest.param({"DATABASE_URL": ""}, [], "EMBEDDED_POSTGRES", id="a real account, and no database"),
        pytest.param({}, [], "Cannot connect to the database", id="no database"),
        pytest.param({}, ["--tab", "sends"], "--tab", id="an abbreviated flag"),
        pytest.param({}, ["--frobnicate"], "--help", id="an unknown flag"),
    ],
)
def test_a_wrong_setting_or_flag_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    arguments: list[str],
    message: str,
) -> None:
    """A wrong setting or flag ends the command with exit code 2 and one line that names it."""
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        main("daily", arguments)
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert line.endswith((".", "?"))


@pytest.mark.parametrize(
    ("setting", "arguments", "message"),
    [
        pytest.param("30", ["--days", "99999"], "--days: Input should be less than", id="argument out of range"),
        pytest.param("30", ["--integration", ""], "--integration: String should have", id="empty name"),
        pytest.param("30", ["--days", "0"], "--days is 0, so there is nothing to compare", id="argument"),
        pytest.param("0", [], "RECONCILE_DAYS is 0, so there is nothing to compare", id="setting"),
    ],
)
def test_wrong_days_and_names_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    arguments: list[str],
    message: str,
) -> None:
    """Before the run begins, so that no failed run is recorded. The error names what the user has set."""
    monkeypatch.setenv("RECONCILE_DAYS", setting)
    with pytest.raises(SystemExit, match="2"):
        main("reconcile", arguments)
    assert message in capsys.readouterr().err
