"""The ledger of runs: their states, requests and row counts. The caller owns the transaction."""

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Identifier, Placeholder

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import kept, qualified
from klaviyo_pg.states import FINISHED, UNFINISHED, RunState
from klaviyo_pg.traffic import Traffic

COUNTS = ("rows_read", "inserted", "updated", "unchanged", "rejected", "nul_characters", "replaced_values")
"""The columns of `run_tables` that count rows."""

_GONE = "The process of this run ended, or lost its connection, before the run did. Another run has begun since."


class OpenedRun(NamedTuple):
    """A run that has been opened. `is_resumed` is true if it continues an earlier run that did not finish.

    `is_limited` is true if arguments have limited what it reads each time that it was opened.
    """

    run_id: str
    as_of: datetime
    is_resumed: bool
    is_limited: bool


class StartedRun(NamedTuple):
    """A run that another process may have opened, with the IDs of its account.

    `is_latest` is true if no other run of the flow has been taken since.
    """

    integration_id: str
    account_id: str | None
    as_of: datetime
    is_latest: bool


class LastRun(NamedTuple):
    """The run that started last, when it started or was last resumed, and the rows that it counted in all tables.

    `finished_at` is None while it is in progress, and after its process was killed until the next run begins. Times are
    in UTC.
    """

    flow: str
    state: RunState
    started_at: datetime
    finished_at: datetime | None
    message: str | None
    requests: int
    rows_read: int
    inserted: int
    updated: int
    rejected: int

    @property
    def duration(self) -> timedelta | None:
        """The time since it was last resumed; None if it has not finished."""
        return None if self.finished_at is None else self.finished_at - self.started_at


def open_run(account: Account, flow: str, selection: str, now: datetime, is_limited: bool) -> OpenedRun:
    """Open a run. It resumes the unfinished run with the same selection, if there is one from the same day (UTC).

    `is_limited`: arguments limit what it reads. The same selection from the settings alone is the whole account.
    """
    unfinished = account.execute(
        "SELECT run_id, as_of FROM {} WHERE esp_integration_id = %(account)s AND flow = %(flow)s"
        " AND selection = %(selection)s AND state = ANY(%(unfinished)s)"
        " AND as_of >= date_trunc('day', %(now)s::timestamptz, 'UTC') ORDER BY as_of DESC LIMIT 1 FOR UPDATE",
        bookkeeping.RUNS,
        flow=flow,
        selection=selection,
        unfinished=list(UNFINISHED),
        now=now,
    ).fetchone()
    run_id, as_of = unfinished or (str(uuid.uuid4()), now)
    stored = account.execute(
        "INSERT INTO {} AS run"
        " (run_id, esp_integration_id, flow, selection, is_limited, as_of, started_at, state, requests, retries)"
        " VALUES (%(run_id)s, %(account)s, %(flow)s, %(selection)s, %(is_limited)s, %(as_of)s, %(now)s, %(running)s,"
        " 0, 0) ON CONFLICT (run_id) DO UPDATE SET started_at = excluded.started_at, state = excluded.state,"
        " message = NULL, finished_at = NULL, is_limited = run.is_limited AND excluded.is_limited"
        " RETURNING is_limited IS TRUE",
        bookkeeping.RUNS,
        run_id=run_id,
        flow=flow,
        selection=selection,
        is_limited=is_limited,
        as_of=as_of,
        now=now,
        running=RunState.RUNNING,
    ).fetchone()
    assert stored is not None
    return OpenedRun(run_id, as_of, unfinished is not None, stored[0])


def add_refused(connection: Connection, schema: str, name: str, flow: str, state: RunState, message: str) -> None:
    """Add a run that ended before it began, for the account of this name, if it is registered and stays.

    No other run resumes it.
    """
    query = SQL(
        "INSERT INTO {} (run_id, esp_integration_id, flow, as_of, started_at, finished_at, state, message)"
        " SELECT %(run_id)s, esp_integration_id, %(flow)s, date_trunc('second', now()), date_trunc('second', now()),"
        " now(), %(state)s, %(message)s FROM {} WHERE name = %(name)s AND removing_since IS NULL"
        " FOR SHARE"  # so that its removal does not begin before the row is visible to it
    ).format(qualified(schema, bookkeeping.RUNS), qualified(schema, bookkeeping.INTEGRATIONS))
    values = {"run_id": str(uuid.uuid4()), "name": name, "flow": flow, "state": state, "message": message}
    connection.execute(query, values)


def begin_anew(account: Account, flow: str) -> None:
    """Let no later run of a flow resume one that did not finish."""
    account.execute(
        "UPDATE {} SET selection = NULL WHERE esp_integration_id = %(account)s AND flow = %(flow)s"
        " AND state = ANY(%(unfinished)s)",
        bookkeeping.RUNS,
        flow=flow,
        unfinished=list(UNFINISHED),
    )


def take(account: Account, flow: str, run_id: str, session_id: str) -> None:
    """Record that a session writes to a run, and no other one to any run of the flow. Those in progress have ended."""
    account.execute(
        "UPDATE {} SET session_id = CASE WHEN run_id = %(run_id)s THEN %(session_id)s END"
        " WHERE esp_integration_id = %(account)s AND flow = %(flow)s"
        " AND (run_id = %(run_id)s OR session_id IS NOT NULL)",
        bookkeeping.RUNS,
        flow=flow,
        run_id=run_id,
        session_id=session_id,
    )
    account.execute(
        "UPDATE {} SET state = %(failed)s, message = %(message)s, finished_at = now()"
        " WHERE esp_integration_id = %(account)s AND flow = %(flow)s AND state = %(running)s AND run_id <> %(run_id)s",
        bookkeeping.RUNS,
        flow=flow,
        run_id=run_id,
        failed=RunState.FAILED,
        message=_GONE,
        running=RunState.RUNNING,
    )


def is_taken(account: Account, flow: str, session_id: str) -> bool:
    """Return whether another session than this one was the last to take a run of a flow."""
    query = "SELECT FROM {} WHERE esp_integration_id = %(account)s AND flow = %(flow)s AND session_id <> %(session_id)s"
    return bool(account.execute(query, bookkeeping.RUNS, flow=flow, session_id=session_id).rowcount)


def restart(account: Account, run_id: str, is_read: Callable[[datetime], bool]) -> bool:
    """Record that a run drops what the ledger has of its window. Returns False if that has already happened.

    It has already happened if this run did so before it was resumed, or if it continues the last run with the same
    selection, which did so and was not finished, whatever day that was. Such a restart is over once any run of the
    flow, including that one, has ended after it, and `is_read` returns that the ledger has everything that there was to
    read at its time.
    """
    row = account.execute(
        "SELECT last.restarted_at, last.as_of, EXISTS (SELECT FROM {} AS ended"
        " WHERE ended.esp_integration_id = mine.esp_integration_id AND ended.flow = mine.flow"
        " AND ended.state <> ALL(%(unfinished)s) AND ended.finished_at > last.restarted_at)"
        " FROM {} AS mine CROSS JOIN LATERAL ("
        " SELECT restarted_at, state, as_of FROM {} AS run WHERE run.esp_integration_id = mine.esp_integration_id"
        " AND run.flow = mine.flow AND run.selection = mine.selection"
        " AND (run.run_id <> mine.run_id OR run.restarted_at IS NOT NULL)"
        " ORDER BY run.run_id = mine.run_id DESC, started_at DESC, finished_at DESC NULLS FIRST LIMIT 1) AS last"
        " WHERE mine.run_id = %(run_id)s AND last.state <> ALL(%(finished)s)",
        bookkeeping.RUNS,
        bookkeeping.RUNS,
        bookkeeping.RUNS,
        run_id=run_id,
        finished=list(FINISHED),
        unfinished=list(UNFINISHED),
    ).fetchone()
    restarted_at, as_of, has_ended = row or (None, None, False)
    if has_ended and is_read(as_of):
        restarted_at = None
    account.execute(
        "UPDATE {} SET restarted_at = coalesce(%(restarted_at)s, now()) WHERE run_id = %(run_id)s",
        bookkeeping.RUNS,
        run_id=run_id,
        restarted_at=restarted_at,
    )
    return restarted_at is None


def find_run(connection: Connection, schema: str, name: str, run_id: str) -> StartedRun | None:
    """Return a run of the account with this name, or None if it has no such run."""
    query = SQL(
        "SELECT esp_integration_id AS integration_id, account.account_id, run.as_of,"
        " run.session_id IS NOT NULL AS is_latest FROM {} AS run"
        " JOIN {} AS account USING (esp_integration_id) WHERE run.run_id = %s AND account.name = %s"
    ).format(qualified(schema, bookkeeping.RUNS), qualified(schema, bookkeeping.INTEGRATIONS))
    with connection.cursor(row_factory=class_row(StartedRun)) as cursor:
        return cursor.execute(query, [run_id, name]).fetchone()


def close_run(account: Account, run_id: str, state: RunState, message: str | None) -> None:
    """Record that a run finished, with its state and its errors."""
    account.execute(
        "UPDATE {} SET state = %(state)s, message = %(message)s, finished_at = now() WHERE run_id = %(run_id)s",
        bookkeeping.RUNS,
        run_id=run_id,
        state=state,
        message=message,
    )


def last_duration(account: Account, flow: str, selection: str) -> timedelta | None:
    """Return how long the last complete run with this selection took; None if it was resumed, or the account's first.

    Neither says how long the next one takes: a resumed run read only the rest, and a first run all history.
    """
    duration: timedelta | None = account.scalar(
        "SELECT finished_at - started_at FROM {} AS run WHERE esp_integration_id = %(account)s AND flow = %(flow)s"
        " AND selection = %(selection)s AND state = ANY(%(finished)s) AND as_of = started_at"
        " AND finished_at > started_at AND EXISTS (SELECT FROM {} AS earlier"
        " WHERE earlier.esp_integration_id = run.esp_integration_id AND earlier.flow = run.flow"
        " AND earlier.selection = run.selection AND earlier.finished_at < run.started_at"
        " AND earlier.state = ANY(%(finished)s))"
        " ORDER BY started_at DESC LIMIT 1",
        bookkeeping.RUNS,
        bookkeeping.RUNS,
        flow=flow,
        selection=selection,
        finished=list(FINISHED),
    )
    return duration


def last_run(account: Account, flow: str | None = None) -> LastRun | None:
    """Return the run of the account, or of one of its flows, that started last; None if there was none."""
    row = account.execute(
        "SELECT flow, state, started_at, finished_at, message, coalesce(requests, 0), rows.* FROM {} AS run"
        " CROSS JOIN LATERAL (SELECT coalesce(sum(rows_read), 0)::bigint, coalesce(sum(inserted), 0)::bigint,"
        " coalesce(sum(updated), 0)::bigint, coalesce(sum(rejected), 0)::bigint FROM {} AS counts"
        " WHERE counts.run_id = run.run_id) AS rows WHERE esp_integration_id = %(account)s"
        " AND flow = coalesce(%(flow)s, flow) ORDER BY started_at DESC LIMIT 1",
        bookkeeping.RUNS,
        bookkeeping.RUN_TABLES,
        flow=flow,
    ).fetchone()
    if row is None:
        return None
    flow, state, started_at, finished_at, *others = row
    return LastRun(flow, RunState(state), started_at.astimezone(UTC), _utc(finished_at), *others)


def last_limited_run(account: Account) -> datetime | None:
    """Return when the last daily run finished that arguments had limited; None if there was no such run.

    It counts if it left nothing out of what it was to read.
    """
    return _utc(
        account.scalar(
            "SELECT max(finished_at) FROM {} WHERE esp_integration_id = %(account)s AND flow = 'daily' AND is_limited"
            " AND state = ANY(%(finished)s)",
            bookkeeping.RUNS,
            finished=list(FINISHED),
        )
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)


def add_requests(account: Account, run_id: str, traffic: Traffic) -> None:
    """Add requests to those of a run."""
    account.execute(
        "UPDATE {} SET requests = requests + %(requests)s, retries = retries + %(retries)s WHERE run_id = %(run_id)s",
        bookkeeping.RUNS,
        run_id=run_id,
        requests=traffic.requests,
        retries=traffic.retries,
    )


def run_requests(account: Account, run_id: str) -> tuple[int, int]:
    """Return the numbers of requests and of retries of a run."""
    query = "SELECT requests, retries FROM {} WHERE run_id = %(run_id)s"
    row = account.execute(query, bookkeeping.RUNS, run_id=run_id).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def add_counts(account: Account, run_id: str, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Add row counts, by table, to those of a run. Counts that are not passed are 0."""
    query = _add_counts(account.schema)
    for table, numbers in sorted(counts.items()):  # in order, so that concurrent transactions cannot deadlock
        account.execute(query, run_id=run_id, table_name=table, **{**dict.fromkeys(COUNTS, 0), **numbers})


@kept
def _add_counts(schema: str) -> Composed:
    return SQL(
        "INSERT INTO {} AS stored (run_id, esp_integration_id, table_name, {names})"
        " VALUES (%(run_id)s, %(account)s, %(table_name)s, {values})"
        " ON CONFLICT (run_id, table_name) DO UPDATE SET {additions}"
    ).format(
        qualified(schema, bookkeeping.RUN_TABLES),
        names=SQL(", ").join(map(Identifier, COUNTS)),
        values=SQL(", ").join(map(Placeholder, COUNTS)),
        additions=SQL(", ").join(
            SQL("{0} = coalesce(stored.{0}, 0) + excluded.{0}").format(Identifier(name)) for name in COUNTS
        ),
    )


def has_rejected(account: Account, run_id: str, table: str) -> bool:
    """Return whether a run has rejected rows of a table so far."""
    return bool(run_counts(account, run_id).get(table, {}).get("rejected"))


def new_rejects(account: Account, run_id: str) -> int:
    """Return how many records a run has rejected that no earlier run had rejected."""
    query = "SELECT count(*) FROM {} WHERE esp_integration_id = %(account)s AND run_id = %(run_id)s"
    return int(account.scalar(query, bookkeeping.REJECTS, run_id=run_id))


def has_finished_before(account: Account, run_id: str) -> bool:
    """Return whether another run of the account has finished."""
    query = (
        "SELECT FROM {} WHERE esp_integration_id = %(account)s AND run_id <> %(run_id)s AND state = ANY(%(finished)s)"
        " LIMIT 1"
    )
    return bool(account.execute(query, bookkeeping.RUNS, run_id=run_id, finished=list(FINISHED)).rowcount)


def run_counts(account: Account, run_id: str) -> dict[str, dict[str, int]]:
    """Return the row counts of a run, by table."""
    query = account.compose(
        "SELECT table_name, {names} FROM {} WHERE run_id = %(run_id)s",
        bookkeeping.RUN_TABLES,
        names=SQL(", ").join(SQL("coalesce({}, 0)").format(Identifier(name)) for name in COUNTS),
    )
    rows = account.execute(query, run_id=run_id)
    return {name: dict(zip(COUNTS, numbers, strict=True)) for name, *numbers in rows}
