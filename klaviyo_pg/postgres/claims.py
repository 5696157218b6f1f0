"""Claims: exclusive locks by name, which Postgres releases with the connection or transaction that holds them."""

from collections.abc import Sequence

from psycopg import Connection

from klaviyo_pg.postgres.account import Account

_TRY = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_TRY_FOR_TRANSACTION = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
_HELD = """
SELECT what FROM unnest(%s::text[], %s::text[]) AS claims (what, name) WHERE EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32 | objid::bigint) = hashtextextended(name, 0)
)
"""


def try_claim(account: Account, what: str, for_transaction: bool = False) -> bool:
    """Claim something of an account, such as a flow. Returns False if another connection holds the claim.

    The claim lasts until `release` or the end of the connection, with `for_transaction` until the transaction ends.
    """
    query = _TRY_FOR_TRANSACTION if for_transaction else _TRY
    row = account.connection.execute(query, [_name(account, what)]).fetchone()
    return row is not None and bool(row[0])


def release(connection: Connection) -> None:
    """Release all claims of a connection and close it.

    Closing alone would release them only when Postgres notices, and the next process would find them held until then.
    """
    try:
        connection.execute("SELECT pg_advisory_unlock_all()")
    finally:
        connection.close()


def held(account: Account, whats: Sequence[str]) -> set[str]:
    """Return those of the claims that any connection holds."""
    rows = account.connection.execute(_HELD, [list(whats), [_name(account, what) for what in whats]])
    return {what for (what,) in rows}


def _name(account: Account, what: str) -> str:
    return f"klaviyo_pg {account.schema} {account.integration_id} {what}"
