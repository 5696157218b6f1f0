"""Measures how long the views of docs/marts.md take: as a whole, and with a filter on a campaign, a person or a month.

Then it measures the same with the indexes of EVENT_INDEXES and from stored marts (STORED_MARTS), and what a run takes
to store them. Postgres has its default configuration, so that queries use parallel workers, except for `work_mem`. The
median of several runs counts.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import psycopg
from psycopg.sql import SQL

from benchmarks.comparison import table
from benchmarks.filled import ACCOUNT, SCHEMA, Cost, Size, cost, warehouse
from benchmarks.workbench import parser, report
from klaviyo_pg.catalogue.stored_marts import STORED_MARTS
from klaviyo_pg.postgres import rebuild, stored_marts
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.schema import Storage

Result = TypeVar("Result")
_MONTH = "now() - interval '30 days'"
# Filters, by mart; each applies to the view and to the table.
_QUERIES = {
    "campaign_performance": ("", f"WHERE sent_at > {_MONTH}", "WHERE campaign_id = 'C7'"),
    "flow_performance": ("", "WHERE message_key = md5('M1')"),
    "member_engagement": ("", "WHERE member_key = md5('P7')"),
    "list_growth": ("",),
    "deliverability": ("", f"WHERE day > {_MONTH}"),
}
# A thousandth of the emails again, as if they had been opened today.
_DAY = """
CREATE TEMPORARY TABLE day AS SELECT * FROM opens ORDER BY event_at DESC LIMIT {rows};
UPDATE day SET key = md5(key), event_at = now() - interval '1 hour';
INSERT INTO opens SELECT * FROM day;
INSERT INTO member_lists (key, id, list_id, member_id, subscribed, joined_at, is_subscribed, esp_integration_id)
SELECT md5(key), id || ':again', list_id, member_id, now(), now(), true, esp_integration_id
FROM member_lists LIMIT {rows}
"""


def main() -> None:
    """Fill a warehouse, measure, and print the results."""
    made = parser(__doc__)
    made.add_argument("--events", type=int, default=1_000_000)
    made.add_argument("--people", type=int, help="a tenth of the events, if not given")
    made.add_argument("--work-mem", default="64MB", help="memory of each sort and each table of hashes")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--folder", type=Path, help="folder to keep the warehouse in, so that it is filled once")
    options = made.parse_args()
    size = Size(options.events, options.people or options.events // 10)
    with warehouse(size, options.folder) as connection:
        connection.execute(SQL("SET work_mem = {}").format(options.work_mem))
        plain = _queries(connection, "{}", options.repeats)
        stored = _store(connection, size.events // 1_000)
        copied = _queries(connection, "{}_stored", options.repeats)
        for each, columns in rebuild.missing_indexes(connection, SCHEMA, Storage(indexes=("campaign", "member"))):
            rebuild.build_index(connection, SCHEMA, each, columns)
        indexed = _queries(connection, "{}", options.repeats)
    rows = [
        (
            name,
            f"{first.rows:,}",
            *(f"{value:.2f}" for each in (first, indexed[name], copied[name]) for value in each[1:]),
        )
        for name, first in plain.items()
    ]
    head = ("query", "rows", "s", "processor s", "s, indexes", "processor s", "s, stored", "processor s")
    parts = [table(head, rows), table(("stored mart", "step", "s", "processor s", "rows written"), stored)]
    title = f"{datetime.now(UTC):%Y-%m-%d}, {size}, work_mem {options.work_mem}."
    report(options.write, "Marts", "\n\n".join([title, *parts]))


def _seconds(spent: Cost) -> tuple[str, str]:
    return f"{spent.seconds:.2f}", f"{spent.processor:.2f}"


def _queries(connection: psycopg.Connection, relation: str, repeats: int) -> dict[str, Cost]:
    return {
        f"{mart} {condition}".strip(): _measured(
            connection, f"SELECT count(t) FROM (SELECT * FROM {relation.format(mart)} {condition}) AS t", repeats
        )
        for mart, conditions in _QUERIES.items()
        for condition in conditions
    }


def _measured(connection: psycopg.Connection, query: str, repeats: int) -> Cost:
    def count() -> int:
        [[rows]] = connection.execute(query.encode()).fetchall()
        return int(rows)

    costs = [cost(connection, count) for _ in range(repeats)]
    middle = Cost(costs[0].rows, median(each.seconds for each in costs), median(each.processor for each in costs))
    print(f"{middle.seconds:8.2f} s {middle.processor:8.2f} s of processor  {query}", file=sys.stderr)
    return middle


def _store(connection: psycopg.Connection, changes: int) -> list[tuple[str, ...]]:
    """Store all marts, change something, store them again, and return a row of figures for each step."""
    account = Account(connection, SCHEMA, ACCOUNT)
    with connection.transaction():
        stored_marts.install(connection, SCHEMA)
        stored_marts.choose(account, STORED_MARTS)
    rows = _renew(account, "first time")
    for statement in _DAY.split(";"):
        connection.execute(SQL(statement).format(rows=SQL(str(changes))))
    rows += _renew(account, f"after {changes:,} events")
    unchanged = cost(connection, lambda: len(_in_transaction(account, _outdated)))
    return [*rows, ("all", "unchanged", f"{unchanged.seconds:.2f}", f"{unchanged.processor:.2f}", "0")]


def _renew(account: Account, step: str) -> list[tuple[str, ...]]:
    return [_figures(account, name, step) for name in _in_transaction(account, _outdated)]


def _outdated(account: Account) -> list[str]:
    stored_marts.mark(account)
    return list(stored_marts.outdated(account, STORED_MARTS))


def _figures(account: Account, name: str, step: str) -> tuple[str, ...]:
    def renew() -> int:
        merged = _in_transaction(account, partial(stored_marts.renew, name=name))
        return merged.inserted + merged.updated if merged else 0

    spent = cost(account.connection, renew)
    print(f"{spent.seconds:8.2f} s {spent.processor:8.2f} s of processor  {name}, {step}", file=sys.stderr)
    return name, step, f"{spent.seconds:.2f}", f"{spent.processor:.2f}", f"{spent.rows:,}"


def _in_transaction(account: Account, work: Callable[[Account], Result]) -> Result:
    with account.connection.transaction():
        return work(account)


if __name__ == "__main__":
    main()
