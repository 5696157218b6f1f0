"""The results of queries of docs/recipes.md over rows written by hand."""

from datetime import UTC, datetime, timedelta

import psycopg

from benchmarks.recipes import recipes
from klaviyo_pg.catalogue import loads
from tests.integration.conftest import Merge

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)


def answer(connection: psycopg.Connection, number: int) -> list[dict[str, object]]:
    """Return the rows of a recipe, by column."""
    [query] = (query for title, query in recipes() if title.startswith(f"{number}. "))
    cursor = connection.execute(query.encode())
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def test_people_leave_a_list_no_earlier_than_they_join_it(connection: psycopg.Connection, merged: Merge) -> None:
    """A suppression for a list can be older than the last time that the person joined."""
    merged(loads.LISTS, {"key": "k", "id": "L", "name": "News"})
    connection.execute(
        "INSERT INTO member_lists (key, id, list_id, member_id, subscribed, unsubscribed_at, esp_integration_id)"
        " VALUES ('ann', 'ann', 'L', 'ann', %s, %s, 'one')",
        [DAY, DAY - timedelta(days=60)],
    )
    week = datetime(2026, 2, 23, tzinfo=UTC).date()
    assert answer(connection, 9) == [{"list": "News", "week": week, "joined": 1, "has_left": 1, "on_list": 0}]
