"""Claims: locks by name that Postgres drops with the connection, or the transaction, that holds them."""

from collections.abc import Sequence

from psycopg import Connection

_TRY = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_TRY_FOR_TRANSACTION = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
_HELD = """
SELECT what FROM unnest(%s::text[], %s::text[]) AS given (what, name) WHERE EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32 | objid::bigint) = hashtextextended(name, 0)
)
"""


def claim(connection: Connection, schema: str, integration_id: str, what: str, for_transaction: bool = False) -> bool:
    """Claim something of an account, such as a flow; False where another connection holds the claim."""
    query = _TRY_FOR_TRANSACTION if for_transaction else _TRY
    row = connection.execute(query, [_name(schema, integration_id, what)]).fetchone()
    return row is not None and bool(row[0])


def release(connection: Connection) -> None:
    """Drop all the claims of a connection, and the connection.

    Closing alone would do, but Postgres notices that a moment later, and whoever comes next would be told that they are
    held.
    """
    try:
        connection.execute("SELECT pg_advisory_unlock_all()")
    finally:
        connection.close()


def held(connection: Connection, schema: str, integration_id: str, whats: Sequence[str]) -> set[str]:
    """Those of the claims that somebody holds."""
    names = [_name(schema, integration_id, what) for what in whats]
    return {what for (what,) in connection.execute(_HELD, [list(whats), names])}


def _name(schema: str, integration_id: str, what: str) -> str:
    return f"klaviyo_pg {schema} {integration_id} {what}"
