"""The query of the view `all_events`, composed from the catalogue. Knows no connection."""

from psycopg.sql import SQL, Composed, Literal

from klaviyo_pg.catalogue import events
from klaviyo_pg.postgres.statements import names, qualified

_OF_TABLE = "SELECT {name} AS table_name, {columns} FROM {table}"


def query(schema: str) -> Composed:
    """Return the query that defines the view.

    Conditions reach each table, and a condition on `table_name` leaves out the others.
    """
    return SQL("\nUNION ALL\n").join(
        SQL(_OF_TABLE).format(
            name=Literal(table.name), columns=names(table.column_names), table=qualified(schema, table)
        )
        for table in events.EVENT_TABLES
    )
