"""Errors and log records by others that show a secret: what Prefect, the log and the terminal get of them."""

import io
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr

from klaviyo_pg.cli import terminal
from klaviyo_pg.environment import PROXIES
from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.settings import Settings
from pipeline.known_secrets import secrets_of
from pipeline.outcome import describe
from tasks import logs
from tasks.session import flow_session, task_session

PASSWORD = "p@SECret99/x"
SETTINGS = Settings(
    klaviyo_api_key=SecretStr("pk_SECret98"),
    database_url=SecretStr("postgresql://ann:p%40SECret99%2Fx@db/shop"),
    personal_data_salt=SecretStr("salt of SECret97 characters"),
)
SHOWN = "failed to resolve host 'SECret99', pk_SECret98, salt of SECret97 characters, p%40SECret99%2Fx"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *map(str.lower, PROXIES)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("session", [flow_session, task_session])
def test_an_error_that_shows_a_secret_does_not_reach_prefect(session: object) -> None:
    """An error of this project replaces it, and its traceback ends there."""
    with pytest.raises(KlaviyoPgError) as caught, session(SETTINGS):  # type: ignore[operator]
        raise OSError(SHOWN)
    assert str(caught.value) == "OSError: failed to resolve host '***', ***, ***, ***"
    assert caught.value.__suppress_context__


def test_the_secrets_of_the_settings_are_known() -> None:
    """A malformed URL has none, because no driver ever gets it."""
    assert secrets_of(SETTINGS) == ["pk_SECret98", "salt of SECret97 characters", PASSWORD]
    malformed = SETTINGS.model_copy(update={"database_url": SecretStr("postgresql://ann:a@b@db/shop")})
    assert secrets_of(malformed) == ["pk_SECret98", "salt of SECret97 characters"]


def test_passwords_of_proxies_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are in the URL, and as the proxy gets them. A proxy may be written without a scheme."""
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:p%40SECret96@proxy:3128")
    monkeypatch.setenv("all_proxy", "ben:SECret95@proxy")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert secrets_of(Settings()) == ["SECret95", "p%40SECret96", "p@SECret96"]


def test_an_error_without_secrets_is_left_alone() -> None:
    with pytest.raises(OSError, match=r"^nothing secret$"), task_session(SETTINGS):
        raise OSError("nothing secret")


def test_the_credentials_of_any_url_are_hidden() -> None:
    assert describe(OSError("GET https://ann:x@y@db/z failed")) == "OSError: GET https://***@db/z failed"


def test_log_records_show_no_secret() -> None:
    """Neither in the message nor in its arguments, nor in the traceback."""
    stream, logger = io.StringIO(), logging.getLogger("tests.confidential")
    handler = logging.StreamHandler(stream)
    handler.addFilter(logs.RedactedSecrets([PASSWORD, "pk_SECret98"]))
    logger.addHandler(handler)
    try:
        raise OSError(SHOWN)
    except OSError:
        logger.exception("It failed: %s and %s", PASSWORD, {"key": "pk_SECret98"})
    logger.removeHandler(handler)
    assert "It failed: *** and {'key': '***'}" in stream.getvalue()
    assert "SECret99" not in stream.getvalue() and "SECret98" not in stream.getvalue()


def test_secrets_of_a_later_run_are_hidden_too() -> None:
    """A process can run flows of several accounts, one after the other."""
    handler = logging.NullHandler()
    logging.getLogger("prefect").addHandler(handler)
    for secret in ("first", "second"):
        logs.hide([secret])
    logging.getLogger("prefect").removeHandler(handler)
    [redacting] = handler.filters
    assert isinstance(redacting, logs.RedactedSecrets) and redacting.secrets == {"first", "second"}


def test_an_unexpected_error_at_the_terminal_shows_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", "postgresql://ann:p%40SECret99%2Fx@db/shop")

    def fail() -> int:
        raise OSError(f"no route to {PASSWORD}")

    with pytest.raises(SystemExit, match="1"):
        terminal.run(fail)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and shown.endswith("OSError: no route to ***\n")
