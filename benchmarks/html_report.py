"""`python -m benchmarks.html_report`: measure `klaviyo-pg report` on a warehouse that SQL has filled.

It has an account with events of many metrics, a ledger of two years of history and a year of daily runs, people with
their consents, and attributed orders. The report is made several times. Printed are the time and the processor time,
of this process and of Postgres, the size of the file, and the time of each query.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import psycopg

from benchmarks.comparison import table
from benchmarks.workbench import parser, processor_seconds, readable_folder, report
from klaviyo_pg import schemas
from klaviyo_pg.catalogue import events
from klaviyo_pg.postgres import html_report as queries
from klaviyo_pg.postgres import schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.settings import load_settings
from pipeline.commands.html_report import contents, page
from pipeline.commands.html_report.contents import REVENUE_DAYS
from pipeline.coverage import coverage_of
from tests.driver import postgres_server

_SCHEMA, _ACCOUNT = "klaviyo", "one"
_TICKS = os.sysconf("SC_CLK_TCK")
_SHARES = {"sends": 40, "opens": 25, "clicks": 10, "events": 25}  # percent of the events
_KEY = "md5('Klaviyo:one:{}' || {})"
_ORIGIN = "'Klaviyo', 'one', now()"
_FILL = f"""
INSERT INTO integrations (name, esp_integration_id, created_at) VALUES ('shop', 'one', now());
INSERT INTO metrics (key, id, name, destination, esp_source, esp_integration_id, __synced_at)
    SELECT {_KEY.format("M", "n")}, 'M' || n, CASE n WHEN 0 THEN 'Placed Order' WHEN 1 THEN 'Received Email'
        WHEN 2 THEN 'Opened Email' WHEN 3 THEN 'Clicked Email' ELSE 'Custom metric ' || n END,
        CASE n WHEN 1 THEN 'sends' WHEN 2 THEN 'opens' WHEN 3 THEN 'clicks' ELSE 'events' END, {_ORIGIN}
    FROM generate_series(0, {{metrics}} - 1) n;
INSERT INTO campaigns (key, id, name, campaign_key, type, esp_source, esp_integration_id, __synced_at)
    SELECT {_KEY.format("C", "n")}, 'C' || n, 'Newsletter ' || n, md5('C' || n), 'Campaign', {_ORIGIN}
    FROM generate_series(0, 999) n;
INSERT INTO automations (key, id, name, automation_key, esp_source, esp_integration_id, __synced_at)
    SELECT {_KEY.format("F", "n")}, 'F' || n, 'Flow ' || n, md5('F' || n), {_ORIGIN} FROM generate_series(0, 99) n;
INSERT INTO watermarks (esp_integration_id, stream, watermark, since, subject, table_name)
    SELECT 'one', 'events/M' || n, now() - n * interval '1 minute', now() - interval '2 years', 'M' || n, 'events'
    FROM generate_series(0, {{metrics}} - 1) n;
INSERT INTO runs (run_id, esp_integration_id, flow, as_of, started_at, finished_at, state, requests, retries, message)
    SELECT 'R' || n, 'one', 'daily', at, at, at + interval '9 minutes', 'complete', 4000 + n, n % 40, NULL
    FROM generate_series(0, 364) n, LATERAL (SELECT now() - n * interval '1 day' AS at) AS started;
INSERT INTO run_tables (run_id, esp_integration_id, table_name, rows_read, inserted, updated, unchanged, rejected)
    SELECT 'R' || n, 'one', 'table_' || t, 9000, 5000, 1000, 3000, 0 FROM generate_series(0, 364) n,
    generate_series(0, 29) t;
INSERT INTO reconciliation (esp_integration_id, metric_id, window_start, window_end, source_events, warehouse_events,
        difference, state, checked_at)
    SELECT 'one', 'M' || n, day, day + interval '1 day', 100, 100 - (n % 50 = 0 AND d % 7 = 0)::int,
        -(n % 50 = 0 AND d % 7 = 0)::int, CASE WHEN n % 50 = 0 AND d % 7 = 0 THEN 'differs' ELSE 'complete' END, now()
    FROM generate_series(0, {{metrics}} - 1) n, generate_series(0, 29) d,
    LATERAL (SELECT date_trunc('day', now(), 'UTC') - d * interval '1 day' AS day) AS days;
INSERT INTO backfill_chunks (esp_integration_id, metric_id, window_start, window_end, expected, loaded, state, attempts,
        seconds)
    SELECT 'one', 'M' || n, at, at + interval '30 days', 100, 100, 'done', 1, 1 FROM generate_series(0, {{metrics}} - 1)
    n, generate_series(0, 23) c, LATERAL (SELECT date_trunc('day', now(), 'UTC') - (c + 1) * interval '30 days' AS at)
    AS chunk;
INSERT INTO rejects (key, esp_integration_id, run_id, table_name, stream, reason, raw, rejected_at)
    SELECT md5('X' || n), 'one', 'R' || n % 365, 'events', 'events/M1', 'The time is missing in record ' || n % 40,
    '{{{{}}}}', now() FROM generate_series(1, 50000) n;
INSERT INTO member_consents (key, id, member_id, member_key, channel, consent, can_receive, esp_source,
        esp_integration_id, __synced_at)
    SELECT {_KEY.format("P", "n || channel")}, 'P' || n || ':' || channel, 'P' || n, md5('P' || n), channel,
        CASE n % 3 WHEN 0 THEN 'SUBSCRIBED' WHEN 1 THEN 'UNSUBSCRIBED' ELSE 'NEVER_SUBSCRIBED' END, n % 3 <> 1,
        {_ORIGIN}
    FROM generate_series(1, {{people}}) n, unnest(ARRAY['email', 'sms', 'push', 'whatsapp']) AS channel;
INSERT INTO member_exclusions (reason, created_at, _sync_id, __synced_at, email, esp_integration_id)
    SELECT 'UNSUBSCRIBE', now(), md5('E' || n), now(), 'e' || n, 'one' FROM generate_series(1, {{people}} / 10) n
"""
_EVENTS = """
INSERT INTO {table} (key, id, campaign_key, member_key, email, event_at, esp_source, esp_integration_id, __synced_at,
    metric_key, event_name, value, value_currency, properties, extracted_at)
SELECT md5('Klaviyo:one:{name}' || n), '{name}' || n, md5('C' || n %% 1000), md5('P' || n %% {people}),
    'p' || n %% {people} || '@example.com', now() - (n / {rows}::float8) * interval '2 years', 'Klaviyo', 'one', now(),
    md5('Klaviyo:one:M' || {metric}), 'Event', n %% 200, 'EUR',
    jsonb_build_object('Subject', 'Offers of week ' || n %% 260, '$message', 'C' || n %% 1000, '$event_id', n::text),
    now()
FROM generate_series(1, {rows}) n
"""
_ATTRIBUTIONS = """
INSERT INTO event_attributions (key, id, event_key, event_at, campaign_id, campaign_key, flow_id, automation_key,
    esp_source, esp_integration_id, __synced_at)
SELECT md5('A' || key), 'A' || id, key, event_at, CASE WHEN is_flow THEN NULL ELSE 'C' || n END,
    CASE WHEN is_flow THEN NULL ELSE md5('C' || n) END, CASE WHEN is_flow THEN 'F' || n % 100 END,
    CASE WHEN is_flow THEN md5('F' || n % 100) END, 'Klaviyo', 'one', now()
FROM (
    SELECT key, id, event_at, metric_key, value::int * 5 AS n, value::int % 3 = 0 AS is_flow FROM events
) AS event
WHERE metric_key = md5('Klaviyo:one:M0')
"""


def main() -> None:
    """Fill a warehouse, measure and print the results."""
    made = parser(__doc__)
    made.add_argument("--events", type=int, default=10_000_000)
    made.add_argument("--metrics", type=int, default=500)
    made.add_argument("--people", type=int, default=1_000_000)
    made.add_argument("--times", type=int, default=3)
    options = made.parse_args()
    with readable_folder() as folder, _warehouse(postgres_server(folder / "server")) as connection:
        _fill(connection, options.events, options.metrics, options.people)
        rows = [_made(connection, number) for number in range(1, options.times + 1)]
        parts = [table(("report", "seconds", "own processor s", "Postgres processor s", "kB", "left out"), rows)]
        parts.append(table(("query", "seconds"), _queries(connection)))
    title = f"{options.events:,} events, {options.metrics} metrics, {options.people:,} people"
    report(options.write, "A report on a warehouse", "\n\n".join([f"{datetime.now(UTC):%Y-%m-%d}: {title}.", *parts]))


@contextmanager
def _warehouse(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(
        url, autocommit=True, options=f"-c search_path={_SCHEMA},{schemas.internal(_SCHEMA)}"
    ) as connection:
        with connection.transaction():
            schema.upgrade(connection, _SCHEMA)
        yield connection


def _fill(connection: psycopg.Connection, number: int, metrics: int, people: int) -> None:
    print("Filling the warehouse", file=sys.stderr)
    for statement in _FILL.format(metrics=metrics, people=people).split(";\n"):
        connection.execute(statement)
    for each in events.EVENT_TABLES:
        if share := _SHARES.get(each.name):
            # An eighth of the other events are orders.
            metric = {"sends": "1", "opens": "2", "clicks": "3"}.get(
                each.name, f"CASE n % 8 WHEN 0 THEN 0 ELSE 4 + n % {metrics - 4} END"
            )
            values = {"people": people, "rows": number * share // 100, "metric": metric}
            connection.execute(_EVENTS.format(table=each.name, name=each.name, **values).replace("%%", "%"))
    connection.execute(_ATTRIBUTIONS)
    connection.execute("VACUUM ANALYZE")


def _made(connection: psycopg.Connection, number: int) -> tuple[str, ...]:
    settings = load_settings(warehouse_schema=_SCHEMA)
    began, own, backend = perf_counter(), processor_seconds(), _backend(connection)
    with connection.transaction():
        found = contents.read(connection, settings, [("shop", _account(connection))], datetime.now(UTC))
    text = page.render(found)
    left_out = ", ".join(name for each in found.accounts for name in each.left_out) or "nothing"
    figures = perf_counter() - began, processor_seconds() - own, _backend(connection) - backend
    return (str(number), *(f"{each:.2f}" for each in figures), f"{len(text.encode()) / 1000:,.0f}", left_out)


def _account(connection: psycopg.Connection) -> Account:
    return Account(connection, _SCHEMA, _ACCOUNT)


def _queries(connection: psycopg.Connection) -> list[tuple[str, str]]:
    account, start = _account(connection), datetime(2026, 1, 1, tzinfo=UTC)
    metrics = [key for key, _ in queries.revenue_metrics(account)]
    calls: dict[str, Callable[[], object]] = {
        "runs": lambda: queries.past_runs(account),
        "coverage": lambda: coverage_of(account, "shop", datetime.now(UTC).date()),
        "freshness": lambda: queries.freshness(account, "shop"),
        "requests by day": lambda: queries.requests_by_day(account, start),
        "rows loaded": lambda: queries.loaded_tables(account, start),
        "rejects": lambda: queries.rejected(account),
        "sizes": lambda: queries.stored_tables(connection, _SCHEMA),
        "consent": lambda: queries.consents(account),
        "exclusions": lambda: queries.excluded(account),
        "revenue": lambda: queries.revenue(account, metrics, datetime.now(UTC) - timedelta(days=REVENUE_DAYS)),
    }
    return [(name, f"{_seconds(call):.2f}") for name, call in calls.items()]


def _seconds(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


def _backend(connection: psycopg.Connection) -> float:
    """Return the processor time of the connection's backend, which is on this machine."""
    fields = Path(f"/proc/{connection.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
