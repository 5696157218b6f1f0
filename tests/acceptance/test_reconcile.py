"""The command reconcile as a process, over a warehouse that was filled in this process."""

from datetime import timedelta

import pytest

from sandbox.launcher import running
from tests import runs
from tests.driver import MIDNIGHT, Warehouse, account


@pytest.mark.slow
def test_reconcile_restores_rows_and_prints_what_still_differs(warehouse: Warehouse) -> None:
    """The run succeeds. The summary counts the restored rows, and a remaining difference is one line."""
    day = MIDNIGHT - timedelta(days=3)
    with running(members=100, events=4_000, days=20, until=MIDNIGHT) as box:
        settings = account(box)
        filling = {name.lower(): value for name, value in settings.items()} | {"database_url": warehouse.url}
        assert runs.Warehouse(warehouse.url, filling).daily(*runs.ALL_EVENTS).exit_code == 0
        where = f"event_at >= '{day}' AND event_at < '{day + timedelta(days=1)}'"
        stored = warehouse.one(f"SELECT count(*) FROM klaviyo.sends WHERE {where}")
        delete = "DELETE FROM klaviyo.sends WHERE id IN (SELECT id FROM klaviyo.sends WHERE {} LIMIT 5) RETURNING id"
        assert len(warehouse.rows(delete.format(where))) == 5
        box.lie("Received Email", f"{day:%Y-%m-%d}", 3)
        ran = warehouse.run(["flows/reconcile.py", "--days", "10", "--metrics", "Received Email"], settings)
    assert ran.code == 0, ran.err[-3000:]
    assert ran.counts["sends"][1] == 5
    assert warehouse.one("SELECT is_limited FROM klaviyo.runs WHERE flow = 'reconcile'")
    difference = f"the source counts {stored + 3:,} events, the warehouse has {stored:,}."
    assert ran.err.splitlines().count(f"Received Email, {day:%Y-%m-%d}: {difference}") == 1
