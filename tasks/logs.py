"""Set-up of Prefect's loggers: no secrets, no tracebacks of expected errors, no warnings about Prefect's own queues."""

import json
import logging
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.redaction import redacted
from klaviyo_pg.settings import Settings, load_settings

if TYPE_CHECKING:
    from prefect.logging.handlers import PrefectConsoleHandler
    from rich.console import Console

_HANDLING = (None, "prefect", "prefect.flow_runs", "prefect.task_runs")  # the loggers that have handlers
_FORMATTER = logging.Formatter()
_LOGGERS = ("prefect.task_runs", "prefect.flow_runs")
_QUEUES = ("EventsWorker", "APILogWorker")  # they warn at exit that they still have something to send

_EXCEPTION = re.compile(r"exception:? (?:[\w.]*\.)?(\w+)[(:]")
_BRIDGING = ("stamina", "psycopg")  # they warn of lost connections, whose transactions are repeated


class ExpectedErrors(logging.Filter):
    """Removes the traceback from records of this project's own errors.

    What Prefect logs of a task that such an error has ended is dropped: the run's log or its result has the sentence.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("prefect.task_runs") and _is_expected(record.getMessage()):
            return False
        if record.exc_info and isinstance(record.exc_info[1], KlaviyoPgError):
            record.exc_info = None
        return True


class RedactedSecrets(logging.Filter):
    """Takes secrets out of records, whichever library logs them, and out of their tracebacks."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self.secrets = set(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (readable := redacted(message, self.secrets)) != message:
            record.msg, record.args = readable, ()
        if record.exc_info and record.exc_info[0]:
            record.exc_text = redacted(_FORMATTER.formatException(record.exc_info), self.secrets)
        return True


def hide(secrets: Iterable[str]) -> None:
    """Keep these secrets out of everything that is logged from now on."""
    secrets = list(secrets)
    for handler in {handler for name in _HANDLING for handler in logging.getLogger(name).handlers}:
        existing = next((each for each in handler.filters if isinstance(each, RedactedSecrets)), None)
        if existing is None:
            handler.addFilter(RedactedSecrets(secrets))
        else:
            existing.secrets.update(secrets)


def _is_expected(message: str) -> bool:
    found = _EXCEPTION.search(message)
    return found is not None and found[1] in _names(KlaviyoPgError)


def _names(error: type[Exception]) -> set[str]:
    return {error.__name__}.union(*map(_names, error.__subclasses__()))


class _NoResult(logging.Filter):
    """Drops the state with which a flow run has ended badly: a command prints the sentence as its last line."""

    def filter(self, record: logging.LogRecord) -> bool:
        is_result = record.name.startswith("prefect.flow_runs") and record.getMessage().startswith("Finished in state")
        return not (is_result and "Completed" not in record.getMessage())


class _NoFinishedTasks(logging.Filter):
    """Drops the state in which a task run has completed: the run itself logs what it has read."""

    def filter(self, record: logging.LogRecord) -> bool:
        is_task = record.name.startswith("prefect.task_runs")
        return not (is_task and record.getMessage().startswith("Finished in state Completed"))


class JsonLines(logging.Formatter):
    """Formats each record as one JSON object on one line: with the time in UTC, the account, and the run."""

    def __init__(self, account: str | None = None) -> None:
        super().__init__()
        self._account = account

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "account": self._account,
        }
        runs = {name: getattr(record, name, None) for name in ("flow_run_name", "task_run_name")}
        line |= {name: value for name, value in runs.items() if value}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(settings: Settings) -> None:
    """Show records in the format and from the level on that the settings name. Prefect's server gets all of them."""
    least = "warning" if settings.quiet and settings.log_level in ("debug", "info") else settings.log_level
    if least == "debug":
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.DEBUG)
    for handler in _console_handlers():
        if least != "debug" and not any(isinstance(each, _NoFinishedTasks) for each in handler.filters):
            handler.addFilter(_NoFinishedTasks())
        if least != "info":  # that is Prefect's default, which its own settings may have changed
            handler.setLevel(least.upper())
        if settings.log_format == "json":
            logging.getLogger().removeHandler(handler)
            logging.getLogger().addHandler(_as_json(handler))
    for each in logging.getLogger().handlers:  # also those of an earlier call, which did not know the account yet
        if isinstance(each.formatter, JsonLines):
            each.setFormatter(JsonLines(settings.klaviyo_integration))


def configure_early() -> None:
    """Show what Prefect logs before a flow begins as the environment wants it. The flow reports invalid settings."""
    with suppress(KlaviyoPgError):
        configure(load_settings())


def configure_command() -> None:
    """Show what Prefect logs as the environment wants it, without the result, which the command prints.

    Prefect's server still gets the record of the result.
    """
    for handler in _console_handlers():
        handler.addFilter(_NoResult())
    configure_early()  # may replace the handlers by others with the same filters


def _as_json(handler: logging.Handler) -> logging.Handler:
    """Return a handler that writes JSON to standard error, with the level and the filters of another one."""
    written = logging.StreamHandler(sys.stderr)
    written.setLevel(handler.level)
    written.setFormatter(JsonLines())
    for each in handler.filters:
        written.addFilter(each)
    return written


def quiet() -> None:
    """Set up Prefect's loggers, once."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, ExpectedErrors) for each in logger.filters):
            logger.addFilter(ExpectedErrors())
    for name in (*_QUEUES, *_BRIDGING):
        logging.getLogger(name).setLevel(logging.ERROR)


def console() -> "Console | None":
    """Return the console that Prefect logs to; None if logging was set up in another way.

    A live display on this console stays below the log lines.
    """
    return next((handler.console for handler in _console_handlers()), None)


def _console_handlers() -> "list[PrefectConsoleHandler]":
    handlers = sys.modules.get("prefect.logging.handlers")  # importing it takes seconds, and the server starts first
    if handlers is None:
        return []
    return [each for each in logging.getLogger().handlers if isinstance(each, handlers.PrefectConsoleHandler)]
