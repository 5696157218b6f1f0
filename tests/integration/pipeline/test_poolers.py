"""Warehouses with a connection pooler: refused where claims would not keep other runs out, used otherwise."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from klaviyo_pg.cli.erase import erase
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres.connect import shares_sessions
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import Warehouse
from tests.pooler import PGBOUNCER, pgbouncer, small_pooler

REFUSED = (
    "DATABASE_URL leads to a connection pooler in transaction or statement mode, where the locks that keep runs apart "
    "do not work: use a direct connection or a pooler in session mode."
)
needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")


@pytest.fixture(params=[small_pooler, pytest.param(pgbouncer, marks=needs_pgbouncer)])
def pooled(request: pytest.FixtureRequest, database: str, tmp_path: Path, mode: str) -> Iterator[str]:
    """Yield a URL that leads to the warehouse through a pooler."""
    folder = tmp_path / "pooler"
    folder.mkdir()
    with request.param(database, mode, folder) as url:
        yield url


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_run_is_refused_before_anything_is_read(
    warehouse: Warehouse, shop: FakeAccount, pooled: str, mode: str
) -> None:
    """A lock would belong to whoever gets the server's session next. No request is sent, and no row is written."""
    with pytest.raises(BadSettings) as caught:
        warehouse.daily(database_url=pooled)
    assert (str(caught.value), caught.value.exit_code) == (REFUSED, 2)
    assert shop.requests == []
    assert warehouse.one("SELECT count(*) FROM runs") == 0


@pytest.mark.parametrize("mode", ["session"])
def test_a_pooler_in_session_mode_keeps_sessions_apart(pooled: str, mode: str) -> None:
    assert not shares_sessions(pooled)


@needs_pgbouncer
def test_a_run_through_pgbouncer_in_session_mode_is_complete(
    warehouse: Warehouse, shop: FakeAccount, database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "pooler"
    folder.mkdir()
    with pgbouncer(database, "session", folder) as url:
        ran = warehouse.daily(database_url=url)
    assert (ran.state, ran.sentences) == ("complete", [])
    assert len(warehouse.event_ids()) == len(shop.events)


@needs_pgbouncer
def test_people_are_erased_through_pgbouncer_in_transaction_mode(
    warehouse: Warehouse, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim ends with a transaction, so no session of the server keeps it."""
    monkeypatch.setenv("KLAVIYO_INTEGRATION", warehouse.daily().run.settings.klaviyo_integration)
    folder = tmp_path / "pooler"
    folder.mkdir()
    with pgbouncer(database, "transaction", folder) as url:
        monkeypatch.setenv("DATABASE_URL", url)
        for person in ("P0", "P1"):
            assert erase(Namespace(email=[], id=[person], file=None, yes=True, integration=None)) == 0
    assert warehouse.column("SELECT id FROM members WHERE id IN ('P0', 'P1')") == []
