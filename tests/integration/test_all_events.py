"""The view over all event tables: conditions limit the tables, and the parts of them, that Postgres reads."""

import psycopg

from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue.events import EVENT_TABLES
from tests.integration.conftest import Merge


def plan(connection: psycopg.Connection, condition: str) -> str:
    """Return the plan of a query, with indexes wherever they can serve: the tables are nearly empty."""
    connection.execute("SET enable_seqscan = off")
    cursor = connection.execute(f"EXPLAIN (COSTS off) SELECT count(*) FROM all_events WHERE {condition}".encode())
    return "\n".join(line for (line,) in cursor)


def test_each_event_has_the_name_of_its_table(connection: psycopg.Connection, merged: Merge) -> None:
    for table in EVENT_TABLES:
        merged(loads.EVENTS[table.name], {"key": table.name, "id": table.name, "properties": "{}"})
    rows = connection.execute("SELECT table_name, id, properties FROM all_events").fetchall()
    assert sorted(rows) == sorted((table.name, table.name, {}) for table in EVENT_TABLES)


def test_a_time_limits_what_is_read_of_each_table(connection: psycopg.Connection) -> None:
    assert plan(connection, "event_at > now() - interval '1 day'").count("Index Cond: (event_at >") == len(EVENT_TABLES)


def test_the_name_of_a_table_leaves_out_the_others(connection: psycopg.Connection) -> None:
    chosen = plan(connection, "table_name = 'opens'")
    assert [table.name for table in EVENT_TABLES if f" on {table.name}" in chosen] == ["opens"]
