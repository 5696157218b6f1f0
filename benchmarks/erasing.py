"""`python -m benchmarks.erasing`: how long erasing many people takes, and how long batches wait while it runs.

The warehouse is filled by SQL. While people are erased, a thread stores batches of events through the project's own
path, a third of them of people who are being erased. At the end, nothing about these people may be left.
"""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Event
from time import perf_counter

import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.comparison import table as table_of
from benchmarks.workbench import parser, processor_seconds, readable_folder, report, wal_position
from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.rows import EventPage, Events
from klaviyo_pg.settings import load_settings
from klaviyo_pg.traffic import Traffic
from pipeline import runs
from pipeline.batch import protect
from pipeline.chunks import Chunk
from pipeline.erasing import ErasedCounts
from pipeline.runs import Run, transact
from pipeline.session import Session
from pipeline.store import store
from pipeline.streams.events import event_batch
from tests.erasing import erase_with
from tests.fakes import FakeAccount
from transforms.events import Metrics

_BATCH = 2_000  # events, as a daily run stores them at once
_SHARES: Mapping[str, float] = {"sends": 0.4, "opens": 0.3, "clicks": 0.1, "events": 0.2}
_EVENTS_PER_PERSON = 50
_START = datetime(2025, 1, 1, tzinfo=UTC)
_FILL = """
INSERT INTO {} (key, id, campaign_key, automation_key, member_key, email, event_at, esp_source, esp_integration_id,
    __synced_at, metric_key, event_name, properties, extracted_at)
SELECT md5('Klaviyo:' || %(account)s || ':' || id), id, md5('m' || number %% 200), CASE number %% 2 WHEN 0 THEN 'f' END,
    md5('p' || person), 'p' || person || '@example.com', '2025-01-01'::timestamptz + number * interval '3 seconds',
    'Klaviyo', %(account)s, now(), md5(%(table)s), %(table)s,
    jsonb_build_object('Campaign Name', 'Campaign ' || number %% 200, 'Subject', 'Hello', 'URL',
        'https://shop.example/products/' || md5(id), 'Client', 'Mail', 'Total', number), now()
FROM (
    SELECT number, %(table)s || number || 'aB' AS id, (number::bigint * 7919) %% %(people)s AS person
    FROM generate_series(1, %(rows)s) AS number
) AS numbered
"""
_FILL_MEMBERS = """
INSERT INTO {} (key, id, email, member_key, created_at, updated_at, esp_source, esp_integration_id, __synced_at)
SELECT md5('Klaviyo:' || %(account)s || ':p' || person), 'p' || person, 'p' || person || '@example.com',
    md5('p' || person), '2025-01-01', '2025-01-01', 'Klaviyo', %(account)s, now()
FROM generate_series(0, %(people)s - 1) AS person
"""
_FILL_LISTS = """
INSERT INTO {} (_sync_id, list_id, member_id, created_at, esp_integration_id, __synced_at)
SELECT md5(%(account)s || ':L' || list || ':p' || person), 'L' || list, 'p' || person, '2025-01-01', %(account)s, now()
FROM generate_series(0, %(people)s - 1) AS person, generate_series(1, 2) AS list
"""


def main() -> None:
    """Measure and print the results."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=10**7)
    arguments.add_argument("--people", type=int, default=1_000)
    arguments.add_argument("--by", choices=("id", "address"), default="address")
    options = arguments.parse_args()
    with readable_folder() as folder:
        url = embedded.url(folder)
        account = FakeAccount()
        settings = {"database_url": url, "klaviyo_api_key": "pk_none", "data_dir": folder, "concurrency": 1}
        with Session(load_settings(**settings), account.open) as session:
            run = runs.begin(session, "daily", {}, logging.getLogger(__name__))
            population = max(options.people, options.events // _EVENTS_PER_PERSON)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("SET search_path = klaviyo, klaviyo_internal")
                fill(connection, run, options.events, population)
                table = _measure(session, run, connection, options.people, population, options.by == "address")
    report(options.write, "Erasing", table)


def fill(connection: psycopg.Connection, run: Run, events: int, people: int) -> None:
    """Give the account of a run so many events and people, each on two lists."""
    values = {"account": run.integration_id, "people": people}
    for table, share in _SHARES.items():
        rows = {"table": table, "rows": int(events * share)}
        connection.execute(SQL(_FILL).format(Identifier(table)), {**values, **rows})
    connection.execute(SQL(_FILL_MEMBERS).format(Identifier("members")), values)
    connection.execute(SQL(_FILL_LISTS).format(Identifier("stg_member_lists")), values)
    connection.execute("VACUUM ANALYZE")
    connection.execute("CHECKPOINT")


def _measure(
    session: Session, run: Run, connection: psycopg.Connection, number: int, population: int, by_address: bool
) -> str:
    """Erase people while another thread stores batches, and return the figures as a table."""
    alone = [_store(session, run, first, number, population) for first in range(0, 20 * _BATCH, _BATCH)]
    ids = [f"p{person}" for person in range(number)]
    addresses = [f"{each}@example.com" for each in ids] if by_address else []
    before, began = wal_position(connection), perf_counter()
    with _loading(session, run, number, population) as waits:
        erased = _erase(session, run, addresses, [] if by_address else ids)
        took = perf_counter() - began
    wal = wal_position(connection) - before
    _check(connection, run, ids)
    rows = sum(erased.rows.values())
    figures = {
        "people erased": f"{erased.people.found:,}",
        "rows cleared or deleted": f"{rows:,}",
        "seconds": f"{took:.1f}",
        "processor seconds of this process": f"{processor_seconds():.1f}",
        "WAL, with the loader's, MB": f"{wal / 1e6:,.0f}",
        f"batches of {_BATCH:,} events stored during it": f"{len(waits):,}",
        "a batch before, longest, seconds": f"{max(alone):.2f}",
        "a batch during it, median, seconds": f"{sorted(waits)[len(waits) // 2]:.2f}",
        "a batch during it, longest, seconds": f"{max(waits):.2f}",
    }
    return table_of(("what", "figure"), list(figures.items()))


def _erase(session: Session, run: Run, addresses: list[str], ids: list[str]) -> ErasedCounts:
    began = perf_counter()

    def show(step: str, done: int, total: int) -> None:
        if step != "Clearing events" or done % 20_000 == 0:
            print(f"{perf_counter() - began:7.1f} s  {step}: {done:,} of {total:,}", flush=True)

    return erase_with(lambda work: transact(session, run, work), addresses, ids, show)


@contextmanager
def _loading(session: Session, run: Run, number: int, population: int) -> Iterator[list[float]]:
    """Store batches in another thread; yield the seconds that each took."""
    stop, waits = Event(), list[float]()

    def load() -> None:
        for first in count(20 * _BATCH, _BATCH):
            if stop.is_set():
                return
            waits.append(_store(session, run, first, number, population))

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        try:
            yield waits
        finally:
            stop.set()
            loading.result()


def _store(session: Session, run: Run, first: int, number: int, population: int) -> float:
    """Store a batch of new events, and return how many seconds it took."""
    people = [each % number if each % 3 == 0 else each * 31 % population for each in range(first, first + _BATCH)]
    columns: dict[str, list[object]] = {name: [None] * _BATCH for name in Events._fields}
    columns["id"] = [f"new{each}aB" for each in range(first, first + _BATCH)]
    columns["at"] = [int((_START + timedelta(days=500)).timestamp()) + each for each in range(first, first + _BATCH)]
    columns["profile_id"] = [f"p{person}" for person in people]
    columns["email"] = [f"p{person}@example.com" for person in people]
    columns["metric_id"] = ["M"] * _BATCH
    columns["properties"] = [b"{}"] * _BATCH
    page = EventPage(Events(**columns), (), (), datetime.now(UTC))  # type: ignore[arg-type]
    made = event_batch(Metrics({"M": "M"}, {"M": "opens"}), run.integration_id, loads.MEMBER_STUBS, [page])
    began = perf_counter()
    guard = Guard("events", 1.0, run.as_of)
    store(session, run, Chunk("events"), protect(made, run.settings), Traffic(), guard, lambda account: None)
    return perf_counter() - began


def _check(connection: psycopg.Connection, run: Run, ids: list[str]) -> None:
    """Raise AssertionError if anything about these people is left."""
    keys = "(SELECT md5(id) FROM unnest(%(ids)s::text[]) AS id)"
    addresses = "(SELECT id || '@example.com' FROM unnest(%(ids)s::text[]) AS id)"
    for table in EVENT_TABLES:
        query = SQL(f"SELECT count(*) FROM {{}} WHERE member_key IN {keys} OR email IN {addresses}")
        found = connection.execute(query.format(Identifier(table.name)), {"ids": ids}).fetchone()
        assert found == (0,), f"{table.name} has {found} rows about them"
    for name in ("members", "stg_member_lists", "erasing", "erasing_events"):
        column = {"members": "id", "stg_member_lists": "member_id"}.get(name, "esp_integration_id")
        left = SQL("SELECT count(*) FROM {} WHERE {} = ANY(%(ids)s)").format(Identifier(name), Identifier(column))
        assert connection.execute(left, {"ids": [*ids, run.integration_id]}).fetchone() == (0,), name


if __name__ == "__main__":
    main()
