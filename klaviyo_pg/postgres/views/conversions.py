"""The query of the metrics that count as revenue, composed from the catalogue. Knows no connection."""

from psycopg.sql import SQL, Composable, Composed, Literal

from klaviyo_pg.catalogue import Table, events
from klaviyo_pg.postgres.statements import filled

# The metric that counts as revenue, as for reports: the mapped one or, without it, the only Placed Order.
_QUERY = """
    SELECT mapped.metric_key FROM {mapped_metrics} AS mapped
    WHERE mapped.id = 'revenue' AND mapped.deleted_at IS NULL
    UNION ALL
    SELECT metric.key FROM {mapped_metrics} AS mapped
    JOIN {custom_metrics} AS custom ON custom.key = mapped.custom_metric_key
    JOIN {metrics} AS metric
        ON metric.esp_integration_id = custom.esp_integration_id AND custom.metric_ids @> to_jsonb(metric.id)
    WHERE mapped.id = 'revenue' AND mapped.metric_key IS NULL AND mapped.deleted_at IS NULL
    UNION ALL
    SELECT min(metric.key COLLATE "C") FROM {metrics} AS metric
    WHERE metric.name = 'Placed Order' AND metric.deleted_at IS NULL AND NOT EXISTS (
        SELECT FROM {mapped_metrics} AS mapped
        WHERE mapped.esp_integration_id = metric.esp_integration_id AND mapped.id = 'revenue'
        AND coalesce(mapped.metric_key, mapped.custom_metric_key) IS NOT NULL AND mapped.deleted_at IS NULL
    )
    GROUP BY metric.esp_integration_id HAVING count(*) = 1
"""
_HAS_ORDERS = "EXISTS (SELECT FROM {metrics} WHERE destination = {table} AND key = ANY (ARRAY({conversions})))"


def query(schema: str) -> Composed:
    """Return the query of the keys of the metrics that count as revenue, in any account."""
    return filled(schema, _QUERY)


def tables(schema: str) -> dict[Table, Composable]:
    """Return the condition of each event table that it has events of these metrics."""
    has_orders = {
        table: filled(schema, _HAS_ORDERS, table=Literal(table.name), conversions=query(schema))
        for table in events.EVENT_TABLES
    }
    return {**has_orders, events.EVENTS: SQL("true")}
