"""Counting what is stored, and keeping what comparing with the source gave. The caller owns the transaction."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from klaviyo_pg.catalogue import bookkeeping, dimensions, events
from klaviyo_pg.postgres.statements import ESP_SOURCE
from klaviyo_pg.reconciliation import UNCOUNTED, Compared, Known, key
from klaviyo_pg.windows import Window

_STREAM = "events/"
_COLUMNS = (
    "metric_id, window_start, window_end, source_events, warehouse_events, difference, state, checked_at, read_again_at"
)


def _sql(schema: str, query: str) -> Composed:
    return SQL(query).format(Identifier(schema, bookkeeping.RECONCILIATION.name))


def stored(
    connection: Connection,
    schema: str,
    integration_id: str,
    metric_ids: Collection[str],
    window: Window,
    step: timedelta,
) -> dict[str, dict[datetime, int]]:
    """How many events of each metric are stored: metric -> start of an hour or day (UTC) -> events, in all tables."""
    unit = "hour" if step < timedelta(days=1) else "day"
    one = SQL(
        "SELECT metric_key, date_trunc(%(unit)s, event_at, 'UTC') AS at, count(*) AS events FROM {}"
        " WHERE metric_key = ANY(%(keys)s) AND event_at >= %(start)s AND event_at < %(end)s GROUP BY 1, 2"
    )
    every = SQL(" UNION ALL ").join(one.format(Identifier(schema, table.name)) for table in events.EVENT_TABLES)
    query = SQL(
        "SELECT metric.id, at, sum(events) FROM ({}) AS found JOIN {} AS metric ON metric.key = found.metric_key"
        " GROUP BY 1, 2"
    ).format(every, Identifier(schema, dimensions.METRICS.name))
    keys = SQL("SELECT array_agg(md5(%s || ':' || %s || ':' || id)) FROM unnest(%s::text[]) AS id")
    [wanted] = connection.execute(keys, [ESP_SOURCE, integration_id, list(metric_ids)]).fetchall()
    values = {"unit": unit, "keys": wanted[0] or [], "start": window.start, "end": window.end}
    found: dict[str, dict[datetime, int]] = defaultdict(dict)
    for metric_id, at, number in connection.execute(query, values):
        found[metric_id][at.astimezone(UTC)] = int(number)
    return found


def claimed(connection: Connection, schema: str, integration_id: str) -> dict[str, list[Window]]:
    """What has been read of each metric without a gap: behind its watermark, and by a backfill."""
    query = SQL(
        "SELECT substr(stream, %(behind)s), since, watermark FROM {watermarks} WHERE esp_integration_id = %(id)s"
        " AND starts_with(stream, %(stream)s) AND since < watermark UNION ALL"
        " SELECT metric_id, window_start, CASE state WHEN 'done' THEN window_end ELSE reached END FROM {chunks}"
        " WHERE esp_integration_id = %(id)s AND (state = 'done' OR reached > window_start)"
    ).format(
        watermarks=Identifier(schema, bookkeeping.WATERMARKS.name),
        chunks=Identifier(schema, bookkeeping.BACKFILL_CHUNKS.name),
    )
    found: dict[str, list[Window]] = defaultdict(list)
    values = {"id": integration_id, "stream": _STREAM, "behind": len(_STREAM) + 1}
    for metric_id, start, end in connection.execute(query, values):
        found[metric_id].append(Window(start.astimezone(UTC), end.astimezone(UTC)))
    return found


def known(connection: Connection, schema: str, integration_id: str, window: Window) -> Known:
    """What earlier checks left of stretches that lie in a window, or partly."""
    query = _sql(
        schema,
        "SELECT metric_id, window_start, window_end, source_events, warehouse_events, state, read_again_at FROM {}"
        " WHERE esp_integration_id = %s AND window_start < %s AND window_end > %s",
    )
    rows = connection.execute(query, [integration_id, window.end, window.start])
    found = (
        Compared(metric_id, start.astimezone(UTC), end.astimezone(UTC), *rest) for metric_id, start, end, *rest in rows
    )
    return {key(each): each for each in found}


def counted_metrics(connection: Connection, schema: str, integration_id: str) -> set[str]:
    """The metrics that the source was able to count when they were last compared."""
    query = _sql(
        schema,
        "SELECT DISTINCT ON (metric_id) metric_id, state FROM {} WHERE esp_integration_id = %s"
        " ORDER BY metric_id, checked_at DESC",
    )
    return {metric_id for metric_id, state in connection.execute(query, [integration_id]) if state != UNCOUNTED}


def write(
    connection: Connection, schema: str, integration_id: str, found: Sequence[Compared], checked_at: datetime
) -> None:
    """Keep comparisons in place of earlier ones of the same stretches, and of such as lie partly in them."""
    forget = _sql(
        schema,
        "DELETE FROM {} WHERE esp_integration_id = %s AND metric_id = %s AND window_start < %s AND window_end > %s",
    )
    add = _sql(schema, f"INSERT INTO {{}} (esp_integration_id, {_COLUMNS}) VALUES (%s{', %s' * 9})")
    rows = [
        (
            *(integration_id, *key(each)),
            *(each.source_events, each.warehouse_events, each.difference, each.state),
            *(checked_at, each.read_again_at),
        )
        for each in found
    ]
    with connection.cursor() as cursor:
        cursor.executemany(forget, [(integration_id, *each) for each in _stretches(found)])
        cursor.executemany(add, rows)


def _stretches(found: Iterable[Compared]) -> list[tuple[str, datetime, datetime]]:
    """What adjoining comparisons cover: metric, end and start."""
    stretches: list[tuple[str, datetime, datetime]] = []
    for each in sorted(found, key=key):
        if stretches and stretches[-1][0] == each.metric_id and each.window_start <= stretches[-1][1]:
            metric_id, end, start = stretches.pop()
            stretches.append((metric_id, max(end, each.window_end), start))
        else:
            stretches.append((each.metric_id, each.window_end, each.window_start))
    return stretches
