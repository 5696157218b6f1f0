"""Records of runs that ended before they began, so that the warehouse shows them. Knows no Prefect and no stream."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from klaviyo_pg.errors import Busy, DatabaseUnusable, KlaviyoPgError, Stopped
from klaviyo_pg.postgres.connect import connect
from klaviyo_pg.postgres.ledgers import run_ledger
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings
from pipeline.outcome import Tally

_NOT_RECORDED = (Busy, Stopped, DatabaseUnusable)
_LONGEST_WAIT = "2s"  # for a lock: the error that ended the run should be reported soon


@contextmanager
def recorded(settings: Settings, flow: str) -> Iterator[None]:
    """Record an error that ends a run of a flow before it begins, as `record` does, and raise it."""
    try:
        yield
    except KlaviyoPgError as error:
        record(settings, flow, error)
        raise


def record(settings: Settings, flow: str, error: KlaviyoPgError) -> None:
    """Record that an error ended a run of a flow before it began, if the warehouse can record it.

    Another run in progress, a stop, and a database that cannot be used are not recorded. Neither is a run of an account
    that the warehouse does not have, or that is being removed.
    """
    if isinstance(error, _NOT_RECORDED):
        return
    with suppress(KlaviyoPgError, psycopg.Error):
        _record(settings, flow, error)


def _record(settings: Settings, flow: str, error: KlaviyoPgError) -> None:
    settings.check_warehouse()
    if settings.database_url is None and not embedded.exists(settings.data_dir):
        return
    tally = Tally()
    tally.end_with(error)
    schema, name = settings.warehouse_schema, settings.klaviyo_integration
    with connect(embedded.warehouse_url(settings), schema) as connection:
        connection.execute("SELECT set_config('lock_timeout', %s, true)", [_LONGEST_WAIT])
        run_ledger.add_refused(connection, schema, name, flow, tally.state, str(error))
