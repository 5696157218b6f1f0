"""What is known of the work itself: accounts, watermarks, runs, chunks and counts. The caller owns the transaction."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from klaviyo_pg.catalogue import Table, bookkeeping, dimensions, events, membership
from klaviyo_pg.postgres.erase import wait_for_erasing
from klaviyo_pg.postgres.statements import ESP_SOURCE

COUNTS = ("rows_read", "inserted", "updated", "unchanged", "rejected", "nul_characters")


class Opened(NamedTuple):
    """A run that may begin; `continued` where an earlier one of the same selection did not finish."""

    run_id: str
    as_of: datetime
    continued: bool


def _sql(schema: str, query: str, *tables: Table) -> Composed:
    return SQL(query).format(*(Identifier(schema, table.name) for table in tables))


def register(
    connection: Connection,
    schema: str,
    name: str,
    account_id: str | None,
    personal_data: str = "keep",
    salt_digest: str | None = None,
) -> str:
    """The integration id of an account by its name in this warehouse; made once, when the name is first seen.

    What is made of personal data is noted then, too; `protection` tells it.
    """
    query = _sql(
        schema,
        "INSERT INTO {} AS stored (name, esp_integration_id, account_id, created_at, personal_data, salt_digest)"
        " VALUES (%s, %s, %s, now(), %s, %s)"
        " ON CONFLICT (name) DO UPDATE SET account_id = coalesce(excluded.account_id, stored.account_id)"
        " RETURNING esp_integration_id",
        bookkeeping.INTEGRATIONS,
    )
    values = [name, str(uuid.uuid4()), account_id, personal_data, salt_digest]
    row = connection.execute(query, values).fetchone()
    assert row is not None
    return str(row[0])


def protection(connection: Connection, schema: str, integration_id: str) -> tuple[str, str | None]:
    """What has been made of the personal data of an account's rows so far, and the digest of the salt."""
    query = _sql(
        schema,
        "SELECT coalesce(personal_data, 'keep'), salt_digest FROM {} WHERE esp_integration_id = %s",
        bookkeeping.INTEGRATIONS,
    )
    row = connection.execute(query, [integration_id]).fetchone()
    assert row is not None
    return row[0], row[1]


def known_account(connection: Connection, schema: str, name: str) -> str | None:
    """The Klaviyo account that this name has stood for so far."""
    query = _sql(schema, "SELECT account_id FROM {} WHERE name = %s", bookkeeping.INTEGRATIONS)
    row = connection.execute(query, [name]).fetchone()
    return row[0] if row else None


def open_run(
    connection: Connection, schema: str, integration_id: str, flow: str, selection: str, now: datetime
) -> Opened:
    """Begin a run, or go on with today's run of the same selection that did not finish."""
    query = _sql(
        schema,
        "SELECT run_id, as_of FROM {} WHERE esp_integration_id = %s AND flow = %s AND selection = %s"
        " AND state IN ('running', 'failed', 'to be continued') AND as_of >= date_trunc('day', %s::timestamptz, 'UTC')"
        " ORDER BY as_of DESC LIMIT 1 FOR UPDATE",
        bookkeeping.RUNS,
    )
    unfinished = connection.execute(query, [integration_id, flow, selection, now]).fetchone()
    run = Opened(unfinished[0], unfinished[1], True) if unfinished else Opened(str(uuid.uuid4()), now, False)
    connection.execute(
        _sql(
            schema,
            "INSERT INTO {} (run_id, esp_integration_id, flow, selection, as_of, started_at, state, requests, retries)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'running', 0, 0)"
            " ON CONFLICT (run_id) DO UPDATE SET started_at = excluded.started_at, state = 'running', message = NULL",
            bookkeeping.RUNS,
        ),
        [run.run_id, integration_id, flow, selection, run.as_of, now],
    )
    return run


class Begun(NamedTuple):
    """A run that is under way."""

    integration_id: str
    account_id: str | None
    as_of: datetime


def begun(connection: Connection, schema: str, name: str, run_id: str) -> Begun | None:
    """A run of the account of this name, if there is one."""
    query = _sql(
        schema,
        "SELECT esp_integration_id, account.account_id, run.as_of FROM {} AS run"
        " JOIN {} AS account USING (esp_integration_id) WHERE run.run_id = %s AND account.name = %s",
        bookkeeping.RUNS,
        bookkeeping.INTEGRATIONS,
    )
    row = connection.execute(query, [run_id, name]).fetchone()
    return None if row is None else Begun(*row)


def close_run(connection: Connection, schema: str, run_id: str, state: str, message: str | None) -> None:
    query = _sql(
        schema,
        "UPDATE {} SET state = %s, message = %s, finished_at = now() WHERE run_id = %s",
        bookkeeping.RUNS,
    )
    connection.execute(query, [state, message, run_id])


class LastRun(NamedTuple):
    """The run that began last: its flow, how it stands, when it began (UTC)."""

    flow: str
    state: str
    started_at: datetime


def last_run(connection: Connection, schema: str, integration_id: str) -> LastRun | None:
    query = _sql(
        schema,
        "SELECT flow, state, started_at AT TIME ZONE 'UTC' FROM {} WHERE esp_integration_id = %s"
        " ORDER BY started_at DESC LIMIT 1",
        bookkeeping.RUNS,
    )
    row = connection.execute(query, [integration_id]).fetchone()
    return None if row is None else LastRun(*row)


class Counted(Protocol):
    """Requests sent, and how many of them were sent again."""

    @property
    def requests(self) -> int: ...

    @property
    def retries(self) -> int: ...


def add_requests(connection: Connection, schema: str, run_id: str, traffic: Counted) -> None:
    """Add requests to those of the run."""
    query = _sql(
        schema,
        "UPDATE {} SET requests = requests + %s, retries = retries + %s WHERE run_id = %s",
        bookkeeping.RUNS,
    )
    connection.execute(query, [traffic.requests, traffic.retries, run_id])


def plan_chunks(
    connection: Connection, schema: str, run_id: str, integration_id: str, chunks: Iterable[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Note what the run has to read, as (stream, part); answers those that are done already."""
    add = _sql(
        schema,
        "INSERT INTO {} (run_id, esp_integration_id, stream, part, state) VALUES (%s, %s, %s, %s, 'planned')"
        " ON CONFLICT DO NOTHING",
        bookkeeping.CHUNKS,
    )
    with connection.cursor() as cursor:
        cursor.executemany(add, [(run_id, integration_id, stream, part) for stream, part in chunks])
    done = _sql(schema, "SELECT stream, part FROM {} WHERE run_id = %s AND state = 'done'", bookkeeping.CHUNKS)
    return {(stream, part) for stream, part in connection.execute(done, [run_id])}


def finish_chunk(connection: Connection, schema: str, run_id: str, stream: str, part: str) -> bool:
    """Note that a chunk is loaded; answers whether it was the last one of its stream in this run.

    The stream's chunks are locked in order, so that of two chunks that end at the same time one sees the other.
    """
    lock = _sql(
        schema,
        "SELECT part, state FROM {} WHERE run_id = %s AND stream = %s ORDER BY part FOR UPDATE",
        bookkeeping.CHUNKS,
    )
    states: dict[str, str] = dict(connection.execute(lock, [run_id, stream]).fetchall())
    finish = _sql(
        schema,
        "UPDATE {} SET state = 'done', done_at = now() WHERE run_id = %s AND stream = %s AND part = %s",
        bookkeeping.CHUNKS,
    )
    connection.execute(finish, [run_id, stream, part])
    return all(state == "done" for other, state in states.items() if other != part)


def watermarks(connection: Connection, schema: str, integration_id: str) -> dict[str, datetime]:
    """How far each stream has been read: stream -> time."""
    query = _sql(schema, "SELECT stream, watermark FROM {} WHERE esp_integration_id = %s", bookkeeping.WATERMARKS)
    return dict(connection.execute(query, [integration_id]).fetchall())


def advance_watermark(
    connection: Connection,
    schema: str,
    integration_id: str,
    stream: str,
    start: datetime | None,
    until: datetime,
) -> None:
    """Note that a stream is read from `start` (None: from its beginning) to `until`.

    A watermark never goes back, and a stretch that begins after it leaves it alone: there would be a gap behind. Where
    the stretch begins before what had been read, what has been read begins with it.
    """
    query = _sql(
        schema,
        "INSERT INTO {} AS stored (esp_integration_id, stream, watermark, since) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (esp_integration_id, stream) DO UPDATE SET watermark = excluded.watermark,"
        " since = least(stored.since, excluded.since)"
        " WHERE stored.watermark < excluded.watermark"
        " AND (excluded.since IS NULL OR excluded.since <= stored.watermark)",
        bookkeeping.WATERMARKS,
    )
    connection.execute(query, [integration_id, stream, until, start])


def add_counts(
    connection: Connection,
    schema: str,
    run_id: str,
    integration_id: str,
    counts: Mapping[str, Mapping[str, int]],
) -> None:
    """Add counts of rows, by table, to those of the run. Tables in order, so that concurrent loads cannot deadlock."""
    additions = SQL(", ").join(SQL("{0} = stored.{0} + excluded.{0}").format(Identifier(name)) for name in COUNTS)
    query = SQL(
        "INSERT INTO {table} AS stored (run_id, esp_integration_id, table_name, {names})"
        " VALUES (%s, %s, %s, {values}) ON CONFLICT (run_id, table_name) DO UPDATE SET {additions}"
    ).format(
        table=Identifier(schema, bookkeeping.RUN_TABLES.name),
        names=SQL(", ").join(map(Identifier, COUNTS)),
        values=SQL(", ").join(SQL("%s") for _ in COUNTS),
        additions=additions,
    )
    for table, numbers in sorted(counts.items()):
        connection.execute(query, [run_id, integration_id, table, *(numbers.get(name, 0) for name in COUNTS)])


def run_counts(connection: Connection, schema: str, run_id: str) -> dict[str, dict[str, int]]:
    """Counts of rows of a run, by table."""
    query = SQL("SELECT table_name, {} FROM {} WHERE run_id = %s").format(
        SQL(", ").join(map(Identifier, COUNTS)), Identifier(schema, bookkeeping.RUN_TABLES.name)
    )
    return {name: dict(zip(COUNTS, numbers, strict=True)) for name, *numbers in connection.execute(query, [run_id])}


def run_requests(connection: Connection, schema: str, run_id: str) -> tuple[int, int]:
    """Requests sent and retries of a run."""
    query = _sql(schema, "SELECT requests, retries FROM {} WHERE run_id = %s", bookkeeping.RUNS)
    row = connection.execute(query, [run_id]).fetchone()
    return (row[0], row[1]) if row else (0, 0)


class KnownMetric(NamedTuple):
    """A metric as the warehouse knows it."""

    id: str
    name: str | None
    destination: str
    is_deleted: bool = False


def metrics(connection: Connection, schema: str, integration_id: str) -> list[KnownMetric]:
    """The account's metrics, those that the source has deleted included.

    Their events may still be read with those of all metrics; asked for by name, the source refuses them.
    """
    query = _sql(
        schema,
        "SELECT id, name, destination, deleted_at IS NOT NULL FROM {} WHERE esp_integration_id = %s ORDER BY id",
        dimensions.METRICS,
    )
    return [KnownMetric(*row) for row in connection.execute(query, [integration_id])]


def list_ids(connection: Connection, schema: str, integration_id: str) -> list[str]:
    """The ids of the account's lists (not segments) that the source still has."""
    query = _sql(
        schema,
        "SELECT id FROM {} WHERE esp_integration_id = %s AND list_type = 'list' AND deleted_at IS NULL ORDER BY id",
        dimensions.LISTS,
    )
    return [row[0] for row in connection.execute(query, [integration_id])]


def subscribers(
    connection: Connection, schema: str, integration_id: str, since: datetime | None, behind: str, most: int
) -> list[tuple[str, str | None]]:
    """People of whom it was learned since then that they joined a list: (profile id, e-mail address or else phone).

    The latter is as it is stored: hashed or null, unless personal data are kept.
    """
    query = _sql(
        schema,
        "SELECT member.id, coalesce(member.email, member.phone_number) FROM {} AS member"
        " WHERE member.esp_integration_id = %s AND member.id > %s"
        " AND EXISTS (SELECT FROM {} AS change"
        " WHERE change.esp_integration_id = member.esp_integration_id AND change.member_id = member.id"
        " AND change.change = 'subscribed' AND change.__synced_at >= coalesce(%s, '-infinity'::timestamptz))"
        " ORDER BY member.id LIMIT %s",
        dimensions.MEMBERS,
        membership.SUBSCRIPTION_CHANGES,
    )
    return connection.execute(query, [integration_id, behind, since, most]).fetchall()


def unknown_members(connection: Connection, schema: str, integration_id: str, behind: str, most: int) -> list[str]:
    """Ids of profiles that lists and events name, but that have no row in members, in order, behind a given one."""
    query = _sql(
        schema,
        "SELECT DISTINCT named.member_id FROM (SELECT member_id, esp_integration_id FROM {} UNION"
        " SELECT member_id, esp_integration_id FROM {}) AS named"
        " WHERE named.esp_integration_id = %(id)s AND named.member_id > %(behind)s"
        " AND NOT EXISTS (SELECT FROM {} AS member"
        " WHERE member.key = md5(%(source)s || ':' || %(id)s || ':' || named.member_id)) ORDER BY 1 LIMIT %(most)s",
        membership.STG_MEMBER_LISTS,
        membership.SUBSCRIPTION_CHANGES,
        dimensions.MEMBERS,
    )
    values = {"id": integration_id, "source": ESP_SOURCE, "behind": behind, "most": most}
    return [row[0] for row in connection.execute(query, values)]


def move_events(
    connection: Connection, schema: str, integration_id: str, metric_id: str, source: str, target: str
) -> int:
    """Move a metric's events from one event table to another; answers how many. An event stands in one table only.

    Nobody is erased meanwhile: events on their way would be overlooked.
    """
    wait_for_erasing(connection, schema)
    columns = SQL(", ").join(map(Identifier, events.EVENTS.column_names))
    query = SQL(
        "WITH moved AS (DELETE FROM {} WHERE metric_key = md5(%s) RETURNING {columns})"
        " INSERT INTO {} ({columns}) SELECT {columns} FROM moved ON CONFLICT DO NOTHING"
    ).format(Identifier(schema, source), Identifier(schema, target), columns=columns)
    return connection.execute(query, [f"{ESP_SOURCE}:{integration_id}:{metric_id}"]).rowcount
