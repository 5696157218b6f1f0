"""Set-up of Prefect's loggers: no secrets, no tracebacks of expected errors, no warnings about Prefect's own queues."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.redaction import redacted

if TYPE_CHECKING:
    from rich.console import Console

_HANDLING = (None, "prefect", "prefect.flow_runs", "prefect.task_runs")  # the loggers that have handlers
_FORMATTER = logging.Formatter()
_LOGGERS = ("prefect.task_runs", "prefect.flow_runs")
_QUEUES = ("EventsWorker", "APILogWorker")  # they warn at exit that they still have something to send

_COUNTED = ("stamina",)  # what it retries is counted in the run's retries


class ExpectedErrors(logging.Filter):
    """Removes the traceback from records of this project's own errors."""

    def filter(self, record: logging.LogRecord) -> bool:
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


def quiet() -> None:
    """Set up Prefect's loggers, once."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, ExpectedErrors) for each in logger.filters):
            logger.addFilter(ExpectedErrors())
    for name in (*_QUEUES, *_COUNTED):
        logging.getLogger(name).setLevel(logging.ERROR)


def console() -> "Console | None":
    """Return the console that Prefect logs to; None if logging was set up in another way.

    A live display on this console stays below the log lines.
    """
    from prefect.logging.handlers import PrefectConsoleHandler

    handlers = logging.getLogger().handlers
    return next((each.console for each in handlers if isinstance(each, PrefectConsoleHandler)), None)
