"""A run over unchanged data writes no row of any table, apart from the ledger of what was done."""

from collections.abc import Iterator

import pytest

from klaviyo_pg.catalogue import TABLES, bookkeeping
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT
from tests.runs import Warehouse

LEDGER = (
    bookkeeping.COMMITS,
    bookkeeping.RUNS,
    bookkeeping.RUN_TABLES,
    bookkeeping.CHUNKS,
    bookkeeping.WATERMARKS,
    bookkeeping.RATE_LIMITS,
)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account whose history ends at midnight."""
    with running(members=300, events=6_000, days=30, until=MIDNIGHT) as box:
        yield box


def versions(warehouse: Warehouse) -> dict[str, list[tuple[str, ...]]]:
    """Return the position and the transactions of each stored row, by table. Writing or locking a row changes them."""
    return {
        table.name: warehouse.rows(f"SELECT ctid::text, xmin::text, xmax::text FROM {table.name} ORDER BY ctid")
        for table in TABLES
        if table not in LEDGER
    }


def wal(warehouse: Warehouse) -> int:
    """Return the bytes of the write-ahead log so far."""
    return int(warehouse.one("SELECT pg_current_wal_insert_lsn() - '0/0'"))


@pytest.mark.parametrize("dialect", ["current", pytest.param("legacy", marks=pytest.mark.slow)])
def test_a_run_over_unchanged_data_writes_only_the_ledger(warehouse: Warehouse, box: Sandbox, dialect: str) -> None:
    """Comparisons with the source's counts have one row for each metric that says when they were last made."""
    filled = warehouse.variant(klaviyo_dialect=dialect, warehouse_schema=dialect, first_sync_days=32)
    filled = filled.variant(segments=tuple(box.state()["segments"]))
    start = wal(filled)
    assert filled.daily().exit_code == 0
    logged = wal(filled) - start
    assert filled.daily().exit_code == 0  # sweeps what the first run has read
    before, start = versions(filled), wal(filled)
    assert filled.daily().exit_code == 0
    after = versions(filled)
    assert wal(filled) - start < logged / 4
    compared = bookkeeping.RECONCILIATION.name
    assert {name for name in before if before[name] != after[name]} <= {compared}
    assert len({*after[compared]} - {*before[compared]}) == filled.one(
        "SELECT count(DISTINCT metric_id) FROM " + compared
    )
    assert sum(map(len, before.values())) > 5_000
