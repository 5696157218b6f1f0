"""The check that the database user owns the tables of the warehouse, as an upgrade requires."""

from collections.abc import Iterator

import psycopg
import pytest

from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.settings import Settings
from pipeline import checks

_PARTITIONED = """
DROP TABLE klaviyo.opens CASCADE;
CREATE TABLE klaviyo.opens (number int) PARTITION BY RANGE (number);
CREATE TABLE klaviyo.opens_2024_01 PARTITION OF klaviyo.opens FOR VALUES FROM (0) TO (1);
ALTER TABLE klaviyo.opens_2024_01 OWNER TO analyst;
"""


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection]:
    """Return a connection in a transaction that is rolled back, in which there is a loader and an analyst."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE ROLE loader; CREATE ROLE analyst; GRANT postgres TO loader")
        yield connection
        connection.rollback()


def check(connection: psycopg.Connection) -> None:
    """Check the tables as the loader, who has the rights of their owner."""
    connection.execute("SET LOCAL ROLE loader")
    checks.check_ownership(connection, Settings())


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(
            "CREATE VIEW klaviyo.days AS SELECT 1 AS day; ALTER VIEW klaviyo.days OWNER TO analyst", id="view"
        ),
        pytest.param("CREATE TABLE klaviyo.notes (); ALTER TABLE klaviyo.notes OWNER TO analyst", id="table"),
    ],
)
def test_relations_of_others_next_to_those_of_the_warehouse_do_not_matter(
    owner: psycopg.Connection, statement: str
) -> None:
    """Runs do not touch them."""
    owner.execute(statement)
    check(owner)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        pytest.param("ALTER TABLE klaviyo.members OWNER TO analyst", "klaviyo, such as members", id="table"),
        pytest.param("ALTER VIEW klaviyo.freshness OWNER TO analyst", "klaviyo, such as freshness", id="view"),
        pytest.param(
            "ALTER TABLE klaviyo_internal.chunks OWNER TO analyst",
            "klaviyo_internal, such as chunks",
            id="internal table",
        ),
        pytest.param(_PARTITIONED, "klaviyo, such as opens_2024_01", id="partition"),
    ],
)
def test_a_relation_of_the_warehouse_that_another_user_owns_is_named(
    owner: psycopg.Connection, statement: str, named: str
) -> None:
    owner.execute(statement)
    with pytest.raises(DatabaseUnusable, match=f"does not own the tables of the schema {named}"):
        check(owner)
