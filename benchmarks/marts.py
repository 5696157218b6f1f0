"""Measures how long the views of docs/marts.md take: as a whole, and with a filter on a campaign, a person or a month.

The warehouse is filled by SQL, with the kinds of events in the shares that the sandbox account has: campaigns of two
years, and flows. Each query runs several times; the median counts. There are no parallel workers, so that the processor
time is that of the backend.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.comparison import table
from benchmarks.workbench import parser, readable_folder, report
from klaviyo_pg.postgres import rebuild, schema
from klaviyo_pg.postgres.schema import Storage
from tests.driver import postgres_server

_SHARES = {  # of a thousand events
    "sends": ("Received Email", 480),
    "opens": ("Opened Email", 240),
    "clicks": ("Clicked Email", 60),
    "bounces": ("Bounced Email", 18),
    "spams": ("Marked Email as Spam", 5),
    "unsubscribes": ("Unsubscribed from Email Marketing", 10),
    "events": ("Viewed Product", 187 - 40),
}
_ORDERS = 40
_DAYS = 730
_DIMENSIONS = """
INSERT INTO marts.integrations (name, esp_integration_id) VALUES ('shop', 'one');
INSERT INTO marts.metrics (key, id, name, destination, esp_integration_id)
SELECT md5('Klaviyo:one:' || name), name, name, 'any', 'one' FROM unnest(%(names)s::text[]) AS name;
INSERT INTO marts.campaigns (key, id, name, campaign_key, campaign_type, sent_at, esp_integration_id)
SELECT md5('Klaviyo:one:C' || n), 'C' || n, 'Newsletter ' || n, md5('C' || n), 'email',
    now() - n * interval '1 day' * {days} / {campaigns}, 'one'
FROM generate_series(0, {campaigns} - 1) AS n;
INSERT INTO marts.campaigns (key, id, name, campaign_key, automation_key, campaign_type, esp_integration_id)
SELECT md5('Klaviyo:one:M' || n), 'M' || n, 'Message ' || n, md5('M' || n), md5('F' || n / 5), 'email', 'one'
FROM generate_series(0, 199) AS n;
INSERT INTO marts.automations (key, id, name, automation_key, status, esp_integration_id)
SELECT md5('Klaviyo:one:F' || n), 'F' || n, 'Flow ' || n, md5('F' || n), 'live', 'one' FROM generate_series(0, 39) AS n;
INSERT INTO marts.members (key, id, email, member_key, esp_integration_id)
SELECT md5('Klaviyo:one:P' || n), 'P' || n, 'p' || n || '@' || n %% 1000 || '.example.com', md5('P' || n), 'one'
FROM generate_series(0, {people} - 1) AS n;
INSERT INTO marts.lists (key, id, name, list_type, esp_integration_id)
SELECT md5('Klaviyo:one:L' || n), 'L' || n, 'List ' || n, 'list', 'one' FROM generate_series(0, 49) AS n;
INSERT INTO marts.member_lists (key, id, list_id, member_id, subscribed, unsubscribed_at, is_subscribed,
    esp_integration_id)
SELECT md5('Klaviyo:one:L' || n %% 50 || ':P' || n), 'L' || n %% 50 || ':P' || n, 'L' || n %% 50, 'P' || n, at,
    CASE WHEN n %% 10 = 0 THEN at + interval '40 days' END, n %% 10 > 0, 'one'
FROM generate_series(0, {people} - 1) AS n, LATERAL (SELECT now() - (n %% 1000) * interval '1 day') AS joined (at)
"""
_FILL = """
INSERT INTO marts.{table} (key, id, campaign_key, automation_key, member_key, email, event_at, esp_source,
    esp_integration_id, __synced_at, metric_key, event_name, value, value_currency, properties, extracted_at,
    is_machine_open, is_bot_click, email_domain, channel)
SELECT md5('Klaviyo:one:' || %(name)s || n), %(name)s || n,
    CASE WHEN NOT %(sent)s THEN NULL WHEN is_flow THEN md5('M' || message) ELSE md5('C' || campaign) END,
    CASE WHEN %(sent)s AND is_flow THEN md5('F' || message / 5) END, md5('P' || person),
    'p' || person || '@' || person %% 1000 || '.example.com', at, 'Klaviyo', 'one', now(),
    md5('Klaviyo:one:' || %(name)s), %(name)s, CASE WHEN %(name)s = 'Placed Order' THEN n %% 100 END,
    CASE WHEN %(name)s = 'Placed Order' THEN 'EUR' END,
    jsonb_build_object('Subject', 'Offers of week ' || campaign, 'Campaign Name', 'Newsletter ' || campaign,
    '$message', 'C' || campaign, 'Email Domain', 'example.com', 'Client OS', 'iOS 19', 'Client Name', 'Mail',
    'Client Type', 'app', '$event_id', n::text, 'machine_open', n %% 3 = 0, 'Bot Click', n %% 10 = 0,
    'Bounce Type', CASE WHEN n %% 3 = 0 THEN 'Hard' ELSE 'Soft' END,
    'URL', 'https://example.com/p/' || n || '?utm_source=newsletter&utm_medium=email'), now(),
    CASE WHEN %(name)s = 'Opened Email' THEN n %% 3 = 0 END, CASE WHEN %(name)s = 'Clicked Email' THEN n %% 10 = 0 END,
    person %% 1000 || '.example.com', CASE WHEN %(sent)s THEN 'email' END
FROM (
    SELECT n, n %% 10 < 3 AS is_flow, n %% 200 AS message, (n * 7919) %% {people} AS person,
        {campaigns} - 1 - n * {campaigns} / {rows} AS campaign,
        now() - interval '1 day' * {days} * (1 - n / {rows}::float8) AS at
    FROM generate_series(0::bigint, {rows} - 1) AS n
) AS event
"""
_ATTRIBUTE = """
INSERT INTO marts.event_attributions (key, id, event_key, event_at, campaign_id, campaign_key, esp_integration_id)
SELECT md5(key), id, key, event_at, 'C' || number, md5('C' || number), 'one'
FROM (
    SELECT *, {campaigns} - 1 - row_number() OVER (ORDER BY event_at) * {campaigns} / {rows} AS number
    FROM marts.events WHERE event_name = 'Placed Order'
) AS ordered WHERE number >= 0
"""
_MONTH = "now() - interval '30 days'"
_CAMPAIGNS = "SELECT * FROM marts.campaign_performance"
_QUERIES = {
    "campaign_performance": "SELECT * FROM marts.campaign_performance",
    "campaign_performance, sent in the last 30 days": f"{_CAMPAIGNS} WHERE sent_at > {_MONTH}",
    "campaign_performance, one campaign": "SELECT * FROM marts.campaign_performance WHERE campaign_id = 'C7'",
    "flow_performance": "SELECT * FROM marts.flow_performance",
    "flow_performance, one message": "SELECT * FROM marts.flow_performance WHERE message_key = md5('M1')",
    "member_engagement": "SELECT * FROM marts.member_engagement",
    "member_engagement, one person": "SELECT * FROM marts.member_engagement WHERE member_key = md5('P7')",
    "list_growth": "SELECT * FROM marts.list_growth",
    "deliverability": "SELECT * FROM marts.deliverability",
    "deliverability, last 30 days": f"SELECT * FROM marts.deliverability WHERE day > {_MONTH}",
}
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Fill a warehouse, measure without and with the indexes, and print the results."""
    made = parser(__doc__)
    made.add_argument("--events", type=int, default=1_000_000)
    made.add_argument("--people", type=int, help="a tenth of the events, if not given")
    made.add_argument("--campaigns", type=int, default=1_000)
    made.add_argument("--work-mem", default="64MB", help="memory of each sort and each table of hashes")
    made.add_argument("--repeats", type=int, default=3)
    options = made.parse_args()
    with readable_folder() as folder:
        url = postgres_server(folder)
        with psycopg.connect(url, autocommit=True) as connection:
            people = options.people or options.events // 10
            _fill(connection, options.events, people, options.campaigns)
            connection.execute("SET max_parallel_workers_per_gather = 0")
            connection.execute(SQL("SET work_mem = {}").format(options.work_mem))
            plain = {name: _measured(connection, query, options.repeats) for name, query in _QUERIES.items()}
            storage = Storage(indexes=("campaign", "member"))
            for each, columns in rebuild.missing_indexes(connection, "marts", storage):
                rebuild.build_index(connection, "marts", each, columns)
            indexed = {name: _measured(connection, query, options.repeats) for name, query in _QUERIES.items()}
    rows = [
        (name, f"{plain[name][2]:,}", *(f"{each[name][at]:.2f}" for each in (plain, indexed) for at in (0, 1)))
        for name in _QUERIES
    ]
    head = ("query", "rows", "s", "s of processor", "s, with both indexes", "s of processor, with both indexes")
    title = (
        f"{datetime.now(UTC):%Y-%m-%d}, {options.events:,} events, {people:,} people, {options.campaigns:,} campaigns"
    )
    report(options.write, "Marts", f"{title}, work_mem {options.work_mem}.\n\n{table(head, rows)}")


def _fill(connection: psycopg.Connection, number: int, people: int, campaigns: int) -> None:
    with connection.transaction():
        schema.upgrade(connection, "marts")
    sizes = {"people": SQL(str(people)), "campaigns": SQL(str(campaigns)), "days": SQL(str(_DAYS))}
    kinds = [(name, *each) for name, each in _SHARES.items()] + [("events", "Placed Order", _ORDERS)]
    for statement in _DIMENSIONS.split(";"):
        values = {"names": [name for _, name, _ in kinds]} if "%(names)s" in statement else {}
        connection.execute(SQL(statement).format(**sizes), values)
    for name, metric, share in kinds:
        rows = number * share // 1000
        print(f"Filling {name} with {rows:,} rows", file=sys.stderr)
        fill = SQL(_FILL).format(table=Identifier(name), rows=SQL(str(rows)), **sizes)
        connection.execute(fill, {"name": metric, "sent": metric not in ("Viewed Product", "Placed Order")})
    connection.execute(SQL(_ATTRIBUTE).format(rows=SQL(str(number * _ORDERS // 1000)), **sizes))
    connection.execute("VACUUM ANALYZE")


def _measured(connection: psycopg.Connection, query: str, repeats: int) -> tuple[float, float, int]:
    """Return the seconds, the seconds of processor time, and the number of rows of a query."""
    costs = [_cost(connection, query) for _ in range(repeats)]
    print(f"{median(each[0] for each in costs):8.2f} s  {query}", file=sys.stderr)
    return median(each[0] for each in costs), median(each[1] for each in costs), costs[0][2]


def _cost(connection: psycopg.Connection, query: str) -> tuple[float, float, int]:
    pid = connection.info.backend_pid
    before, began = _processor(pid), perf_counter()
    row = connection.execute(f"SELECT count(*) FROM ({query}) AS result").fetchone()
    assert row is not None
    return perf_counter() - began, _processor(pid) - before, row[0]


def _processor(pid: int) -> float:
    """Return the processor time of a backend in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
