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


def test_a_run_lets_the_planner_know_its_account(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Otherwise it would expect one row of the account, and compare all its rows with each other."""
    known = "SELECT most_common_vals::text::text[] FROM pg_stats WHERE tablename = 'opens' AND attname = %s"
    warehouse.execute("ALTER TABLE opens SET (autovacuum_enabled = off)")
    warehouse.daily("metrics")
    warehouse.execute(
        "INSERT INTO opens (key, event_at, esp_integration_id)"
        " SELECT each::text, '2026-01-01Z', 'another' FROM generate_series(1, 20000) AS each"
    )
    warehouse.execute("ANALYZE opens")
    assert warehouse.one(known, "esp_integration_id") == ["another"]
    shop.add_events("OPEN", *(days_ago(1) + number * DAY / 2_000 for number in range(1_500)))
    warehouse.daily()
    [integration_id] = warehouse.column("SELECT esp_integration_id FROM integrations")
    assert set(warehouse.one(known, "esp_integration_id")) == {"another", integration_id}
