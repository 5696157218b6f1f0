"""A warehouse that SQL has filled, for the benchmarks of marts and recipes.

It has an account with the kinds of events in the shares of the sandbox account, over two years. A fifth of the people
get most of the emails. Each open and click belongs to an email, which a campaign or a message of a flow sent; every
tenth campaign tests two variations. A folder is filled once, and can be kept for the next benchmark.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.workbench import readable_folder
from klaviyo_pg.postgres import schema
from tests.driver import postgres_server

SCHEMA, ACCOUNT = "klaviyo", "one"
_TICKS = os.sysconf("SC_CLK_TCK")
_SENDS = 480
_SHARES = {  # of a thousand events
    "sends": ("Received Email", _SENDS),
    "opens": ("Opened Email", 240),
    "clicks": ("Clicked Email", 60),
    "bounces": ("Bounced Email", 18),
    "spams": ("Marked Email as Spam", 5),
    "unsubscribes": ("Unsubscribed from Email Marketing", 10),
    "events": ("Viewed Product", 147),
}
_ORDERS = 40
_DAYS = 730
_CAMPAIGNS = 1_000
_DIMENSIONS = """
INSERT INTO integrations (name, esp_integration_id, created_at) VALUES ('shop', 'one', now());
INSERT INTO accounts (key, id, name, timezone, currency, esp_integration_id)
SELECT md5('Klaviyo:one:A'), 'A', 'Shop', 'Europe/Berlin', 'EUR', 'one';
INSERT INTO metrics (key, id, name, destination, esp_integration_id)
SELECT md5('Klaviyo:one:' || name), name, name, 'any', 'one' FROM unnest(%(names)s::text[]) AS name;
INSERT INTO campaigns (key, id, name, campaign_key, campaign_type, sent_at, esp_integration_id)
SELECT md5('Klaviyo:one:C' || n), 'C' || n, 'Newsletter ' || n, md5('C' || n), 'email',
    now() - n * interval '1 day' * {days} / {campaigns}, 'one'
FROM generate_series(0, {campaigns} - 1) AS n;
INSERT INTO campaign_messages (key, id, campaign_id, campaign_key, message_key, channel, subject, esp_integration_id)
SELECT md5('Klaviyo:one:V' || n), 'V' || n, 'C' || n / 2, md5('C' || n / 2), md5('V' || n), 'email', 'Offers ' || n,
    'one'
FROM generate_series(0, {campaigns} * 2 - 1) AS n WHERE n %% 2 = 0 OR n / 2 %% 10 = 0;
INSERT INTO campaigns (key, id, name, campaign_key, automation_key, campaign_type, esp_integration_id)
SELECT md5('Klaviyo:one:M' || n), 'M' || n, 'Message ' || n, md5('M' || n), md5('F' || n / 5), 'email', 'one'
FROM generate_series(0, 199) AS n;
INSERT INTO automations (key, id, name, automation_key, status, esp_integration_id)
SELECT md5('Klaviyo:one:F' || n), 'F' || n, 'Flow ' || n, md5('F' || n), 'live', 'one' FROM generate_series(0, 39) AS n;
INSERT INTO flow_messages (key, id, flow_id, automation_key, message_key, channel, name, esp_integration_id)
SELECT md5('Klaviyo:one:M' || n), 'M' || n, 'F' || n / 5, md5('F' || n / 5), md5('M' || n), 'email', 'Message ' || n,
    'one'
FROM generate_series(0, 199) AS n;
INSERT INTO tags (key, id, name, esp_integration_id)
SELECT md5('Klaviyo:one:T' || n), 'T' || n, 'Tag ' || n, 'one' FROM generate_series(0, 19) AS n;
INSERT INTO tagged_objects (key, id, tag_id, tag_key, object_type, object_id, object_key, esp_integration_id)
SELECT md5('Klaviyo:one:T' || n %% 20 || ':C' || n), 'T' || n %% 20 || ':campaign:C' || n, 'T' || n %% 20,
    md5('Klaviyo:one:T' || n %% 20), 'campaign', 'C' || n, md5('Klaviyo:one:C' || n), 'one'
FROM generate_series(0, {campaigns} - 1) AS n;
INSERT INTO members (key, id, email, member_key, esp_integration_id, first_name, last_name, consent, created_at)
SELECT md5('Klaviyo:one:P' || n), 'P' || n, 'p' || n || '@' || n %% 1000 || '.example.com', md5('P' || n), 'one',
    'First' || n %% 5000, 'Last' || n, 'SUBSCRIBED', now() - (n %% 1000) * interval '1 day'
FROM generate_series(0, {people} - 1) AS n;
INSERT INTO member_consents (key, id, member_id, member_key, channel, consent, can_receive, esp_integration_id)
SELECT md5('Klaviyo:one:P' || n || channel), 'P' || n || ':' || channel, 'P' || n, md5('P' || n), channel,
    CASE n %% 3 WHEN 0 THEN 'SUBSCRIBED' WHEN 1 THEN 'UNSUBSCRIBED' ELSE 'NEVER_SUBSCRIBED' END, n %% 3 <> 1, 'one'
FROM generate_series(0, {people} - 1) AS n, unnest(ARRAY['email', 'sms', 'push', 'whatsapp']) AS channel;
INSERT INTO member_exclusions (reason, created_at, _sync_id, email, member_id, esp_integration_id)
SELECT 'UNSUBSCRIBE', now(), md5('p' || n || '@' || n %% 1000 || '.example.com'),
    'p' || n || '@' || n %% 1000 || '.example.com', 'P' || n, 'one'
FROM generate_series(0, {people} - 1, 10) AS n;
INSERT INTO lists (key, id, name, list_type, esp_integration_id)
SELECT md5('Klaviyo:one:L' || n), 'L' || n, 'List ' || n, 'list', 'one' FROM generate_series(0, 49) AS n;
INSERT INTO member_lists (key, id, list_id, member_id, subscribed, joined_at, unsubscribed_at, is_subscribed,
    left_reason, esp_integration_id)
SELECT md5('Klaviyo:one:L' || list || ':P' || n), 'L' || list || ':P' || n, 'L' || list, 'P' || n, at, at,
    CASE WHEN n %% 10 = 0 THEN at + interval '40 days' END, n %% 10 > 0, CASE WHEN n %% 10 = 0 THEN 'event' END, 'one'
FROM generate_series(0, {people} - 1) AS n,
    LATERAL (SELECT now() - (n %% 1000) * interval '1 day') AS joined (at),
    LATERAL (
        SELECT 0 AS list UNION ALL SELECT 1 + n %% 25 WHERE n %% 2 = 0 UNION ALL SELECT 26 + n %% 24 WHERE n %% 4 = 0
    ) AS on_list
"""
# `email` is the number of the email that an event belongs to, or its number among all others.
_FILL = """
INSERT INTO {table} (key, id, campaign_key, automation_key, member_key, email, event_at, esp_source, esp_integration_id,
    __synced_at, metric_key, event_name, value, value_currency, properties, extracted_at, is_machine_open, is_bot_click,
    email_domain, channel)
SELECT md5('Klaviyo:one:' || %(name)s || n), %(name)s || n,
    CASE WHEN NOT %(sent)s THEN NULL WHEN is_flow THEN md5('M' || message) ELSE md5('V' || variation) END,
    CASE WHEN %(sent)s AND is_flow THEN md5('F' || message / 5) END, md5('P' || person),
    'p' || person || '@' || person %% 1000 || '.example.com', at, 'Klaviyo', 'one', now(),
    md5('Klaviyo:one:' || %(name)s), %(name)s, CASE WHEN %(name)s = 'Placed Order' THEN n %% 100 END,
    CASE WHEN %(name)s = 'Placed Order' THEN 'EUR' END,
    jsonb_build_object('Subject', 'Offers of week ' || campaign, 'Campaign Name', 'Newsletter ' || campaign,
    '$message', 'V' || variation, 'Email Domain', 'example.com', 'Client OS', 'iOS 19', 'Client Name', 'Mail',
    'Client Type', 'app', '$event_id', n::text, 'machine_open', n %% 3 = 0, 'Bot Click', n %% 10 = 0,
    'Bounce Type', CASE WHEN n %% 3 = 0 THEN 'Hard' ELSE 'Soft' END,
    'URL', 'https://example.com/p/' || n %% 5000 || '?utm_source=newsletter&utm_medium=email'), now(),
    CASE WHEN %(name)s = 'Opened Email' THEN n %% 3 = 0 END, CASE WHEN %(name)s = 'Clicked Email' THEN n %% 10 = 0 END,
    person %% 1000 || '.example.com', CASE WHEN %(sent)s THEN 'email' END
FROM (
    SELECT n, email %% 10 < 3 AS is_flow, email %% 200 AS message, campaign,
        campaign * 2 + CASE WHEN campaign %% 10 = 0 THEN email %% 2 ELSE 0 END AS variation,
        floor({people} * ((email * 7919 %% {people}) / {people}::float8) ^ 2)::bigint AS person, at
    FROM (
        SELECT n, email, {campaigns} - 1 - email * {campaigns} / {emails} AS campaign,
            least(now(), now() - interval '1 day' * {days} * (1 - email / {emails}::float8) + delay) AS at
        FROM (
            SELECT n, n * {emails} / {rows} AS email,
                CASE WHEN %(later)s THEN (n %% 48) ^ 2 * interval '1 minute' ELSE interval '0' END AS delay
            FROM generate_series(0::bigint, {rows} - 1) AS n
        ) AS numbered
    ) AS dated
) AS event
"""
_ATTRIBUTE = """
INSERT INTO event_attributions (key, id, event_key, event_at, campaign_id, campaign_key, campaign_message_key, flow_id,
    automation_key, flow_message_key, esp_integration_id)
SELECT md5(key), id, key, event_at, CASE WHEN NOT is_flow THEN 'C' || number END,
    CASE WHEN NOT is_flow THEN md5('C' || number) END, CASE WHEN NOT is_flow THEN md5('V' || number * 2) END,
    CASE WHEN is_flow THEN 'F' || message / 5 END, CASE WHEN is_flow THEN md5('F' || message / 5) END,
    CASE WHEN is_flow THEN md5('M' || message) END, 'one'
FROM (
    SELECT *, {campaigns} - 1 - position * {campaigns} / {rows} AS number, position %% 3 = 0 AS is_flow,
        position %% 200 AS message
    FROM (
        SELECT *, row_number() OVER (ORDER BY event_at) AS position FROM events WHERE event_name = 'Placed Order'
    ) AS ordered
) AS ordered WHERE number >= 0
"""


class Size(NamedTuple):
    """The numbers of events and people of a warehouse."""

    events: int
    people: int

    def __str__(self) -> str:
        return f"{self.events:,} events, {self.people:,} people, {_CAMPAIGNS:,} campaigns"


class Cost(NamedTuple):
    """The result of some work in rows, and what it took: seconds, and seconds of processor time of Postgres."""

    rows: int
    seconds: float
    processor: float


@contextmanager
def warehouse(size: Size, folder: Path | None = None) -> Iterator[psycopg.Connection]:
    """Yield a connection to a filled warehouse, in a temporary folder, or in one that is kept and filled once."""
    with readable_folder() as temporary:
        url = postgres_server(folder or temporary)
        with psycopg.connect(url, autocommit=True, options=f"-c search_path={SCHEMA}") as connection:
            is_new = not schema.exists(connection, SCHEMA)
            with connection.transaction():
                schema.upgrade(connection, SCHEMA)
            if is_new:
                _fill(connection, size)
            yield connection


def _fill(connection: psycopg.Connection, size: Size) -> None:
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")  # no triggers
        kinds = [(name, *each) for name, each in _SHARES.items()] + [("events", "Placed Order", _ORDERS)]
        counts = {"people": size.people, "campaigns": _CAMPAIGNS, "days": _DAYS, "emails": size.events * _SENDS // 1000}
        for statement in _DIMENSIONS.split(";"):
            _run(connection, statement, counts, names=[name for _, name, _ in kinds])
        for name, metric, share in kinds:
            rows = size.events * share // 1000
            print(f"Filling {name} with {rows:,} rows", file=sys.stderr)
            values = {"name": metric, "sent": name != "events", "later": name in ("opens", "clicks", "unsubscribes")}
            _run(connection, _FILL, {**counts, "rows": rows}, table=name, **values)
        _run(connection, _ATTRIBUTE, {**counts, "rows": size.events * _ORDERS // 1000})
    connection.execute("VACUUM ANALYZE")


def _run(
    connection: psycopg.Connection, statement: str, counts: dict[str, int], table: str = "", **values: object
) -> None:
    numbers = {name: SQL(str(number)) for name, number in counts.items()}
    connection.execute(SQL(statement).format(table=Identifier(table), **numbers), values)


def cost(connection: psycopg.Connection, work: Callable[[], int]) -> Cost:
    """Do some work of one connection, and return what it took."""
    before, began = _processor(connection), perf_counter()
    rows = work()
    return Cost(rows, perf_counter() - began, _processor(connection) - before)


def _processor(connection: psycopg.Connection) -> float:
    """Return the processor time of a backend and of all processes of its server that have ended, in seconds.

    Parallel workers are such processes.
    """
    backend = _times(connection.info.backend_pid)
    server = _times(int(backend[1]))
    return (int(backend[11]) + int(backend[12]) + int(server[13]) + int(server[14])) / _TICKS


def _times(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name of the program."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
