"""Checks over the network before a run begins: the database, the account, and its names in both. Writes nothing.

A check that takes longer than a moment is left to the run, which is patient.
"""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from time import monotonic
from typing import Generic, TypeVar

from klaviyo_pg.errors import Garbled, Unavailable, Unreachable
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.connect import connect, tables_may_be_missing, translated
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings
from pipeline import checks
from pipeline.session import Session

_SECONDS = 1.5  # for all checks together

Result = TypeVar("Result")


def check_database_and_account(settings: Settings, flow: str | None) -> None:
    """Raise the error with which a run of the flow would be refused. Without a flow, the database is not used."""
    until = monotonic() + _SECONDS
    account_id = _Background(lambda: _account_id(settings))
    stored = _Background(lambda: _stored(settings, flow, account_id, until) if flow else ())
    metrics = stored.result(until) or ()
    account_id.result(until)
    _Background(lambda: checks.check_metric_names(_source(settings), settings, metrics)).result(until)


class _Background(Generic[Result]):
    """Some work in a thread that does not keep the process from ending."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._future: Future[Result] = Future()
        Thread(target=self._run, args=[work], daemon=True).start()

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:
            self._future.set_exception(error)

    def result(self, until: float) -> Result | None:
        """Return the result; None if it takes too long, or if the API is too busy to answer."""
        try:
            return self._future.result(max(0.0, until - monotonic()))
        except Unreachable:
            raise
        except (TimeoutError, Unavailable, Garbled):
            return None


def _source(settings: Settings) -> Source:
    return open_source(settings.model_copy(update={"request_attempts": 1}))


def _account_id(settings: Settings) -> str | None:
    return checks.fetch_account_id(_source(settings), settings, lambda warning: None)


def _stored(settings: Settings, flow: str, account_id: _Background[str | None], until: float) -> checks.KnownMetrics:
    """Check the database, and return the metrics that it has; none if the warehouse has no tables yet."""
    if settings.database_url is None and not embedded.is_running(settings.data_dir):
        return ()
    Session(settings).check_claims_work()
    with translated(), connect(embedded.warehouse_url(settings), settings.warehouse_schema) as connection:
        checks.check_writable(connection, settings)
        with tables_may_be_missing():
            checks.check_no_run_in_progress(connection, settings, flow)
            checks.check_registration(connection, settings, account_id.result(until))
            return checks.stored_metrics(connection, settings)
        return ()
