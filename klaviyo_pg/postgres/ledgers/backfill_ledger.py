"""The ledger of the backfill: the chunks of history, and how far each has been stored. The caller owns the transaction.

Progress is recorded in the transaction that stores the rows, so the ledger never claims rows that are not stored.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres import claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.states import ChunkState
from klaviyo_pg.windows import Window

_SELECT = (
    "SELECT metric_id, window_start, window_end, expected, loaded, reached, state, seconds, planned_by,"
    " group_name FROM {}"
    " WHERE esp_integration_id = %(account)s"
)
_GROUPS = (
    "SELECT DISTINCT group_name FROM {}"
    " WHERE esp_integration_id = %(account)s AND group_name IS NOT NULL AND state <> %(done)s"
)
_CHUNK = "esp_integration_id = %(account)s AND metric_id = %(metric_id)s AND window_start = %(window_start)s"


class BackfillChunk(NamedTuple):
    """A chunk of one metric's history, as recorded in the ledger."""

    metric_id: str
    window_start: datetime
    window_end: datetime
    expected: int | None
    loaded: int = 0
    reached: datetime | None = None
    state: ChunkState = ChunkState.PLANNED
    seconds: float = 0.0
    planned_by: str | None = None
    group_name: str | None = None

    @property
    def window(self) -> Window:
        """The whole window of the chunk."""
        return Window(self.window_start, self.window_end)

    @property
    def left(self) -> Window:
        """The window that remains to be read."""
        return Window(self.reached or self.window_start, self.window_end)

    @property
    def stored(self) -> Window:
        """The window that has been read and stored; without length before the first checkpoint."""
        return self.window if self.state is ChunkState.DONE else Window(self.window_start, self.left.start)

    @property
    def waiting(self) -> int:
        """The number of events that remain to be read; 0 if the source did not count them."""
        return 0 if self.state == ChunkState.DONE else max(0, (self.expected or 0) - self.loaded)

    @property
    def is_uncounted(self) -> bool:
        """True if the chunk remains to be read, and the source did not count its events."""
        return self.state is not ChunkState.DONE and self.expected is None

    @property
    def differs(self) -> bool:
        """True if the chunk is done and has another number of events than the source counted."""
        return self.state is ChunkState.DONE and self.expected not in (None, self.loaded)

    def __str__(self) -> str:
        return f"{self.metric_id} {self.window}"


def chunks(account: Account) -> list[BackfillChunk]:
    """Return all chunks of the account, ordered by metric and time."""
    return account.select(_chunk, f"{_SELECT} ORDER BY metric_id, window_start", bookkeeping.BACKFILL_CHUNKS)


def chunk(account: Account, which: BackfillChunk) -> BackfillChunk:
    """Return a chunk as it is recorded now."""
    query = f"{_SELECT} AND metric_id = %(metric_id)s AND window_start = %(window_start)s"
    key = {"metric_id": which.metric_id, "window_start": which.window_start}
    [recorded] = account.select(_chunk, query, bookkeeping.BACKFILL_CHUNKS, **key)
    return recorded


def _chunk(state: str, **columns: object) -> BackfillChunk:
    return BackfillChunk(state=ChunkState(state), **columns)  # type: ignore[arg-type]  # as the query names them


def counted_by_others(account: Account, run_id: str) -> set[tuple[str, datetime]]:
    """Return metric and start of the chunks that are done and that this run has not counted."""
    query = (
        "SELECT metric_id, window_start FROM {} WHERE esp_integration_id = %(account)s AND state = %(done)s"
        " AND counted_by IS DISTINCT FROM %(run_id)s"
    )
    rows = account.execute(query, bookkeeping.BACKFILL_CHUNKS, run_id=run_id, done=ChunkState.DONE)
    return {(metric_id, start.astimezone(UTC)) for metric_id, start in rows}


def recount(account: Account, counted: Iterable[BackfillChunk], run_id: str) -> None:
    """Record how many events chunks have according to both sides, and that a run has counted them."""
    for chunk in counted:
        _update(
            account,
            chunk,
            "expected = %(expected)s, loaded = %(loaded)s, counted_by = %(run_id)s",
            expected=chunk.expected,
            loaded=chunk.loaded,
            run_id=run_id,
        )


def add(account: Account, found: Iterable[BackfillChunk], run_id: str | None = None) -> list[BackfillChunk]:
    """Add chunks to the ledger, and return them, as counted and planned by a run.

    Those that it already contains stay unchanged there.
    """
    planned = [each._replace(planned_by=run_id) for each in found]
    account.execute_many(
        "INSERT INTO {} (esp_integration_id, metric_id, window_start, window_end, expected, loaded, state, attempts,"
        " seconds, updated_at, counted_by, planned_by)"
        " VALUES (%(account)s, %(metric_id)s, %(window_start)s, %(window_end)s, %(expected)s, 0, %(state)s,"
        " 0, 0, now(), %(planned_by)s, %(planned_by)s) ON CONFLICT DO NOTHING",
        (each._asdict() for each in planned),
        bookkeeping.BACKFILL_CHUNKS,
    )
    return planned


def forget(account: Account, metric_ids: Sequence[str], window: Window, run_id: str) -> None:
    """Forget what has been read of metrics in a window, so that a run reads it again. Stored events are kept.

    Chunks in the window are deleted. One that is partly outside is planned again as a whole, since otherwise the rest
    of it would no longer count as read; the number of its events is not known then.
    """
    values = {"metric_ids": list(metric_ids), "start": window.start, "end": window.end}
    of_metrics = "esp_integration_id = %(account)s AND metric_id = ANY(%(metric_ids)s)"
    account.execute(
        f"DELETE FROM {{}} WHERE {of_metrics} AND window_start >= %(start)s AND window_end <= %(end)s",
        bookkeeping.BACKFILL_CHUNKS,
        **values,
    )
    account.execute(
        "UPDATE {} SET state = %(planned)s, expected = NULL, loaded = 0, reached = NULL, counted_by = NULL,"
        " planned_by = %(run_id)s, group_name = NULL, error = NULL, attempts = 0, seconds = 0, updated_at = now()"
        f" WHERE {of_metrics} AND window_start < %(end)s AND window_end > %(start)s",
        bookkeeping.BACKFILL_CHUNKS,
        planned=ChunkState.PLANNED,
        run_id=run_id,
        **values,
    )


def forget_before(account: Account, since: datetime) -> list[BackfillChunk]:
    """Forget that anything before a time has to be loaded or has been. Return the chunks that begin there now.

    They keep their state and checkpoint. The numbers of their events are not known any longer; see `record_loaded`.
    """
    earlier = "DELETE FROM {} WHERE esp_integration_id = %(account)s AND window_end <= %(since)s"
    account.execute(earlier, bookkeeping.BACKFILL_CHUNKS, since=since)
    begun = account.column(
        "UPDATE {} SET window_start = %(since)s, expected = NULL, loaded = 0, counted_by = NULL, updated_at = now(),"
        " reached = CASE WHEN reached > %(since)s THEN reached END"
        " WHERE esp_integration_id = %(account)s AND window_start < %(since)s RETURNING metric_id",
        bookkeeping.BACKFILL_CHUNKS,
        since=since,
    )
    query = f"{_SELECT} AND metric_id = ANY(%(begun)s) AND window_start = %(since)s"
    return account.select(_chunk, query, bookkeeping.BACKFILL_CHUNKS, begun=begun, since=since)


def record_loaded(account: Account, chunk: BackfillChunk, events: int) -> None:
    """Record how many events of a chunk are stored."""
    _update(account, chunk, "loaded = %(events)s", events=events)


def group(account: Account, chunks: Iterable[BackfillChunk], name: str) -> None:
    """Record that one run reads these chunks, under this name."""
    for chunk in chunks:
        _update(account, chunk, "group_name = %(name)s", name=name)


def part_claim(group_name: str) -> str:
    """Return the name of the claim that a run holds while it reads a group of chunks."""
    return f"backfill_part {group_name}"


def parts_alive(account: Account, group_names: Iterable[str] | None = None) -> set[str]:
    """Return the claims of runs that are reading groups of chunks: these groups, or all that are not done."""
    if group_names is None:
        group_names = account.column(_GROUPS, bookkeeping.BACKFILL_CHUNKS, done=ChunkState.DONE)
    return claims.held(account, [part_claim(name) for name in sorted(group_names)])


def ungroup(account: Account, names: Collection[str]) -> None:
    """Record that no run reads the chunks with these names any longer."""
    if names:
        account.execute(
            "UPDATE {} SET group_name = NULL WHERE esp_integration_id = %(account)s AND group_name = ANY(%(names)s)",
            bookkeeping.BACKFILL_CHUNKS,
            names=list(names),
        )


def begin(account: Account, chunk: BackfillChunk) -> None:
    """Count one more attempt, unless the chunk is done."""
    _update(account, chunk, "attempts = attempts + (state <> %(done)s)::int, error = NULL")


def advance(account: Account, chunk: BackfillChunk, loaded: int, seconds: float, reached: datetime | None) -> bool:
    """Record that `loaded` more events are stored, and everything before `reached`; None means the whole chunk.

    Returns False, and records nothing, if the ledger no longer has the chunk at the checkpoint of `chunk`.
    """
    return _update(
        account,
        chunk,
        "loaded = loaded + %(loaded)s, seconds = seconds + %(seconds)s, reached = coalesce(%(reached)s, window_end),"
        " state = CASE WHEN %(reached)s::timestamptz IS NULL THEN %(done)s ELSE state END",
        loaded=loaded,
        seconds=seconds,
        reached=reached,
        since=chunk.left.start,
        condition="state <> %(done)s AND coalesce(reached, window_start) = %(since)s",
    )


def fail(account: Account, chunk: BackfillChunk, error: str) -> None:
    """Record that reading a chunk failed, unless it is done.

    Its stored events are kept, and the next run resumes after them.
    """
    _update(
        account,
        chunk,
        "state = %(failed)s, error = %(error)s",
        failed=ChunkState.FAILED,
        error=error,
        condition="state <> %(done)s",
    )


def _update(
    account: Account, chunk: BackfillChunk, assignments: str, condition: str = "true", **values: object
) -> bool:
    """Change a chunk if it fulfils the condition. Return whether it did."""
    updated = account.execute(
        f"UPDATE {{}} SET {assignments}, updated_at = now() WHERE {_CHUNK} AND {condition}",
        bookkeeping.BACKFILL_CHUNKS,
        metric_id=chunk.metric_id,
        window_start=chunk.window_start,
        done=ChunkState.DONE,
        **values,
    )
    return bool(updated.rowcount)
