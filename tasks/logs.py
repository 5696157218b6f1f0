"""Set-up of Prefect's loggers: no tracebacks of expected errors, no warnings about Prefect's own queues."""

import logging
from typing import TYPE_CHECKING

from klaviyo_pg.errors import KlaviyoPgError

if TYPE_CHECKING:
    from rich.console import Console

_LOGGERS = ("prefect.task_runs", "prefect.flow_runs")
_QUEUES = ("EventsWorker", "APILogWorker")  # they warn at exit that they still have something to send

_COUNTED = ("stamina",)  # what it retries is counted in the run's retries


class ExpectedErrors(logging.Filter):
    """Removes the traceback from records of this project's own errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], KlaviyoPgError):
            record.exc_info = None
        return True


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
