"""Removing an account from a warehouse that has another one: what goes, what stays, and who has to wait."""

from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from klaviyo_pg.catalogue.stored_marts import STORED_MARTS
from klaviyo_pg.cli.remove import remove as remove_command
from klaviyo_pg.cli.views import views
from klaviyo_pg.errors import BadSettings, Busy, DatabaseAway, DatabaseUnusable
from klaviyo_pg.postgres import claims, stored_rows
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erase, removal
from pipeline.runs import transact
from tests.driver import PATIENCE
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, Warehouse, days_ago
from tests.locks import assert_waits
from tests.removing import content, id_of, mentions, remove

STORED = {"stored_marts": tuple(STORED_MARTS)}
EXPECTED = {"members": 2, "opens": 30, "stg_member_lists": 1}


@pytest.fixture
def offboarded(warehouse: Warehouse) -> Warehouse:
    """Runs of a second account, with people and lists of the same IDs, in the warehouse of `shop`."""
    account = FakeAccount(account_id="OTHER")
    account.add_metric("OPEN", "Opened Email")
    account.add_list("L1", "List L1")
    for person in ("P0", "P1"):
        account.add_person(person, days_ago(20))
    account.add_member("L1", "P0", days_ago(9))
    account.add_events("OPEN", *(days_ago(6) + number * DAY / 8 for number in range(30)), person="P0")
    other = warehouse.variant(klaviyo_integration="other")
    return replace(other, open_source=account.open)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each transaction delete from one page."""
    monkeypatch.setattr(removal, "PAGES_AT_ONCE", 1)


@pytest.mark.parametrize("partitions", ["none", "month"])
def test_the_warehouse_is_then_as_if_it_had_never_had_the_account(
    warehouse: Warehouse, offboarded: Warehouse, partitions: str
) -> None:
    """Whatever was stored of it: rows, marts, erased people, an interrupted run, and what triggers have recorded."""
    settings = {**STORED, "event_partitions": partitions, "warehouse_schema": partitions}
    warehouse, offboarded = warehouse.variant(**settings), offboarded.variant(**settings)
    warehouse.daily()
    before = content(warehouse)
    offboarded.daily()
    offboarded.backfill(days_ago(30))
    integration_id = id_of(warehouse, "other")
    with offboarded.open() as session, session.database.transaction() as connection:
        erase.request(Account(connection, partitions, integration_id), ["p1@example.com"], ["P9"])
    warehouse.execute("INSERT INTO page_sizes VALUES ('other', 'events', 500, now())")
    assert {"opens", "stored_marts", "erasing", "backfill_chunks"} <= set(mentions(warehouse, integration_id))
    rows = remove(warehouse, "other")
    assert {name: rows[name] for name in EXPECTED} == EXPECTED
    assert content(warehouse) == before
    assert warehouse.daily().exit_code == 0


def test_estimates_are_exact_for_small_tables(warehouse: Warehouse, offboarded: Warehouse) -> None:
    """They are of one account."""
    warehouse.daily()
    result = offboarded.daily()
    with offboarded.open() as session:
        rows = transact(session, result.run, removal.estimate)
    assert {name: rows[name] for name in EXPECTED} == EXPECTED


def test_large_tables_are_sampled(warehouse: Warehouse, offboarded: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate is what the sample has, for all pages."""
    monkeypatch.setattr(stored_rows, "_SAMPLED_PAGES", 60)
    result = warehouse.daily()
    integration_id = id_of(warehouse, "shop")
    warehouse.execute(
        "INSERT INTO rejects (key, esp_integration_id, raw)"
        " SELECT md5(number::text), %s, repeat('x', 1000) FROM generate_series(1, 4000) AS number",
        integration_id,
    )

    def estimate(account: Account) -> tuple[int, int]:
        rows = removal.estimate(account)["rejects"]
        read = account.execute("SELECT pg_stat_get_xact_tuples_returned('rejects'::regclass)").fetchone()
        assert read is not None
        return rows, int(read[0])

    with warehouse.open() as session:
        rows, read = transact(session, result.run, estimate)
    assert 1_000 < rows < 9_000
    assert 0 < read < 1_000, "about 60 of 600 pages are read, each with seven rows"


def test_removing_that_was_killed_is_resumed(warehouse: Warehouse, offboarded: Warehouse) -> None:
    """Until then no run of the account begins, and the other one's do."""
    warehouse.daily()
    before = content(warehouse)
    offboarded.daily()
    integration_id = id_of(warehouse, "other")

    def killed(step: str, done: int, total: int) -> None:
        if not warehouse.rows("SELECT FROM members WHERE esp_integration_id = %s", integration_id):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        remove(warehouse, "other", report=killed)
    left = mentions(warehouse, integration_id)
    assert "members" not in left
    assert {"opens", "watermarks", "integrations"} <= set(left)
    with pytest.raises(BadSettings, match="other is being removed from this warehouse"):
        offboarded.daily()
    remove(warehouse, "other")
    assert content(warehouse) == before
    assert warehouse.daily().exit_code == 0
    assert mentions(warehouse, integration_id) == []


def test_other_accounts_are_loaded_at_the_same_time(warehouse: Warehouse, offboarded: Warehouse) -> None:
    """A run of the account that is being removed is refused."""
    offboarded.daily()
    integration_id = id_of(warehouse, "other")

    has_run: list[bool] = []

    def run_both(step: str, done: int, total: int) -> None:
        if has_run:
            return
        has_run.append(warehouse.daily().exit_code == 0)
        with pytest.raises(BadSettings, match="is being removed"):
            offboarded.daily()
        with pytest.raises(Busy, match="Another process is removing other"):
            remove(warehouse, "other")

    remove(warehouse, "other", report=run_both)
    assert has_run == [True]
    assert mentions(warehouse, integration_id) == []
    assert warehouse.one("SELECT count(*) FROM members") == 4


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        *((flow, f"Another {flow} run of other is in progress") for flow in claims.FLOWS),
        (erase.CLAIM, "Another process is erasing people of other"),
        ("backfill_part a", "Another backfill_part run of other is in progress"),
    ],
)
def test_it_is_refused_while_the_account_is_in_use(
    warehouse: Warehouse, offboarded: Warehouse, claim: str, sentence: str
) -> None:
    """Nothing is deleted, and the account can be used afterwards."""
    offboarded.daily()
    offboarded.backfill(days_ago(30))
    warehouse.execute("UPDATE backfill_chunks SET group_name = 'a', state = 'planned'")
    before = content(warehouse)
    with offboarded.open() as session:
        session.claims.take(id_of(warehouse, "other"), claim)
        with pytest.raises(Busy, match=sentence):
            remove(warehouse, "other")
    assert content(warehouse) == before
    assert offboarded.daily().exit_code == 0


def test_rows_are_deleted_that_vacuum_full_moves_meanwhile(warehouse: Warehouse, offboarded: Warehouse) -> None:
    """They are then on pages that were done before."""
    offboarded.daily()
    integration_id = id_of(warehouse, "other")
    fill = (
        "INSERT INTO rejects (key, esp_integration_id, raw)"
        " SELECT %s || number, %s, repeat('x', 1000) FROM generate_series(1, 100) AS number"
    )
    warehouse.execute(fill, "a", "someone else")
    warehouse.execute(fill, "b", integration_id)
    warehouse.execute("DELETE FROM rejects WHERE esp_integration_id = 'someone else'")
    moved: list[int] = []

    def move(step: str, done: int, total: int) -> None:
        left = len(warehouse.rows("SELECT FROM rejects WHERE esp_integration_id = %s", integration_id))
        if 0 < left < 80 and not moved:
            moved.append(left)
            with psycopg.connect(warehouse.url, autocommit=True) as connection:
                connection.execute("VACUUM FULL klaviyo.rejects")

    rows = remove(warehouse, "other", report=move)
    assert moved
    assert rows["rejects"] == 100
    assert mentions(warehouse, integration_id) == []


def test_no_one_is_erased_of_an_account_that_is_being_removed(warehouse: Warehouse, offboarded: Warehouse) -> None:
    """A request that was checked before removing began would leave rows with addresses."""
    offboarded.daily()
    integration_id = id_of(warehouse, "other")

    def request(*_: object) -> None:
        with psycopg.connect(warehouse.url) as connection, pytest.raises(BadSettings, match="account is being removed"):
            erase.request(Account(connection, "klaviyo", integration_id), ["p1@example.com"], ["P9"])

    remove(warehouse, "other", report=request)
    request()
    assert mentions(warehouse, integration_id) == []


def test_removing_waits_for_people_who_are_being_requested(warehouse: Warehouse, offboarded: Warehouse) -> None:
    """They are deleted with the account."""
    offboarded.daily()
    integration_id = id_of(warehouse, "other")
    with ThreadPoolExecutor() as executor, psycopg.connect(warehouse.url, autocommit=True) as observer:
        with psycopg.connect(warehouse.url) as connection:
            erase.request(Account(connection, "klaviyo", integration_id), ["p1@example.com"], ["P9"])
            removing = executor.submit(remove, warehouse, "other")
            assert_waits(observer, removing)
        assert removing.result(PATIENCE)["erasing"]
    assert mentions(warehouse, integration_id) == []


def test_objects_that_depend_on_views_keep_the_account_as_it_was(
    warehouse: Warehouse, offboarded: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named, and runs continue. What else is in the schema of the views stays."""
    offboarded.daily()
    for name in ("database_url", "data_dir"):
        monkeypatch.setenv(name.upper(), str(warehouse.settings[name]))
    assert views(Namespace(integration="other", schema="fivetran", drop=False, all=False)) == 0
    warehouse.execute("CREATE TABLE fivetran.my_notes (note text)")
    warehouse.execute("CREATE VIEW fivetran.my_people AS SELECT id FROM fivetran.person")
    arguments = Namespace(name="other", yes=True)
    with pytest.raises(DatabaseUnusable, match=r"depend on the views in fivetran, such as view fivetran\.my_people"):
        remove_command(arguments)
    assert offboarded.daily().exit_code == 0
    warehouse.execute("DROP VIEW fivetran.my_people")
    assert remove_command(arguments) == 0
    assert warehouse.column("SELECT name FROM integrations") == []
    left = "SELECT relname::text FROM pg_class WHERE relnamespace = 'fivetran'::regnamespace AND relkind IN ('r', 'v')"
    assert warehouse.column(left) == ["my_notes"]


def test_it_stops_once_its_claims_are_lost(warehouse: Warehouse, offboarded: Warehouse) -> None:
    """Another process could have taken them. A rerun resumes it."""
    offboarded.daily()

    def lose_claims() -> None:
        ended = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        assert warehouse.rows(f"{ended} AND datname = current_database()") == [(True,)]

    with pytest.raises(DatabaseAway, match="The database ended the session of this command"):
        remove(warehouse, "other", prepare=lose_claims)
    assert warehouse.one("SELECT count(*) FROM members") == 2
    remove(warehouse, "other")
    assert warehouse.column("SELECT name FROM integrations") == []


def test_the_account_can_be_loaded_again(warehouse: Warehouse, offboarded: Warehouse) -> None:
    """As a new one, of which nothing has been read."""
    first = offboarded.daily()
    before = id_of(warehouse, "other")
    remove(warehouse, "other")
    again = offboarded.daily()
    assert id_of(warehouse, "other") != before
    assert again.counts["opens"] == first.counts["opens"]
