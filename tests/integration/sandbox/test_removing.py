"""The command `remove` in a warehouse of two accounts, each with rows of every kind."""

from argparse import Namespace
from collections.abc import Iterator

import pytest

from klaviyo_pg.catalogue.stored_marts import STORED_MARTS
from klaviyo_pg.cli.remove import remove
from klaviyo_pg.cli.views import views
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT
from tests.removing import content, id_of, mentions
from tests.runs import Warehouse

VIEWS = "SELECT count(*) FROM pg_views WHERE schemaname = 'fivetran'"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=60, events=1_500, days=10, until=MIDNIGHT) as box:
        yield box


def test_nothing_stays_of_a_removed_account(
    warehouse: Warehouse, box: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither rows, nor views over it, nor its spool. The other account is as it was."""
    everything = warehouse.variant(
        tables=("all",), segments=tuple(box.state()["segments"]), stored_marts=tuple(STORED_MARTS)
    )
    kept, removed = (everything.variant(klaviyo_integration=name) for name in ("shop-de", "shop-fr"))
    for name in ("database_url", "data_dir"):
        monkeypatch.setenv(name.upper(), str(warehouse.settings[name]))
    assert kept.daily().exit_code == 0
    before = content(warehouse)
    assert removed.daily().exit_code == 0
    assert views(Namespace(integration="shop-fr", schema="fivetran", drop=False, all=False)) == 0
    integration_id = id_of(warehouse, "shop-fr")
    spool = removed.configured().spool_dir / integration_id
    spool.mkdir(parents=True)
    stored = mentions(warehouse, integration_id, "shop-fr")
    assert len(stored) > 60
    capsys.readouterr()
    assert remove(Namespace(name="shop-fr", yes=True)) == 0
    assert "Runs with KLAVIYO_INTEGRATION=shop-fr would load it again" in capsys.readouterr().out
    assert content(warehouse) == before
    assert warehouse.one(VIEWS) == 0
    assert not spool.exists()
    assert kept.daily().exit_code == 0
