"""`python -m benchmarks.memberships`: what list memberships and exclusions cost a daily run.

Fills a warehouse by SQL, then derives member_lists as a whole and after a thousandth of the people has changed:
seconds, WAL and blocks. Then reads exclusions from an account in memory, twice, and measures how much the memory of the
process has grown.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, process_time
from typing import NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.workbench import parser, peak_memory_mb, readable_folder, report
from klaviyo_pg.postgres import schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.member_lists import derive_member_lists
from klaviyo_pg.rows import Exclusion
from tests.driver import postgres_server
from tests.fakes import LONG_AGO, FakeAccount
from tests.runs import Warehouse, url_of

_SCHEMA, _LISTS_OF_A_PERSON = "klaviyo", 2
_FILL = (
    "INSERT INTO members (key, id, email, consent, member_key, esp_integration_id)"
    " SELECT md5('Klaviyo:one:P' || n), 'P' || n, n || '@example.com', 'SUBSCRIBED', md5('P' || n), 'one'"
    " FROM generate_series(1, %(people)s) AS n",
    "INSERT INTO stg_member_lists (list_id, member_id, created_at, _sync_id, esp_integration_id)"
    " SELECT 'L' || list, 'P' || n, '2026-01-01Z', md5('L' || list || ':P' || n), 'one'"
    " FROM (SELECT n, (n * 7 + k * 13) %% 300 AS list FROM generate_series(1, %(people)s) AS n,"
    " generate_series(1, %(lists)s) AS k) AS each",
    "INSERT INTO lists (key, id, name, list_type, esp_integration_id)"
    " SELECT md5('Klaviyo:one:L' || n), 'L' || n, 'List ' || n, 'list', 'one' FROM generate_series(0, 299) AS n",
    "INSERT INTO subscription_changes"
    " (id, member_id, change, list_id, list_name, changed_at, scope, esp_integration_id)"
    " SELECT n::text, 'P' || n, 'unsubscribed', 'L1', 'List 1', '2026-02-01Z', 'list', 'one'"
    " FROM generate_series(1, %(people)s, 3) AS n",
)
_CHANGE = (
    "UPDATE members SET consent = 'UNSUBSCRIBED' WHERE id IN"
    " (SELECT 'P' || n FROM generate_series(1, %(people)s, 1000) AS n)"
)
_STATE = (
    "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn,"
    " (SELECT sum(blks_hit + blks_read) FROM pg_stat_database WHERE datname = current_database())"
)


class Cost(NamedTuple):
    """The cost of a step."""

    name: str
    result: str
    seconds: float
    wal: int
    blocks: int

    def __str__(self) -> str:
        return f"| {self.name} | {self.result} | {self.seconds:.1f} | {self.wal / 1e6:.1f} | {self.blocks:,} |"


def main() -> None:
    """Print the costs as tables."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=2_000_000, help="list memberships")
    arguments.add_argument("--exclusions", type=int, default=900_000)
    options = arguments.parse_args()
    with readable_folder() as folder:
        server = postgres_server(folder / "server")
        lines = [*_derivations(server, options.rows), "", *_exclusions(server, folder, options.exclusions)]
    report(options.write, "List memberships", "\n".join(lines))


@contextmanager
def _database(server: str, name: str) -> Iterator[str]:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield make_conninfo(server, dbname=name)


def _derivations(server: str, rows: int) -> list[str]:
    people = rows // _LISTS_OF_A_PERSON
    values = {"people": people, "lists": _LISTS_OF_A_PERSON}
    with _database(server, "derivations") as database, psycopg.connect(database, autocommit=True) as connection:
        with connection.transaction():
            schema.upgrade(connection, _SCHEMA)
        connection.execute(f"SET search_path = {_SCHEMA}")
        for statement in _FILL:
            connection.execute(statement, values)
        connection.execute("VACUUM ANALYZE")
        account = Account(connection, _SCHEMA, "one")

        def derive(whole: bool) -> Callable[[], str]:
            return lambda: "{:,} rows derived, {:,} new, {:,} changed".format(
                *derive_member_lists(account, whole, has_status=False)
            )

        def change() -> str:
            return f"{connection.execute(_CHANGE, values).rowcount:,} people changed"

        steps = (
            ("first derivation, as a whole", derive(True)),
            ("as a whole, unchanged", derive(True)),
            ("from changes, unchanged", derive(False)),
            ("a thousandth of the people changes", change),
            ("from changes", derive(False)),
            ("again as a whole", derive(True)),
        )
        costs = [_measured(connection, *step) for step in steps]
    header = f"| {rows:,} memberships of {people:,} people | result | s | WAL (MB) | blocks |"
    return [header, "|---|---|---:|---:|---:|", *map(str, costs)]


def _measured(connection: psycopg.Connection, name: str, step: Callable[[], str]) -> Cost:
    connection.execute("CHECKPOINT")
    wal, blocks = _state(connection)
    began = monotonic()
    result = step()
    seconds = monotonic() - began
    wal_after, blocks_after = _state(connection)
    return Cost(name, result, seconds, wal_after - wal, blocks_after - blocks)


def _state(connection: psycopg.Connection) -> tuple[int, int]:
    connection.execute("SELECT pg_stat_force_next_flush()")
    [(wal, blocks)] = connection.execute(_STATE)
    return int(wal), int(blocks)


class _Exclusions(Sequence[Exclusion]):
    """Exclusions that are derived from their number and not held in memory."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(self._length))]
        if not 0 <= at < self._length:
            raise IndexError
        return Exclusion(f"excluded{at}@example.com", "UNSUBSCRIBE", LONG_AGO, f"P{at}")


def _exclusions(server: str, folder: Path, number: int) -> list[str]:
    lines = [
        f"| {number:,} exclusions | s | processor s | WAL (MB) | growth of peak memory (MB) |",
        "|---|---:|---:|---:|---:|",
    ]
    with _database(server, "exclusions") as database:
        shop = FakeAccount(exclusions=_Exclusions(0))  # type: ignore[arg-type]
        settings = {"database_url": url_of(database), "klaviyo_api_key": "pk_none", "data_dir": folder}
        warehouse = Warehouse(database, settings, shop.open)
        warehouse.daily("member_exclusions")
        shop.exclusions = _Exclusions(number)  # type: ignore[assignment]
        shop.rows_per_page = 1_000
        for name in ("first read", "unchanged"):
            with psycopg.connect(database, autocommit=True) as connection:
                wal, _ = _state(connection)
                memory, began, processor = peak_memory_mb(), monotonic(), process_time()
                assert warehouse.daily("member_exclusions").exit_code == 0
                seconds, used = monotonic() - began, process_time() - processor
                lines.append(
                    f"| {name} | {seconds:.0f} | {used:.0f} | {(_state(connection)[0] - wal) / 1e6:.1f} |"
                    f" {peak_memory_mb() - memory:.0f} |"
                )
    return lines


if __name__ == "__main__":
    main()
