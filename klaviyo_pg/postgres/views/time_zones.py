"""The view `account_time_zones`, and the time zones that a database has. The caller owns the connection."""

import json

from psycopg import Connection
from psycopg.sql import Composed, Literal

from klaviyo_pg.postgres import queries
from klaviyo_pg.postgres.statements import filled
from klaviyo_pg.renamed_zones import RENAMED

# A name that Postgres does not have would make every query fail that uses it.
_QUERY = """
WITH existing AS MATERIALIZED (SELECT name FROM pg_catalog.pg_timezone_names)
SELECT integration.name AS integration, integration.esp_integration_id, zone.account_timezone,
    coalesce(zone.timezone, 'UTC') AS timezone
FROM {integrations} AS integration
LEFT JOIN (
    SELECT esp_integration_id, max(timezone) AS account_timezone, max(
        CASE WHEN {renamed}::jsonb ->> timezone IN (SELECT name FROM existing) THEN {renamed}::jsonb ->> timezone
            WHEN timezone IN (SELECT name FROM existing) THEN timezone
        END
    ) AS timezone
    FROM {accounts} GROUP BY 1
) AS zone ON zone.esp_integration_id = integration.esp_integration_id
"""
_EXISTS = "SELECT EXISTS (SELECT FROM pg_catalog.pg_timezone_names WHERE name = ANY(%s))"


def query(schema: str) -> Composed:
    """Return the query that defines the view."""
    return filled(schema, _QUERY, renamed=Literal(json.dumps(RENAMED)))


def exists(connection: Connection, name: str) -> bool:
    """Return whether the database has a time zone, by this name or by its current one."""
    return bool(queries.scalar(connection, _EXISTS, [[name, RENAMED.get(name)]]))
