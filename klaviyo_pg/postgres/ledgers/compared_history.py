"""The record of when history was last compared with the source's counts. The caller owns the transaction."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.states import CountState
from klaviyo_pg.windows import Window


class ComparedHistory(NamedTuple):
    """A window of a metric's history that has been compared, or that the source could not count."""

    metric_id: str
    window: Window
    state: CountState
    checked_at: datetime


def compared(account: Account) -> list[ComparedHistory]:
    """Return what has been compared, ordered by metric and time."""
    rows = account.execute(
        "SELECT metric_id, window_start, window_end, state, checked_at FROM {} WHERE esp_integration_id = %(account)s"
        " ORDER BY metric_id, window_start",
        bookkeeping.RECONCILED_HISTORY,
    )
    return [
        ComparedHistory(metric_id, Window(start.astimezone(UTC), end.astimezone(UTC)), CountState(state), at)
        for metric_id, start, end, state, at in rows
    ]


def write(account: Account, period: Window, rows: Sequence[ComparedHistory]) -> None:
    """Record comparisons of windows in a period, in place of what is recorded of these metrics in the period."""
    account.execute(
        "DELETE FROM {} WHERE esp_integration_id = %(account)s AND metric_id = ANY(%(metric_ids)s)"
        " AND window_start < %(end)s AND window_end > %(start)s",
        bookkeeping.RECONCILED_HISTORY,
        metric_ids=_metric_ids(rows),
        start=period.start,
        end=period.end,
    )
    account.execute_many(
        "INSERT INTO {} (esp_integration_id, metric_id, window_start, window_end, state, checked_at)"
        " VALUES (%(account)s, %(metric_id)s, %(start)s, %(end)s, %(state)s, %(checked_at)s)",
        ({**row._asdict(), "start": row.window.start, "end": row.window.end} for row in rows),
        bookkeeping.RECONCILED_HISTORY,
    )


def _metric_ids(rows: Iterable[ComparedHistory]) -> list[str]:
    return sorted({row.metric_id for row in rows})
