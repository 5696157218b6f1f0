"""Claims: exclusive locks by name, which Postgres releases with the connection or transaction that holds them.

What is written under a claim is written in transactions that check it. A new holder waits for those of the last one.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from psycopg import Connection
from psycopg.errors import InsufficientPrivilege
from psycopg.sql import SQL, Literal

from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres import queries
from klaviyo_pg.postgres.account import Account

FLOWS = ("daily", "backfill", "reconcile")
"""The claims of the flows that a run of an account holds, one each."""
_LONGEST_END = 10_000  # milliseconds, of a session
_KEY = "pg_catalog.hashtextextended(%s, 0)"
_TRY = f"SELECT pg_try_advisory_lock({_KEY})"
_TRY_FOR_TRANSACTION = f"SELECT pg_try_advisory_xact_lock({_KEY})"
_LOCK = """
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32 | objid::bigint) = pg_catalog.hashtextextended(name, 0)
"""
_HELD = f"SELECT what FROM unnest(%s::text[], %s::text[]) AS claims (what, name) WHERE EXISTS ({_LOCK})"
_HELD_BY = f"SELECT EXISTS (SELECT FROM (VALUES (%s)) AS claim (name) WHERE EXISTS ({_LOCK} AND pid = %s))"
_END = f"""
SELECT pg_terminate_backend(claim.session, {_LONGEST_END}) FROM (VALUES (%s, %s)) AS claim (name, session)
WHERE EXISTS ({_LOCK} AND pid = claim.session)
"""
# CASE takes the lock before it looks for the claim.
_HOLD = f"""
SELECT now(), CASE WHEN pg_advisory_xact_lock_shared({_KEY}) IS NOT NULL
    THEN (SELECT EXISTS (SELECT FROM (VALUES (%s)) AS claim (name) WHERE EXISTS ({_LOCK} AND pid = %s))) END
"""
_WAIT = f"SELECT pg_advisory_xact_lock({_KEY})"
_LONGEST_WAIT = "60s"  # for transactions of the last holder


def try_claim(account: Account, what: str, for_transaction: bool = False) -> bool:
    """Claim something of an account, such as a flow. Returns False if another connection holds the claim.

    The claim lasts until `release` or the end of the connection, with `for_transaction` until the transaction ends.
    """
    query = _TRY_FOR_TRANSACTION if for_transaction else _TRY
    return bool(queries.scalar(account.connection, query, [_name(account, what)]))


def session_of(connection: Connection) -> int:
    """Return the server's session of a connection. Behind a pooler, the driver knows another one."""
    return int(queries.scalar(connection, "SELECT pg_backend_pid()"))


def is_held_by(account: Account, what: str, session: int) -> bool:
    """Return whether a session of the server holds a claim."""
    return bool(queries.scalar(account.connection, _HELD_BY, [_name(account, what), session]))


def end_holder(account: Account, what: str, session: int) -> None:
    """End a session of the server that holds a claim, and wait for that a moment; other sessions stay.

    The server may keep the session of a lost connection open for a minute, and with a proxy in between for much longer.
    """
    with suppress(InsufficientPrivilege):
        account.connection.execute(_END, [_name(account, what), session])


def hold_for_transaction(account: Account, what: str, session: int) -> datetime | None:
    """Keep new holders of a claim waiting until this transaction ends.

    Return the database's time at its start; None if the session does not hold the claim.
    """
    names = _work_name(account, what), _name(account, what)
    row = account.connection.execute(_HOLD, [*names, session]).fetchone()
    return row[0] if row is not None and row[1] else None


def wait_for_last_holder(account: Account, what: str) -> None:
    """Wait until the transactions end that a lost claim's last holder has begun.

    Raises psycopg.errors.LockNotAvailable if that takes too long.
    """
    with account.connection.transaction():
        account.connection.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(_LONGEST_WAIT)))
        account.connection.execute(_WAIT, [_work_name(account, what)])


def take_turns(account: Account, what: str) -> None:
    """Wait for another transaction that takes turns about this, and keep others waiting until this one ends."""
    account.connection.execute(_WAIT, [_name(account, what)])


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
    return set(queries.column(account.connection, _HELD, [list(whats), [_name(account, what) for what in whats]]))


def busy(name: str, flow: str) -> Busy:
    """Return the error of a run that another run of the account of this name keeps out."""
    return Busy(f"Another {flow} run of {name} is in progress: wait for it to finish, or stop it.")


def _name(account: Account, what: str) -> str:
    return f"klaviyo_pg {account.schema} {account.integration_id} {what}"


def _work_name(account: Account, what: str) -> str:
    return f"{_name(account, what)} work"
