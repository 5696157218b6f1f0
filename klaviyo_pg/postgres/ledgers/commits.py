"""The last transaction of each writer, in case the answer to its COMMIT was lost. The caller owns the transaction.

Each writer leaves a token in its row at the end of each transaction. The ID of a transaction would not do: after a
crash, Postgres can give the ID of a transaction that it has lost to another one.
"""

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.patience import limited_waits

_LEAVE = """
INSERT INTO {} (writer, token, left_at, esp_integration_id)
SELECT %(writer)s, %(token)s, now(), %(account)s WHERE pg_current_xact_id_if_assigned() IS NOT NULL
ON CONFLICT (writer) DO UPDATE SET token = excluded.token, left_at = excluded.left_at
"""
# Waits for an earlier transaction of the writer that the server has not ended yet.
_READ = """
INSERT INTO {} AS stored (writer, token, left_at, esp_integration_id) VALUES (%(writer)s, '', now(), %(account)s)
ON CONFLICT (writer) DO UPDATE SET token = stored.token RETURNING token
"""
_LONGEST_WAIT = "2s"
_FORGET = "DELETE FROM {} WHERE esp_integration_id = %(account)s AND left_at < now() - interval '1 day'"


def leave(account: Account, writer: str, token: str) -> bool:
    """Leave a token, as the last statement of a transaction. Returns False, and writes nothing, if it wrote nothing."""
    return bool(account.execute(_LEAVE, bookkeeping.COMMITS, writer=writer, token=token).rowcount)


def was_committed(account: Account, writer: str, token: str) -> bool:
    """Return whether the writer's transaction with this token was committed.

    Raises LockNotAvailable while the server has not ended it.
    """
    with limited_waits(account.connection, _LONGEST_WAIT):
        found = account.scalar(_READ, bookkeeping.COMMITS, writer=writer)
    return bool(found == token)


def forget(account: Account) -> None:
    """Delete the rows of writers that are long gone."""
    account.execute(_FORGET, bookkeeping.COMMITS)
