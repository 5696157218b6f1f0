"""The planner's statistics after a run: current for what it has filled, untouched by a run that changes little."""

from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, Warehouse, days_ago

ROWS = "SELECT reltuples::int FROM pg_class WHERE oid = '{}'::regclass"


def test_a_run_updates_the_statistics_of_what_it_has_filled(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Autovacuum would not, in a server that stops with the command."""
    warehouse.execute("ALTER TABLE opens SET (autovacuum_enabled = off)")
    shop.add_events("OPEN", *(days_ago(1) + number * DAY / 2_000 for number in range(1_500)))
    assert warehouse.one(ROWS.format("opens")) == -1
    warehouse.daily()
    assert warehouse.one(ROWS.format("opens")) == 1_506
    assert warehouse.one(ROWS.format("clicks")) == -1, "it is empty"
    shop.add_events("OPEN", *(days_ago(2) + number * DAY / 2_000 for number in range(100)))
    warehouse.daily(lookback_days=3)
    assert warehouse.one(ROWS.format("opens")) == 1_506, "few rows are new"


def test_a_backfill_updates_statistics_too(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.add_events("OPEN", *(days_ago(30) + number * DAY / 2_000 for number in range(1_500)))
    warehouse.backfill(days_ago(40))
    assert warehouse.one(ROWS.format("opens")) == 1_506
