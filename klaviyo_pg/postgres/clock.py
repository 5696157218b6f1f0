"""The database's clock."""

from datetime import datetime

from psycopg import Connection


def present(connection: Connection) -> datetime:
    """Return the database's time at the start of the transaction."""
    row = connection.execute("SELECT now()").fetchone()
    assert row is not None
    time: datetime = row[0]
    return time
