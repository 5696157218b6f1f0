"""Full reads that are stored batch by batch: which of their parts are complete, and whether anything of them was lost.

Their tables are unlogged, so that a crash of Postgres empties them. The ledger of chunks, which is logged, then still
says that parts are done: a sweep counts only if each of them is in both. The caller owns the transaction.
"""

from typing import NamedTuple

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.errors import SweepLost
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.states import ChunkState

_OF_STREAM = "(stream = %(stream)s OR starts_with(stream, %(stream)s || '/'))"
_LOCK = f"SELECT FROM {{}} WHERE run_id = %(sweep)s AND {_OF_STREAM} ORDER BY stream, part FOR UPDATE"
_COMPLETE = """
UPDATE {} SET is_complete = %(is_complete)s AND has_unreadable IS NOT TRUE, found = %(found)s
WHERE esp_integration_id = %(account)s AND stream = %(stream)s AND sweep = %(sweep)s AND part = %(part)s
RETURNING is_complete
"""
_PARTS = f"""
(SELECT stream, part, state, reached FROM {{chunks}} WHERE run_id = %(sweep)s AND {_OF_STREAM}) AS chunk
LEFT JOIN (
    SELECT * FROM {{sweeps}} WHERE esp_integration_id = %(account)s AND sweep = %(sweep)s
) AS sweep USING (stream, part)
"""
# A chunk that a resumed run reads again has what it found before, although it is not done.
_STANDING = f"""
SELECT bool_and(sweep.is_complete IS NOT NULL AND (state = %(done)s OR (stream, part) = (%(last)s, %(last_part)s))),
    bool_and(coalesce(sweep.is_complete, false))
FROM {_PARTS}
"""
_LOST = f"""
SELECT FROM {_PARTS} WHERE (state = %(done)s OR reached IS NOT NULL) AND sweep.sweep IS NULL LIMIT 1
"""
_FORGET = f"DELETE FROM {{}} WHERE esp_integration_id = %(account)s AND {_OF_STREAM}"
_FOUND = """
SELECT stream, max(found) FROM {} WHERE esp_integration_id = %(account)s AND starts_with(stream, %(stream)s || '/')
AND is_complete GROUP BY stream
"""


def lock(account: Account, sweep: str, stream: str) -> None:
    """Wait for parts of a sweep that are being completed, so that of two that end together one sees the other."""
    account.execute(_LOCK, bookkeeping.CHUNKS, sweep=sweep, stream=stream)


def finish_part(
    account: Account, sweep: str, stream: str, part: str, is_complete: bool, found: int | None = None
) -> bool:
    """Record that a part was read to its end, and return whether each of its records was readable.

    `is_complete` says so of what was read last. Raises SweepLost if what was stored of it is gone.
    """
    values = {"sweep": sweep, "stream": stream, "part": part, "is_complete": is_complete, "found": found}
    row = account.execute(_COMPLETE, bookkeeping.SWEEPS, **values).fetchone()
    if row is None:
        raise SweepLost
    return bool(row[0])


class Standing(NamedTuple):
    """The standing of a sweep: all parts were read to their end, and each of their records was readable."""

    is_done: bool
    is_complete: bool


def standing(account: Account, sweep: str, stream: str, last: tuple[str, str]) -> Standing:
    """Return the standing of all parts of a stream that the run has planned, as (stream, part) `last` is completed."""
    values = {"sweep": sweep, "stream": stream, "last": last[0], "last_part": last[1], "done": ChunkState.DONE}
    [(is_done, is_complete)] = account.execute(_STANDING, **values)
    return Standing(bool(is_done), bool(is_complete))


def is_lost(account: Account, sweep: str, stream: str) -> bool:
    """Return whether something of a stream's parts was read in a run and what it found is not there any more.

    The sweep has ended, or a crash of Postgres has emptied the tables.
    """
    values = {"sweep": sweep, "stream": stream, "done": ChunkState.DONE}
    return bool(account.execute(_LOST, **values).rowcount)


def forget(account: Account, stream: str) -> None:
    """Forget all sweeps of a stream, including interrupted ones."""
    account.execute(_FORGET, bookkeeping.SWEEPS, stream=stream)


def forget_others(account: Account, sweep: str, stream: str) -> None:
    """Forget the earlier sweeps of a stream."""
    query = "DELETE FROM {} WHERE esp_integration_id = %(account)s AND stream = %(stream)s AND sweep <> %(sweep)s"
    account.execute(query, bookkeeping.SWEEPS, stream=stream, sweep=sweep)


def found(account: Account, stream: str) -> dict[str, int]:
    """Return how many rows the last complete sweep of each subject of a stream found, where that is still known."""
    return dict(account.execute(_FOUND, bookkeeping.SWEEPS, stream=stream).fetchall())
