"""The database's clock."""

from datetime import datetime

from psycopg import Connection

from klaviyo_pg.postgres import queries


def present(connection: Connection) -> datetime:
    """Return the database's time at the start of the transaction."""
    time: datetime = queries.scalar(connection, "SELECT now()")
    return time


def oldest_transaction(connection: Connection) -> datetime | None:
    """Return when the oldest open transaction of the database began, as far as the user sees those of others.

    Every row with an earlier `__synced_at` is visible from now on: it has the time at which its transaction began.
    Returns None if the server does not track transactions (`track_activities`).
    """
    time: datetime | None = queries.scalar(
        connection,
        "SELECT now() - (max(xact_start) FILTER (WHERE pid = pg_backend_pid()) - min(xact_start))"
        " FROM pg_catalog.pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'",
    )
    return time
