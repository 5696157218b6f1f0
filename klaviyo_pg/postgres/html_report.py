"""Queries for a report on a warehouse, none of which counts an event table. The caller owns the transaction.

Rows of large tables are estimated: by Postgres's statistics, or from a sample. Knows no HTML.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Generic, NamedTuple, TypeVar

from psycopg import Connection, errors
from psycopg.sql import SQL, Composable, Literal

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import TABLES, Table, bookkeeping, dimensions, membership, views
from klaviyo_pg.postgres import queries
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import place
from klaviyo_pg.postgres.views import conversions
from klaviyo_pg.postgres.views import revenue as attributed

_MOST_RUNS = 20
_MOST_REASONS = 1_000
_MOST_ROWS = 500_000  # of a table that is counted as a whole; of a larger one, about so many are sampled

Value = TypeVar("Value")


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """The result of a query, or a default and a sentence with the reason for it."""

    value: Value
    left_out: str | None = None


class PastRun(NamedTuple):
    """A run, with the rows that it changed and the records that it rejected. It has not finished if that is None."""

    flow: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    requests: int
    retries: int
    message: str | None
    changed: int
    rejected: int


class RequestsOfDay(NamedTuple):
    """The requests of the runs that started on a day (UTC), and the most of a run in a minute, on average over it.

    How fast a resumed run sent its requests is not known, because only the time of its last start is.
    """

    day: date
    runs: int
    requests: int
    retries: int
    in_a_minute: float | None


class Freshness(NamedTuple):
    """A row of the view `freshness`."""

    name: str
    stream: str
    table_name: str | None
    newest_event: datetime | None
    watermark: datetime | None
    age_hours: float | None
    differing_events: int | None
    count_state: str | None


class LoadedTable(NamedTuple):
    """Rows that runs since a time have read for a table, and the number of them that were new, changed and so on."""

    table_name: str
    rows_read: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int


class Rejected(NamedTuple):
    """Records of a table that could not be stored, for a reason."""

    table_name: str
    reason: str
    records: int
    first_at: datetime
    last_at: datetime


class StoredTable(NamedTuple):
    """A table with all its partitions: estimated rows of all accounts, and bytes with and of indexes."""

    name: str
    rows: int
    size: int
    indexes: int


class Consent(NamedTuple):
    """The number of people with a consent for a channel. `can_receive` is None if the source does not say it."""

    channel: str
    consent: str | None
    can_receive: bool | None
    people: int


class Excluded(NamedTuple):
    """The number of addresses that are excluded from email marketing for a reason."""

    reason: str | None
    addresses: int


class Estimated(NamedTuple, Generic[Value]):
    """Counts, and the percentage of the table that they were estimated from; None if it was counted."""

    rows: Sequence[Value]
    percent: float | None = None


class Revenue(NamedTuple):
    """Conversions and revenue that are attributed to a campaign or a flow, in a currency."""

    kind: str
    name: str
    currency: str | None
    conversions: int
    revenue: Decimal | None


def within(connection: Connection, seconds: float, query: Callable[[], Value], default: Value) -> Answer[Value]:
    """Run a query, but no longer than this. Without an answer, return the default and why."""
    try:
        with connection.transaction():
            connection.execute("SELECT set_config('statement_timeout', %s, true)", [f"{seconds * 1000:.0f}"])
            return Answer(query())
    except errors.QueryCanceled:
        return Answer(default, f"Left out, because counting took longer than {seconds:g} seconds.")
    except (errors.UndefinedTable, errors.UndefinedColumn):
        return Answer(default, "Left out, because an earlier version created this warehouse. The next run upgrades it.")


def past_runs(account: Account) -> list[PastRun]:
    """Return the latest runs, the last one first."""
    return account.select(
        PastRun,
        "SELECT flow, state, started_at, finished_at, coalesce(requests, 0) AS requests,"
        " coalesce(retries, 0) AS retries, message, changed, rejected FROM {} AS run CROSS JOIN LATERAL ("
        "SELECT coalesce(sum(inserted + updated), 0)::bigint AS changed, coalesce(sum(rejected), 0)::bigint AS rejected"
        " FROM {} AS counts WHERE counts.run_id = run.run_id) AS counts"
        " WHERE esp_integration_id = %(account)s ORDER BY started_at DESC LIMIT %(most)s",
        bookkeeping.RUNS,
        bookkeeping.RUN_TABLES,
        most=_MOST_RUNS,
    )


def requests_by_day(account: Account, since: datetime) -> list[RequestsOfDay]:
    """Return the requests of each day since a time on which a run started. A resumed run counts on its last start."""
    return account.select(
        RequestsOfDay,
        "SELECT (started_at AT TIME ZONE 'UTC')::date AS day, count(*) AS runs,"
        " coalesce(sum(requests), 0)::bigint AS requests, coalesce(sum(retries), 0)::bigint AS retries,"
        " max(requests / (greatest(extract(epoch FROM finished_at - started_at), 60) / 60))"
        " FILTER (WHERE started_at = as_of)::float8 AS in_a_minute"
        " FROM {} WHERE esp_integration_id = %(account)s AND started_at >= %(since)s GROUP BY 1 ORDER BY 1",
        bookkeeping.RUNS,
        since=since,
    )


def freshness(account: Account, name: str) -> list[Freshness]:
    """Return how fresh each stream of an account is, the oldest first."""
    query = SQL(
        "SELECT coalesce(name, stream) AS name, stream, table_name, newest_event, watermark, age_hours,"
        " differing_events::bigint AS differing_events, count_state FROM {} WHERE integration = %(name)s"
        " ORDER BY age_hours DESC NULLS FIRST, name"
    ).format(account.view(views.FRESHNESS))
    return account.select(Freshness, query, name=name)


def loaded_tables(account: Account, since: datetime) -> list[LoadedTable]:
    """Return what runs that started since a time have loaded, by table."""
    return account.select(
        LoadedTable,
        "SELECT table_name, sum(coalesce(rows_read, 0))::bigint AS rows_read,"
        " sum(coalesce(inserted, 0))::bigint AS inserted, sum(coalesce(updated, 0))::bigint AS updated,"
        " sum(coalesce(unchanged, 0))::bigint AS unchanged, sum(coalesce(rejected, 0))::bigint AS rejected"
        " FROM {} JOIN {} AS run USING (run_id, esp_integration_id)"
        " WHERE esp_integration_id = %(account)s AND started_at >= %(since)s GROUP BY 1 ORDER BY 1",
        bookkeeping.RUN_TABLES,
        bookkeeping.RUNS,
        since=since,
    )


def rejects(account: Account) -> int:
    """Return the number of records that could not be stored."""
    query = "SELECT count(*) FROM {} WHERE esp_integration_id = %(account)s"
    return int(account.scalar(query, bookkeeping.REJECTS))


def rejected(account: Account) -> list[Rejected]:
    """Return the reasons for rejects, by table, the most frequent first. The records themselves are not read."""
    return account.select(
        Rejected,
        "SELECT table_name, coalesce(reason, '') AS reason, count(*) AS records, min(rejected_at) AS first_at,"
        " max(rejected_at) AS last_at FROM {} WHERE esp_integration_id = %(account)s"
        " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT %(most)s",
        bookkeeping.REJECTS,
        most=_MOST_REASONS,
    )


def stored_tables(connection: Connection, schema: str) -> list[StoredTable]:
    """Return the project's tables in a warehouse, the largest first."""
    query = (
        "SELECT coalesce(parent.relname, c.relname) AS name, sum(CASE WHEN pg_stat_get_live_tuples(c.oid) > 0"
        " THEN pg_stat_get_live_tuples(c.oid) ELSE greatest(c.reltuples, 0) END)::bigint AS rows,"
        " sum(pg_total_relation_size(c.oid))::bigint AS size, sum(pg_indexes_size(c.oid))::bigint AS indexes"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent"
        " WHERE n.nspname = ANY(%s) AND c.relkind = 'r' GROUP BY 1 ORDER BY 3 DESC, 1"
    )
    known = {table.name for table in TABLES}
    return [StoredTable(*row) for row in connection.execute(query, [schemas.both(schema)]) if row[0] in known]


def consents(account: Account) -> Estimated[Consent]:
    """Return the number of people by channel and consent, without those whose profile was deleted or merged."""
    return _counted(
        account,
        Consent,
        membership.MEMBER_CONSENTS,
        "SELECT channel, consent, can_receive, {count} AS people FROM {table}"
        " WHERE esp_integration_id = %(account)s AND NOT EXISTS (SELECT FROM {members} AS member"
        " WHERE member.esp_integration_id = counted.esp_integration_id AND member.member_key = counted.member_key"
        " AND member.deleted_at IS NOT NULL) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )


def excluded(account: Account) -> Estimated[Excluded]:
    """Return the number of excluded addresses by reason."""
    return _counted(
        account,
        Excluded,
        membership.MEMBER_EXCLUSIONS,
        "SELECT reason, {count} AS addresses FROM {table}"
        " WHERE esp_integration_id = %(account)s AND removed_at IS NULL GROUP BY 1 ORDER BY 2 DESC, 1",
    )


def _counted(account: Account, make: Callable[..., Value], table: Table, query: str) -> Estimated[Value]:
    """Run a query that counts rows of a table, which it calls `counted`, over a sample if the table is large."""
    percent = _percent(account, table)
    count: Composable = SQL("count(*)")
    source = SQL("{} AS counted").format(account.table(table))
    if percent is not None:
        count = SQL("(count(*) * {})::bigint").format(Literal(100 / percent))
        source = SQL("{} TABLESAMPLE SYSTEM ({}) REPEATABLE (1)").format(source, Literal(percent))
    composed = SQL(query).format(count=count, table=source, members=account.table(dimensions.MEMBERS))
    return Estimated(account.select(make, composed), percent)


def _percent(account: Account, table: Table) -> float | None:
    """Return the percentage of a table to sample, or None to count all of it."""
    rows = queries.scalar(
        account.connection,
        "SELECT reltuples FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s",
        place(account.schema, table),
    )
    return None if rows is None or rows <= _MOST_ROWS else round(100 * _MOST_ROWS / rows, 3)


def revenue_metrics(account: Account) -> list[tuple[str, str]]:
    """Return keys and names of the metrics whose values are the account's revenue, by the rule of the marts."""
    query = SQL("SELECT key, name FROM {} WHERE esp_integration_id = %(account)s AND key IN ({}) ORDER BY 2").format(
        account.table(dimensions.METRICS), conversions.query(account.schema)
    )
    return [(key, name) for key, name in account.execute(query)]


def revenue(account: Account, metrics: Sequence[str], since: datetime) -> list[Revenue]:
    """Return what is attributed to each campaign and flow of events since a time, most revenue first, by currency."""
    return account.select(Revenue, attributed.recent(account.schema), metrics=list(metrics), since=since)
