"""The log as the settings want it: JSON on each line, and the least level that is shown."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from klaviyo_pg.cli.output import json_line
from klaviyo_pg.settings import Settings
from tasks import logs

SECRET = "pk_0123456789abcdef"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger with Prefect's console handler and nothing else, as in a command."""
    logger, before = logging.getLogger(), list(logging.getLogger().handlers)
    logger.handlers = [PrefectConsoleHandler()]
    yield logger
    logger.handlers = before


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines of JSON on standard error."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_each_record_is_a_line_of_json(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks and tracebacks stay within the line, account and run are named, and secrets are taken out."""
    logs.configure(Settings(log_format="json", klaviyo_integration="other"))
    logs.configure(Settings(log_format="json", klaviyo_integration="shop"))  # once the flow knows its account
    logs.hide([SECRET])
    log = logging.getLogger("tests.logs")
    log.warning("two\nlines %s", SECRET, extra={"flow_run_name": "daily · shop"})
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("failed")
    first, second = lines(capsys)
    assert first["message"] == "two\nlines ***" and first["level"] == "warning" and first["time"].endswith("+00:00")
    assert first["flow_run_name"] == "daily · shop" and "task_run_name" not in first
    assert "ValueError: ***" in second["exception"]
    assert first["account"] == second["account"] == "shop"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"log_level": "warning"}, ["warning", "error"]),
        ({"log_level": "ERROR"}, ["error"]),
        ({"quiet": True}, ["warning", "error"]),
        ({"quiet": True, "log_level": "error"}, ["error"]),
    ],
)
def test_less_important_lines_are_left_out(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], changes: dict[str, object], shown: list[str]
) -> None:
    logs.configure(Settings(log_format="json", **changes))  # type: ignore[arg-type]
    log = logging.getLogger("tests.logs")
    log.setLevel(logging.DEBUG)
    for write in (log.debug, log.info, log.warning, log.error):
        write("event")
    assert [line["level"] for line in lines(capsys)] == shown


def test_a_command_leaves_the_result_of_a_run_out_of_its_log(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints the result itself, as JSON too."""
    monkeypatch.setenv("LOG_FORMAT", "json")
    logs.configure_command()
    log = logging.getLogger("prefect.flow_runs.tests")
    monkeypatch.setattr(log, "parent", root)  # without the handler that sends records to a server
    log.error("Finished in state Failed('shop: the key is wrong')")
    log.error("shop: sends failed")
    assert [line["message"] for line in lines(capsys)] == ["shop: sends failed"]


@pytest.mark.parametrize(
    ("level", "shown"), [("info", ["a retry"]), ("debug", ["Finished in state Completed()", "a retry"])]
)
def test_a_task_that_completes_is_not_logged_twice(
    root: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    shown: list[str],
) -> None:
    """The run logs what it has read. Prefect's server gets the record."""
    logs.configure(Settings(log_format="json", log_level=level))
    log = logging.getLogger("prefect.task_runs.tests")
    monkeypatch.setattr(log, "parent", root)
    log.setLevel(logging.INFO)
    log.info("Finished in state Completed()")
    log.info("a retry")
    assert [line["message"] for line in lines(capsys)] == shown


def test_a_result_is_a_line_of_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    json_line("info", "shop: complete", {"rows": {"sends": {"inserted": 3}}})
    line = json.loads(capsys.readouterr().out)
    assert line["message"] == "shop: complete" and line["rows"] == {"sends": {"inserted": 3}}
    assert list(line)[:4] == ["time", "level", "logger", "message"]
