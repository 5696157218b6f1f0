"""The query of the view `freshness`, composed from the catalogue. Knows no connection."""

from typing import LiteralString

from psycopg.sql import SQL, Composed, Literal

from klaviyo_pg.catalogue import events
from klaviyo_pg.postgres.statements import filled, qualified
from klaviyo_pg.states import FINISHED

_QUERY = """
WITH complete AS (
    SELECT esp_integration_id, max(finished_at) AS at FROM {runs}
    WHERE flow = 'daily' AND state IN ({finished}) AND is_limited IS NOT TRUE GROUP BY 1
), compared AS (
    SELECT esp_integration_id, metric_id, max(checked_at) FILTER (WHERE state IS DISTINCT FROM 'uncounted') AS at,
        CASE WHEN bool_or(state = 'differs') THEN 'differs' ELSE (array_agg(state ORDER BY checked_at DESC))[1]
        END AS count_state,
        sum(difference) FILTER (WHERE window_end - window_start > interval '1 hour' OR NOT EXISTS (
            SELECT FROM {reconciliation} AS day
            WHERE day.esp_integration_id = checked.esp_integration_id AND day.metric_id = checked.metric_id
            AND day.window_start BETWEEN date_trunc('day', checked.window_start, 'UTC') AND checked.window_start
            AND day.window_end >= checked.window_end
            AND (day.window_start, day.window_end) <> (checked.window_start, checked.window_end)
        )) AS difference,
        sum(abs(difference)) FILTER (WHERE difference = 0 OR NOT EXISTS (
            SELECT FROM {reconciliation} AS step
            WHERE step.esp_integration_id = checked.esp_integration_id AND step.metric_id = checked.metric_id
            AND step.window_start BETWEEN checked.window_start AND checked.window_end
            AND step.window_end <= checked.window_end
            AND (step.window_start, step.window_end) <> (checked.window_start, checked.window_end)
        )) AS differing_events
    FROM {reconciliation} AS checked GROUP BY 1, 2
), streams AS (
    SELECT m.esp_integration_id, 'events/' || m.id AS stream, m.name, m.destination AS table_name,
        CASE m.destination {newest} END AS newest_event, w.watermark, c.at AS reconciled, c.difference,
        c.count_state, c.differing_events, CASE m.destination {oldest} END AS oldest_event
    FROM {metrics} AS m
    LEFT JOIN {watermarks} AS w ON w.esp_integration_id = m.esp_integration_id AND w.subject = m.id
        AND w.table_name IN ({event_tables})
    LEFT JOIN compared AS c ON c.esp_integration_id = m.esp_integration_id AND c.metric_id = m.id
    WHERE m.deleted_at IS NULL
    UNION ALL
    SELECT w.esp_integration_id, w.stream, coalesce(l.name, w.stream), w.table_name, NULL, w.watermark, NULL, NULL,
        NULL, NULL, NULL
    FROM {watermarks} AS w
    LEFT JOIN {lists} AS l ON l.esp_integration_id = w.esp_integration_id AND l.id = w.subject
    WHERE w.table_name NOT IN ({event_tables}) AND l.deleted_at IS NULL
)
SELECT integrations.name AS integration, streams.stream, streams.name, streams.table_name, streams.newest_event,
    streams.watermark, complete.at AS last_complete_run, streams.reconciled AS last_reconciled, streams.difference,
    round(extract(epoch FROM now() - streams.watermark) / 3600, 2)::double precision AS age_hours,
    streams.count_state, streams.differing_events, streams.oldest_event
FROM streams JOIN {integrations} AS integrations USING (esp_integration_id)
LEFT JOIN complete USING (esp_integration_id)
"""
_OUTERMOST = "WHEN {table} THEN (SELECT {which}(event_at) FROM {events} WHERE metric_key = m.key)"


def query(schema: str) -> Composed:
    """Return the query that defines the view."""
    return filled(
        schema,
        _QUERY,
        newest=_outermost(schema, "max"),
        oldest=_outermost(schema, "min"),
        finished=SQL(", ").join(map(Literal, FINISHED)),
        event_tables=SQL(", ").join(Literal(table.name) for table in events.EVENT_TABLES),
    )


def _outermost(schema: str, which: LiteralString) -> Composed:
    """Return the time of the newest (max) or the oldest (min) event of a metric in the table of its events."""
    return SQL(" ").join(
        SQL(_OUTERMOST).format(table=Literal(table.name), which=SQL(which), events=qualified(schema, table))
        for table in events.EVENT_TABLES
    )
