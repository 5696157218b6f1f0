"""Comparisons of stored events with the source's counts, and the queries that they need. The caller owns the
transaction.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from psycopg.sql import SQL, Identifier

from klaviyo_pg.catalogue import bookkeeping, dimensions, events
from klaviyo_pg.grouping import grouped
from klaviyo_pg.postgres import claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import of_all_events, row_key
from klaviyo_pg.states import ChunkState, CountState
from klaviyo_pg.windows import DAY, Window, merged

# Postgres takes every metric for one that a table of few metrics has, and would read the table to find no event of it.
_SCANS = "SELECT set_config('enable_seqscan', %(scans)s, true)"

Key = tuple[str, datetime, datetime]
"""The metric, start and end of a comparison."""


class Comparison(NamedTuple):
    """The events of a metric in a day or hour, by both counts. `source_events` is None if the source has no count."""

    metric_id: str
    window_start: datetime
    window_end: datetime
    source_events: int | None
    warehouse_events: int
    state: CountState
    reread_at: datetime | None = None

    @property
    def key(self) -> Key:
        """The metric and the window that are compared."""
        return self.metric_id, self.window_start, self.window_end

    @property
    def difference(self) -> int | None:
        """Stored minus counted events: negative if some are missing."""
        return None if self.source_events is None else self.warehouse_events - self.source_events

    def equals_counts_of(self, other: "Comparison | None") -> bool:
        """Return True if another comparison of the same window found the same two counts."""
        if other is None or self.key != other.key:
            return False
        return (self.source_events, self.warehouse_events) == (other.source_events, other.warehouse_events)


class LastCheck(NamedTuple):
    """When a metric was last checked, and when it was last counted (UTC); None if it never was."""

    at: datetime
    counted_at: datetime | None


def stored(
    account: Account, metric_ids: Collection[str], window: Window, step: timedelta
) -> dict[str, dict[datetime, int]]:
    """Return the number of stored events by metric and start of the hour or day (UTC), over all event tables."""
    counted = (
        "SELECT metric_key, date_trunc(%(unit)s, event_at, 'UTC') AS at, count(*) AS events FROM {}"
        " WHERE metric_key = ANY(%(keys)s) AND event_at >= %(start)s AND event_at < %(end)s GROUP BY 1, 2"
    )
    query = account.compose(
        "SELECT metric.id, at, sum(events) FROM ({counted}) AS counted"
        " JOIN {} AS metric ON metric.key = counted.metric_key GROUP BY 1, 2",
        dimensions.METRICS,
        counted=of_all_events(account.schema, counted),
    )
    unit = "hour" if step < DAY else "day"
    keys = _metric_keys(account, metric_ids)
    counts: dict[str, dict[datetime, int]] = defaultdict(dict)
    for metric_id, at, number in account.execute(query, unit=unit, keys=keys, start=window.start, end=window.end):
        counts[metric_id][at.astimezone(UTC)] = int(number)
    return counts


def stored_events(account: Account, metric_id: str, window: Window) -> int:
    """Return the number of stored events of a metric in a window."""
    by_metric = stored(account, [metric_id], window, DAY)
    return sum(number for days in by_metric.values() for number in days.values())


def active_metrics(account: Account, window: Window) -> set[str]:
    """Return the metrics that have stored events in a window, or whose counts differ."""
    has_events = SQL(
        "EXISTS (SELECT FROM {} WHERE metric_key = metric.key AND event_at >= %(start)s AND event_at < %(end)s)"
    )
    query = account.compose(
        "SELECT id FROM {} AS metric WHERE esp_integration_id = %(account)s AND ({has_events})"
        " UNION SELECT metric_id FROM {} WHERE esp_integration_id = %(account)s AND state = %(differs)s"
        " AND window_end > %(start)s",
        dimensions.METRICS,
        bookkeeping.RECONCILIATION,
        has_events=SQL(" OR ").join(has_events.format(account.table(table)) for table in events.EVENT_TABLES),
    )
    values = {"start": window.start, "end": window.end, "differs": CountState.DIFFERS}
    account.execute(_SCANS, scans="off")
    found = account.column(query, **values)
    account.execute(_SCANS, scans="on")
    return set(found)


def last_checks(account: Account) -> dict[str, LastCheck]:
    """Return when each metric was last checked up to the present, and when it was last counted then."""
    return {
        metric_id: LastCheck(at.astimezone(UTC), counted_at and counted_at.astimezone(UTC))
        for metric_id, at, counted_at in account.execute(
            "SELECT metric_id, max(greatest(checked_at, uncounted_at)),"
            " max(checked_at) FILTER (WHERE state <> %(uncounted)s) FROM {}"
            " WHERE esp_integration_id = %(account)s AND checked_at < window_end + interval '2 days' GROUP BY 1",
            bookkeeping.RECONCILIATION,
            uncounted=CountState.UNCOUNTED,
        )
    }


def _metric_keys(account: Account, metric_ids: Collection[str]) -> list[str]:
    query = account.compose("SELECT {key} FROM unnest(%(ids)s::text[]) AS id", key=row_key(Identifier("id")))
    return account.column(query, ids=list(metric_ids))


def loaded_windows(account: Account, since: datetime) -> dict[str, list[Window]]:
    """Return the windows that have been read of each metric: up to its watermark, and by a backfill.

    What lies before `since` is left out, because it is not kept.
    """
    query = (
        "SELECT subject, since, watermark FROM {} WHERE esp_integration_id = %(account)s"
        " AND table_name = ANY(%(event_tables)s) AND subject IS NOT NULL AND since < watermark UNION ALL"
        " SELECT metric_id, window_start, CASE state WHEN %(done)s THEN window_end ELSE reached END FROM {}"
        " WHERE esp_integration_id = %(account)s AND (state = %(done)s OR reached > window_start)"
    )
    tables = bookkeeping.WATERMARKS, bookkeeping.BACKFILL_CHUNKS
    values = {"event_tables": [table.name for table in events.EVENT_TABLES], "done": ChunkState.DONE}
    return grouped(
        (metric_id, Window(max(start, since).astimezone(UTC), end.astimezone(UTC)))
        for metric_id, start, end in account.execute(query, *tables, **values)
        if end > since
    )


def forget_before(account: Account, since: datetime) -> None:
    """Forget that anything before a time has been compared, because it is not kept."""
    for table in (bookkeeping.RECONCILIATION, bookkeeping.RECONCILED_HISTORY):
        earlier = "DELETE FROM {} WHERE esp_integration_id = %(account)s AND window_end <= %(since)s"
        account.execute(earlier, table, since=since)
    account.execute(
        "UPDATE {} SET window_start = %(since)s WHERE esp_integration_id = %(account)s AND window_start < %(since)s",
        bookkeeping.RECONCILED_HISTORY,
        since=since,
    )


def comparisons(account: Account, window: Window) -> Mapping[Key, Comparison]:
    """Return the comparisons that overlap a window."""
    rows = account.execute(
        "SELECT metric_id, window_start, window_end, source_events, warehouse_events, state, read_again_at FROM {}"
        " WHERE esp_integration_id = %(account)s AND window_start < %(end)s AND window_end > %(start)s",
        bookkeeping.RECONCILIATION,
        start=window.start,
        end=window.end,
    )
    return {comparison.key: comparison for comparison in (_comparison(*row) for row in rows)}


def differences(account: Account) -> list[Comparison]:
    """Return the days that differ, ordered by metric and time. The hours of a day that differ are left out."""
    rows = account.execute(
        "SELECT metric_id, window_start, window_end, source_events, warehouse_events, state, read_again_at"
        " FROM {} AS checked WHERE esp_integration_id = %(account)s AND state = %(differs)s AND NOT EXISTS ("
        "SELECT FROM {} AS day WHERE day.esp_integration_id = %(account)s AND day.metric_id = checked.metric_id"
        " AND day.window_start BETWEEN date_trunc('day', checked.window_start, 'UTC') AND checked.window_start"
        " AND day.window_end >= checked.window_end"
        " AND (day.window_start, day.window_end) <> (checked.window_start, checked.window_end))"
        " ORDER BY metric_id, window_start",
        bookkeeping.RECONCILIATION,
        bookkeeping.RECONCILIATION,
        differs=CountState.DIFFERS,
    )
    return [_comparison(*row) for row in rows]


def _comparison(
    metric_id: str,
    start: datetime,
    end: datetime,
    source: int | None,
    warehouse: int,
    state: str,
    reread_at: datetime | None,
) -> Comparison:
    window = start.astimezone(UTC), end.astimezone(UTC)
    return Comparison(metric_id, *window, source, warehouse, CountState(state), reread_at)


def counted_metrics(account: Account) -> set[str]:
    """Return the metrics that the source was able to count in their latest comparison."""
    metric_ids = account.column(
        "SELECT metric_id FROM {} WHERE esp_integration_id = %(account)s GROUP BY metric_id"
        " HAVING max(checked_at) FILTER (WHERE state <> %(uncounted)s) > coalesce("
        "max(greatest(uncounted_at, CASE WHEN state = %(uncounted)s THEN checked_at END)), '-infinity')",
        bookkeeping.RECONCILIATION,
        uncounted=CountState.UNCOUNTED,
    )
    return set(metric_ids)


def write(
    account: Account,
    comparisons: Sequence[Comparison],
    before: Mapping[Key, Comparison],
    checked_at: datetime,
    only_differences: bool = False,
    uncounted: Collection[Key] = (),
) -> None:
    """Store comparisons, or those of them that differ, in place of all earlier ones that overlap any of them.

    `before` are the stored ones. Those that have not changed are left alone, except the latest of each metric, which
    has the time of the check. `uncounted` are stored ones that the source could not count now: they keep what is known.
    Runs of several flows can check counts at the same time, and take turns here.
    """
    claims.take_turns(account, "comparisons")
    unchanged = _unchanged(comparisons, before, uncounted)
    account.execute_many(
        "DELETE FROM {} WHERE esp_integration_id = %(account)s AND metric_id = %(metric_id)s"
        " AND window_start < %(end)s AND window_end > %(start)s AND (window_start, window_end) NOT IN"
        " (SELECT kept.* FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS kept)",
        (
            {
                "metric_id": metric_id,
                "start": start,
                "end": end,
                "starts": [since for _, since, _ in unchanged.get(metric_id, ())],
                "ends": [until for _, _, until in unchanged.get(metric_id, ())],
            }
            for metric_id, start, end in _spans(comparisons)
        ),
        bookkeeping.RECONCILIATION,
    )
    account.execute_many(
        "INSERT INTO {} (esp_integration_id, metric_id, window_start, window_end, source_events, warehouse_events,"
        " difference, state, checked_at, read_again_at)"
        " VALUES (%(account)s, %(metric_id)s, %(window_start)s, %(window_end)s, %(source_events)s,"
        " %(warehouse_events)s, %(difference)s, %(state)s, %(checked_at)s, %(reread_at)s)",
        (
            {**each._asdict(), "difference": each.difference, "checked_at": checked_at}
            for each in comparisons
            if (each.state is CountState.DIFFERS or not only_differences)
            and each.key not in unchanged.get(each.metric_id, ())
        ),
        bookkeeping.RECONCILIATION,
    )
    account.execute_many(
        "UPDATE {} SET uncounted_at = %(checked_at)s WHERE esp_integration_id = %(account)s"
        " AND (metric_id, window_start, window_end) = (%(metric_id)s, %(start)s, %(end)s)",
        (
            {"metric_id": metric_id, "start": start, "end": end, "checked_at": checked_at}
            for metric_id, start, end in uncounted
        ),
        bookkeeping.RECONCILIATION,
    )


def _unchanged(
    comparisons: Iterable[Comparison], before: Mapping[Key, Comparison], uncounted: Collection[Key]
) -> Mapping[str, set[Key]]:
    """Return the comparisons to leave alone, by metric: not the latest of each metric, unless it was not counted."""
    latest = {each.metric_id: each.key for each in sorted(comparisons, key=lambda each: each.key)}
    unchanged: dict[str, set[Key]] = defaultdict(set)
    for each in comparisons:
        if each.key in uncounted or (before.get(each.key) == each and latest[each.metric_id] != each.key):
            unchanged[each.metric_id].add(each.key)
    return unchanged


def _spans(comparisons: Iterable[Comparison]) -> list[Key]:
    """Return the periods that the comparisons cover, with adjoining ones joined."""
    windows = grouped((each.metric_id, Window(each.window_start, each.window_end)) for each in comparisons)
    return [(metric_id, *window) for metric_id in sorted(windows) for window in merged(windows[metric_id])]
