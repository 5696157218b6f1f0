"""Repair of what runs recorded while a clock was ahead. The caller owns the transaction.

A run was ahead if its time is in the future, or later than the time at which the database noted its progress. What such
a run stored is right, but it did not read up to the time that it recorded.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from psycopg.sql import Identifier

from klaviyo_pg.catalogue import Table, bookkeeping, dimensions, membership
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.states import UNFINISHED, ChunkState, RunState

# `first` and `last` are when the database noted progress of the run.
_AHEAD = """
SELECT run_id, as_of, coalesce((SELECT min(done_at) FROM {chunks} WHERE run_id = run.run_id), finished_at) AS first,
    coalesce(finished_at, (SELECT max(done_at) FROM {chunks} WHERE run_id = run.run_id)) AS last
FROM {runs} AS run WHERE esp_integration_id = %(account)s AND (
    greatest(as_of, started_at, finished_at) > %(latest)s OR finished_at < as_of - %(tolerance)s
    OR finished_at IS NULL AND EXISTS (
        SELECT FROM {chunks} WHERE run_id = run.run_id AND done_at < run.as_of - %(tolerance)s
    )
)
"""
# Without its selection, no run can resume it: not even on the day at which it believed to be.
_CORRECT_RUN = """
UPDATE {runs} SET as_of = %(at)s, started_at = least(started_at, %(at)s), finished_at = least(finished_at, %(now)s),
    selection = CASE WHEN state = ANY(%(unfinished)s) THEN NULL ELSE selection END,
    state = CASE WHEN state = ANY(%(unfinished)s) THEN %(failed)s ELSE state END,
    message = concat_ws(' ', message, %(note)s::text)
WHERE run_id = %(run_id)s RETURNING selection IS NULL
"""
_LATE_WATERMARKS = """
SELECT stream, watermark, since, table_name IS NULL FROM {watermarks} WHERE esp_integration_id = %(account)s
AND (watermark > %(latest)s OR watermark = ANY(%(times)s))
"""
_LAST_RIGHT_RUN = """
SELECT max(as_of) FROM {runs}
WHERE esp_integration_id = %(account)s AND as_of <= %(before)s AND run_id <> ALL(%(ahead)s)
"""
_FORGET_HISTORY = """
DELETE FROM {backfill_chunks} WHERE esp_integration_id = %(account)s
AND (window_end > %(latest)s OR state = %(done)s AND updated_at < window_end)
"""
_FORGET_COUNTS = "DELETE FROM {} WHERE esp_integration_id = %(account)s AND window_end > %(latest)s"
_CORRECT_TIME = """
UPDATE {table} SET {column} = %(now)s WHERE esp_integration_id = %(account)s AND {column} > %(latest)s
"""
# Only a later run may confirm that a profile is missing.
_MISSED_ONCE = """
UPDATE {missing_profiles}
SET last_missing_at = least(missing_since, %(now)s), missing_since = least(missing_since, %(now)s)
WHERE esp_integration_id = %(account)s AND last_missing_at > %(latest)s
"""
_COUNTED = (bookkeeping.RECONCILIATION, bookkeeping.RECONCILED_HISTORY)
_TIMES: Sequence[tuple[Table, str]] = (
    (bookkeeping.RECONCILIATION, "checked_at"),
    (bookkeeping.RECONCILIATION, "read_again_at"),
    (bookkeeping.RECONCILED_HISTORY, "checked_at"),
    (bookkeeping.MISSING_ROWS, "missed_at"),
    (membership.PROFILE_MERGES, "detected_at"),
)
"""Times that later runs compare with theirs, in tables that are small enough to look through in every run."""
_TIMES_OF_ROWS: Sequence[tuple[Table, str]] = (
    (dimensions.METRICS, "deleted_at"),
    (dimensions.CAMPAIGNS, "deleted_at"),
    (dimensions.AUTOMATIONS, "deleted_at"),
    (dimensions.LISTS, "deleted_at"),
    (membership.STG_MEMBER_LISTS, "absent_since"),
)
"""Times in tables that are looked through only if a run was ahead."""


class Ahead(NamedTuple):
    """A run that was ahead: the time that it recorded, and the first and last time at which it certainly ran."""

    run_id: str
    as_of: datetime
    first: datetime | None
    last: datetime | None


class Repair(NamedTuple):
    """Numbers of watermarks, unfinished runs and chunks of history that were corrected, and the latest wrong time."""

    watermarks: int = 0
    runs: int = 0
    chunks: int = 0
    latest: datetime | None = None

    @property
    def sentence(self) -> str | None:
        """The sentence for the message of the run; None if nothing was wrong."""
        parts = [
            f"set back {counted(self.watermarks, 'watermark')}" if self.watermarks else "",
            f"closed {counted(self.runs, 'unfinished run')}" if self.runs else "",
            f"forgot {counted(self.chunks, 'chunk')} of history" if self.chunks else "",
        ]
        done = [part for part in parts if part]
        if not done:
            return None
        until = f" ({self.latest.astimezone(UTC):%Y-%m-%d %H:%M} UTC)" if self.latest else ""
        return (
            f"An earlier run's clock was ahead{until}. This run {' and '.join(done)}, and reads what has come since "
            "the last correct time."
        )


def repair(account: Account, now: datetime, tolerance: timedelta) -> Repair:
    """Set right what runs of the account recorded while a clock was ahead. Changes nothing if none was.

    `now` is the database's present; times up to `tolerance` after it are not taken for wrong.
    """
    values = {"now": now, "latest": now + tolerance, "tolerance": tolerance}
    ahead = [Ahead(*row) for row in account.execute(_AHEAD, **values)]
    watermarks = _set_back(account, ahead, now, now + tolerance)
    closed = sum(_correct(account, run, now) for run in ahead)
    chunks = account.execute(_FORGET_HISTORY, done=ChunkState.DONE, **values).rowcount
    for table in _COUNTED:
        account.execute(_FORGET_COUNTS, table, **values)
    account.execute(_MISSED_ONCE, **values)
    for table, column in (*_TIMES, *(_TIMES_OF_ROWS if ahead or watermarks else ())):
        query = account.compose(_CORRECT_TIME, table=account.table(table), column=Identifier(column))
        account.execute(query, **values)
    latest = max([*watermarks, *(run.as_of for run in ahead)], default=None)
    return Repair(len(watermarks), closed, chunks, latest)


def _set_back(account: Account, ahead: Sequence[Ahead], now: datetime, latest: datetime) -> list[datetime]:
    """Set watermarks back that are in the future or those of runs that were ahead. Returns what they were.

    Sweeps, which fill no table, become due again.
    """
    times = [run.as_of for run in ahead]
    late = account.execute(_LATE_WATERMARKS, latest=latest, times=times).fetchall()
    begun = min((run.first for run in ahead if run.first and run.first <= latest), default=None)
    right = _last_right_run(account, ahead, begun)
    for stream, watermark, since, is_sweep in late:
        has_run = watermark in times and begun is not None
        until = _right(since, right, begun) if has_run and begun else _right(since, None, now)
        _replace(account, stream, None if is_sweep else until)
    return [watermark for _, watermark, _, _ in late]


def _last_right_run(account: Account, ahead: Sequence[Ahead], before: datetime | None) -> datetime | None:
    """Return the time of the last run that was not ahead, of those before a time at which another one was."""
    ids = [run.run_id for run in ahead]
    time: datetime | None = account.scalar(_LAST_RIGHT_RUN, before=before, ahead=ids)
    return time


def _right(since: datetime | None, last_run: datetime | None, begun: datetime) -> datetime | None:
    """Return up to when a stream has certainly been read; None if that is unknown.

    That is the time of the last run that was right before the first one that was ahead, which had `begun` at this time.
    Without such a run it is `since`, from which the stream has been read; if that was ahead as well, nothing was read.
    """
    if since is not None and since > begun:
        return None
    return max((each for each in (since, last_run) if each is not None), default=None)


def _replace(account: Account, stream: str, watermark: datetime | None) -> None:
    """Set a watermark back. None deletes it, so that the stream is read as if for the first time."""
    if watermark is None:
        account.execute(
            "DELETE FROM {watermarks} WHERE esp_integration_id = %(account)s AND stream = %(stream)s",
            stream=stream,
        )
    else:
        account.execute(
            "UPDATE {watermarks} SET watermark = %(watermark)s"
            " WHERE esp_integration_id = %(account)s AND stream = %(stream)s",
            stream=stream,
            watermark=watermark,
        )


def _correct(account: Account, run: Ahead, now: datetime) -> bool:
    """Correct the times of a run that was ahead. Returns True if it was unfinished, and closes it then."""
    recorded = f"{run.as_of.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return account.is_true(
        _CORRECT_RUN,
        run_id=run.run_id,
        at=min(time for time in (run.as_of, run.last, now) if time),
        now=now,
        unfinished=list(UNFINISHED),
        failed=RunState.FAILED,
        note=f"The clock was ahead: this run recorded {recorded}.",
    )
