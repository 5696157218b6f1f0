"""Logs that hold what a reader can use: no tracebacks of errors that are no surprise, nothing of Prefect's queues."""

import logging

from klaviyo_pg.errors import KlaviyoPgError

_LOGGERS = ("prefect.task_runs", "prefect.flow_runs")
_QUEUES = ("EventsWorker", "APILogWorker")  # tell, after the last word of a run, that they have something left to send


class ExpectedErrors(logging.Filter):
    """Takes the traceback off a record that tells of one of this project's own errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], KlaviyoPgError):
            record.exc_info = None
        return True


def quiet() -> None:
    """Set up Prefect's loggers, once."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, ExpectedErrors) for known in logger.filters):
            logger.addFilter(ExpectedErrors())
    for name in _QUEUES:
        logging.getLogger(name).setLevel(logging.ERROR)
