"""Logs without tracebacks for errors that are no surprise: their sentence says all there is to do."""

import logging

from klaviyo_pg.errors import KlaviyoPgError

_LOGGERS = ("prefect.task_runs", "prefect.flow_runs")


class ExpectedErrors(logging.Filter):
    """Takes the traceback off a record that tells of one of this project's own errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], KlaviyoPgError):
            record.exc_info = None
        return True


def quiet() -> None:
    """Put the filter on Prefect's loggers, once."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, ExpectedErrors) for known in logger.filters):
            logger.addFilter(ExpectedErrors())
