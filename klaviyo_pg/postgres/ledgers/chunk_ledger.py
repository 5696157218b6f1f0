"""The ledger of chunks, from which a run is resumed. The caller owns the transaction.

Progress is recorded in the transaction that stores the rows, so the ledger never claims rows that are not stored.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.states import ChunkState

_CHUNK = "run_id = %(run_id)s AND stream = %(stream)s AND part = %(part)s"


class ChunkProgress(NamedTuple):
    """The progress of a chunk: its state, and its checkpoint if there is one."""

    state: ChunkState
    reached: datetime | None


def plan_chunks(account: Account, run_id: str, chunks: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Add chunks, given as (stream, part), to a run. Returns all chunks of the run that are done."""
    account.execute_many(
        "INSERT INTO {} (run_id, esp_integration_id, stream, part, state)"
        " VALUES (%(run_id)s, %(account)s, %(stream)s, %(part)s, %(state)s) ON CONFLICT DO NOTHING",
        ({"run_id": run_id, "stream": stream, "part": part, "state": ChunkState.PLANNED} for stream, part in chunks),
        bookkeeping.CHUNKS,
    )
    return done(account, run_id)


def done(account: Account, run_id: str) -> set[tuple[str, str]]:
    """Return the chunks of a run, as (stream, part), that are done."""
    query = "SELECT stream, part FROM {} WHERE run_id = %(run_id)s AND state = %(done)s"
    rows = account.execute(query, bookkeeping.CHUNKS, run_id=run_id, done=ChunkState.DONE)
    return {(stream, part) for stream, part in rows}


def reopen(account: Account, run_id: str, chunks: Iterable[tuple[str, str]], age: timedelta) -> int:
    """Plan chunks of a run, given as (stream, part), again if they were done longer than `age` ago; return how many.

    A time further in the future, after the database's clock was set back, counts as longer ago.
    """
    streams, parts = zip(*chunks, strict=True) if (chunks := list(chunks)) else ((), ())
    query = (
        "UPDATE {} SET state = %(planned)s, done_at = NULL, reached = NULL WHERE run_id = %(run_id)s"
        " AND (stream, part) IN (SELECT * FROM unnest(%(streams)s::text[], %(parts)s::text[]))"
        " AND state = %(done)s AND done_at NOT BETWEEN now() - %(age)s AND now() + %(age)s"
    )
    values = {"run_id": run_id, "streams": list(streams), "parts": list(parts), "age": age}
    states = {"planned": ChunkState.PLANNED, "done": ChunkState.DONE}
    return account.execute(query, bookkeeping.CHUNKS, **values, **states).rowcount


def drop_unplanned(account: Account, run_id: str, streams: Iterable[str], chunks: Iterable[tuple[str, str]]) -> None:
    """Delete the chunks of these streams in a run that are neither done nor among those given as (stream, part).

    Nobody would read them, so that their stream would never be complete. Rereads stay, which are planned later.
    """
    names, parts = zip(*chunks, strict=True) if (chunks := list(chunks)) else ((), ())
    query = (
        "DELETE FROM {} WHERE run_id = %(run_id)s AND state <> %(done)s AND stream NOT LIKE '%%/reread %%'"
        " AND split_part(stream, '/', 1) = ANY(%(streams)s)"
        " AND (stream, part) NOT IN (SELECT * FROM unnest(%(names)s::text[], %(parts)s::text[]))"
    )
    values = {"run_id": run_id, "streams": list(streams), "names": list(names), "parts": list(parts)}
    account.execute(query, bookkeeping.CHUNKS, **values, done=ChunkState.DONE)


def delete(account: Account, run_id: str, stream: str) -> None:
    """Delete all chunks of a stream in a run."""
    query = "DELETE FROM {} WHERE run_id = %(run_id)s AND split_part(stream, '/', 1) = %(stream)s"
    account.execute(query, bookkeeping.CHUNKS, run_id=run_id, stream=stream)


def begun(account: Account, run_id: str) -> dict[str, list[str]]:
    """Return the parts of each stream in a run."""
    query = "SELECT stream, array_agg(part ORDER BY part) FROM {} WHERE run_id = %(run_id)s GROUP BY stream"
    return dict(account.execute(query, bookkeeping.CHUNKS, run_id=run_id).fetchall())


def parts(account: Account, run_id: str, stream: str) -> list[str]:
    """Return the parts of a stream in a run."""
    query = "SELECT part FROM {} WHERE run_id = %(run_id)s AND stream = %(stream)s ORDER BY part"
    return account.column(query, bookkeeping.CHUNKS, run_id=run_id, stream=stream)


def divide(account: Account, run_id: str, stream: str, part: str, into: Iterable[str]) -> None:
    """Replace a chunk by others that have what is left of it."""
    account.execute(f"DELETE FROM {{}} WHERE {_CHUNK}", bookkeeping.CHUNKS, run_id=run_id, stream=stream, part=part)
    plan_chunks(account, run_id, [(stream, each) for each in into])


def progress(account: Account, run_id: str, stream: str, part: str) -> ChunkProgress:
    """Return how far a planned chunk has been stored. One that is no longer there was divided: it is done."""
    query = f"SELECT state, reached FROM {{}} WHERE {_CHUNK}"
    row = account.execute(query, bookkeeping.CHUNKS, run_id=run_id, stream=stream, part=part).fetchone()
    return ChunkProgress(ChunkState(row[0]), row[1]) if row else ChunkProgress(ChunkState.DONE, None)


def advance(account: Account, run_id: str, stream: str, part: str, reached: datetime) -> None:
    """Record that everything of a chunk before `reached` is stored. A checkpoint never moves back."""
    query = f"UPDATE {{}} SET reached = greatest(reached, %(reached)s) WHERE {_CHUNK}"
    account.execute(query, bookkeeping.CHUNKS, run_id=run_id, stream=stream, part=part, reached=reached)


def finish(account: Account, run_id: str, stream: str, part: str) -> bool:
    """Record that a chunk is done. Returns True if it was the last one of its stream in this run.

    Locks the chunks of the stream in order, so that of two chunks that finish at the same time one sees the other. What
    is left is looked up afterwards, because a chunk may have been divided while its lock was waited for.
    """
    lock = "SELECT FROM {} WHERE run_id = %(run_id)s AND stream = %(stream)s ORDER BY part FOR UPDATE"
    account.execute(lock, bookkeeping.CHUNKS, run_id=run_id, stream=stream)
    query = f"UPDATE {{}} SET state = %(done)s, done_at = now() WHERE {_CHUNK}"
    account.execute(query, bookkeeping.CHUNKS, run_id=run_id, stream=stream, part=part, done=ChunkState.DONE)
    left = "SELECT FROM {} WHERE run_id = %(run_id)s AND stream = %(stream)s AND state <> %(done)s LIMIT 1"
    return not account.execute(left, bookkeeping.CHUNKS, run_id=run_id, stream=stream, done=ChunkState.DONE).rowcount
