"""Sessions: claims that are renewed, API clients that are lent to one thread at a time, and runs that are joined."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from math import inf
from threading import Barrier, Thread, Timer
from typing import Any, NoReturn

import psycopg
import pytest

from klaviyo_pg import rows
from klaviyo_pg.catalogue import dimensions
from klaviyo_pg.errors import BadSettings, Busy, DatabaseAway, Stopped
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import accounts, claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger, run_ledger
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.postgres.ledgers.run_ledger import StartedRun
from klaviyo_pg.settings import Settings
from klaviyo_pg.states import RunState
from pipeline import checks, runs
from pipeline.backfill.plan import part_of_plan
from pipeline.runs import Run
from pipeline.session import Session
from pipeline.workers import ThreadWorkers
from tests.connections import end_session, half_open
from tests.driver import wait_until
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import LOG, Warehouse, cut_connections, days_ago


def test_another_run_of_the_flow_is_refused_while_one_is_in_progress(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The refused run writes nothing. Other flows and other accounts can run."""
    with warehouse.open() as session:
        runs.begin(session, "daily", {}, LOG)
        with pytest.raises(Busy, match=r"^Another daily run of shop is in progress: wait for it to finish, or stop it"):
            warehouse.daily("metrics")
        assert len(warehouse.column("SELECT run_id FROM runs")) == 1
        assert warehouse.reconcile().state == "complete"
        shop.account_id = "OTHER"
        assert warehouse.daily("metrics", klaviyo_integration="other").state == "complete"
    shop.account_id = "ACCOUNT"
    assert warehouse.daily("metrics").state == "complete"


def test_a_run_is_limited_as_the_warehouse_has_it(warehouse: Warehouse) -> None:
    """Arguments that repeat the settings resume a run of the whole account. Its end is that of the whole, too."""
    for is_limited in (False, True):
        with warehouse.open() as session:
            assert not runs.begin(session, "daily", {}, LOG, is_limited).is_limited


def test_claims_that_were_lost_are_taken_again(warehouse: Warehouse) -> None:
    """As after a restart of the database."""
    with warehouse.open() as session, warehouse.open() as other:
        session.claims.take("account", "daily")
        session.claims.renew()
        cut_connections(warehouse)
        session.claims.renew()
        assert "daily" in session.claims and "backfill" not in session.claims
        with pytest.raises(Busy):
            other.claims.take("account", "daily")
        session.claims.release_all()
        assert "daily" not in session.claims
        other.claims.take("account", "daily")


def test_a_claim_that_cannot_be_taken_again_can_be_stopped(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database accepts no new connection, though those of the pool work, transactions wait for the claim."""
    with warehouse.open() as session:
        run = runs.begin(session, "daily", {}, LOG)
        attempts: list[bool] = []

        def refuse(*_: object) -> NoReturn:
            attempts.append(True)
            raise psycopg.OperationalError("FATAL:  sorry, too many clients already")

        monkeypatch.setattr(session.claims, "_claimed", refuse)
        session.claims._claims[0].account.connection.close()
        wait_for_no_claims(warehouse)
        errors: list[BaseException] = []

        def work() -> None:
            try:
                runs.transact(session, run, lambda account: None)
            except DatabaseAway as error:
                errors.append(error)

        thread = Thread(target=work)
        thread.start()
        wait_until(lambda: len(attempts) > 1, "the claim was asked for")
        session.stop.request(Stopped())
        thread.join(5)
        assert not thread.is_alive() and errors
        assert len(attempts) < 50, "attempts have pauses between them"


@pytest.mark.parametrize(("what", "is_vital"), [("daily", True), ("backfill_part a", True), ("erasing", False)])
def test_a_claim_is_taken_again_from_a_lost_session_that_the_server_keeps(
    warehouse: Warehouse, what: str, is_vital: bool
) -> None:
    """The server notices a lost connection a minute later, and with a proxy in between much later."""
    with warehouse.open() as session:
        run = runs.begin(session, "daily", {}, LOG)
        session.claims.release_all()
        session.claims.take(run.integration_id, what, is_vital)
        before = session.claims._claims[0].server_session
        with half_open(session.claims._claims[0].account.connection):
            assert runs.transact(session, run, lambda account: claims.is_held_by(account, what, before))
            session.claims.renew()
            assert not session.claims.are_lost
            [claim] = session.claims._claims
            assert runs.transact(session, run, lambda account: claims.is_held_by(account, what, claim.server_session))


def test_a_session_of_the_server_that_does_not_hold_the_lost_claim_stays(warehouse: Warehouse) -> None:
    """The server may have given the number of the lost session to another one."""
    with warehouse.open() as session, warehouse.open() as other:
        run = runs.begin(session, "daily", {}, LOG)
        lose_claims(warehouse)
        other.claims.take(run.integration_id, "erasing")
        number = session.claims._claims[0].server_session = other.claims._claims[0].server_session
        session.claims.renew()
        assert runs.transact(session, run, lambda account: claims.is_held_by(account, "erasing", number))


def test_a_claim_of_a_process_that_has_not_taken_the_run_is_waited_for(warehouse: Warehouse) -> None:
    """It may fail before it does: then this run continues."""
    with warehouse.open() as session, warehouse.open() as other:
        run = runs.begin(session, "daily", {}, LOG)
        lose_claims(warehouse)
        other.claims.take(run.integration_id, "daily")
        with pytest.raises(DatabaseAway, match="still holds the lock of this daily run of shop"):
            session.claims.renew()
        other.claims.release_all()
        session.claims.renew()
        assert "daily" in session.claims and not session.claims.are_lost


def test_a_claim_that_is_held_to_remove_the_account_ends_the_run(warehouse: Warehouse) -> None:
    """Waiting for it would load the account again."""
    with warehouse.open() as session, warehouse.open() as other:
        run = runs.begin(session, "daily", {}, LOG)
        lose_claims(warehouse)
        other.claims.take(run.integration_id, "daily")
        with other.database.transaction() as connection:
            accounts.record_removal(run.account(connection))
        with pytest.raises(Busy):
            session.claims.renew()


def test_a_transaction_of_a_lost_session_is_waited_for(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its own claim kept other runs out while it began: it is one of this run."""
    monkeypatch.setattr(claims, "_LONGEST_WAIT", "50ms")
    with warehouse.open() as session, psycopg.connect(warehouse.url) as lost:
        run = runs.begin(session, "daily", {}, LOG)
        assert claims.hold_for_transaction(run.account(lost), "daily", session.claims._claims[0].server_session)
        warehouse.execute("SELECT pg_terminate_backend(%s, 60000)", session.claims._claims[0].server_session)
        with pytest.raises(DatabaseAway, match="still holds the lock"):
            session.claims.renew()
        lost.rollback()
        session.claims.renew()
        assert "daily" in session.claims and not session.claims.are_lost


@pytest.mark.parametrize("keeps_claim", [pytest.param(False, id="claim ended"), pytest.param(True, id="claim kept")])
def test_a_connection_that_is_lost_while_a_run_opens_ends_no_run(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, keeps_claim: bool
) -> None:
    """The server may keep the session with the claim of the first attempt."""
    take, losses = run_ledger.take, ExitStack()

    def lose_connections(account: Account, *values: str) -> None:
        monkeypatch.setattr(run_ledger, "take", take)
        if keeps_claim:
            losses.enter_context(half_open(session.claims._claims[0].account.connection))
            end_session(warehouse.url, account.connection)
        else:
            cut_connections(warehouse)
        take(account, *values)

    monkeypatch.setattr(run_ledger, "take", lose_connections)
    with warehouse.open() as session, warehouse.open() as other, losses:
        run = runs.begin(session, "daily", {}, LOG)
        assert run.resumed_at is None
        assert warehouse.rows("SELECT run_id, state FROM runs") == [(run.id, "running")]
        assert len(session.claims._claims) == 1
        with pytest.raises(Busy, match="is in progress"):
            other.claims.take(run.integration_id, "daily")


def test_a_connection_that_is_lost_while_a_warehouse_is_looked_at_ends_no_run(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = checks.metrics_to_check

    def lose_connection(
        connection: psycopg.Connection, settings: Settings, described: rows.Account | None
    ) -> checks.MetricsToCheck:
        monkeypatch.setattr(checks, "metrics_to_check", look)
        end_session(warehouse.url, connection)
        return look(connection, settings, described)

    warehouse.daily("metrics")
    monkeypatch.setattr(checks, "metrics_to_check", lose_connection)
    assert warehouse.daily("metrics", metrics=("OPEN",)).state == "complete"


def test_a_connection_that_is_lost_while_a_process_joins_a_run_ends_nothing(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = run_ledger.find_run

    def lose_connection(connection: psycopg.Connection, *values: str) -> StartedRun | None:
        monkeypatch.setattr(run_ledger, "find_run", find)
        end_session(warehouse.url, connection)
        return find(connection, *values)

    with warehouse.open() as session, warehouse.open() as part:
        run = runs.begin(session, "backfill", {}, LOG)
        monkeypatch.setattr(run_ledger, "find_run", lose_connection)
        assert runs.join(part, run.id, "backfill", "backfill_part a", 0.0).id == run.id


def test_a_claim_that_no_connection_can_be_opened_for_may_come_back(warehouse: Warehouse) -> None:
    with warehouse.open(database_url="postgresql://127.0.0.1:1/nothing") as session, pytest.raises(DatabaseAway):
        session.claims.take("account", "daily")


def test_a_claim_that_another_process_has_taken_ends_the_run(warehouse: Warehouse) -> None:
    with warehouse.open() as session, warehouse.open() as other:
        session.claims.take("account", "daily")
        cut_connections(warehouse)
        other.claims.take("account", "daily")
        with pytest.raises(Busy):
            session.claims.renew()


def test_a_claim_that_is_not_vital_is_given_up_to_another_process(warehouse: Warehouse) -> None:
    with warehouse.open() as session, warehouse.open() as other:
        session.claims.take("account", "daily")
        session.claims.take("account", "erasing", is_vital=False)
        cut_connections(warehouse)
        session.claims.renew()
        assert "erasing" in session.claims
        cut_connections(warehouse)
        other.claims.take("account", "erasing")
        session.claims.renew()
        assert ("daily" in session.claims, "erasing" in session.claims) == (True, False)
        assert not session.claims.are_lost


def test_a_run_renews_its_claim(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The connections are cut while a chunk is read: the run completes, and still holds its claim then."""
    held: list[bool] = []

    def look() -> None:
        with warehouse.open() as other, pytest.raises(Busy):
            other.claims.take(warehouse.column("SELECT esp_integration_id FROM integrations")[0], "daily")
        held.append(True)

    shop.before("lists", lambda: cut_connections(warehouse))
    shop.before("counts", look)
    assert warehouse.daily(concurrency=1).state == "complete"
    assert held == [True]


def test_a_run_whose_claim_was_taken_stores_nothing_more(
    warehouse: Warehouse, shop: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections are cut while lists are read, and another run takes the claim before this one notices.

    The other run reads everything. This one stores no row, leaves the state of the run alone, and explains why.
    """
    monkeypatch.setattr("pipeline.held_claims._POLL_SECONDS", inf)  # it notices in its next transaction
    stored: list[object] = []

    def take_over() -> None:
        cut_connections(warehouse)
        resumed = runs.begin(other, "daily", SELECTION, LOG)
        assert resumed.resumed_at is not None
        stored.append(state(warehouse))

    shop.before("lists", take_over)
    with warehouse.open(concurrency=1) as other:
        with pytest.raises(Busy) as caught:
            warehouse.daily(concurrency=1)
        assert stored == [state(warehouse)]
    assert str(caught.value) == (
        "The database ended the session of this daily run of shop, and another run has taken over: wait for it to "
        "finish."
    )
    assert warehouse.daily().state == "complete"
    assert len(warehouse.event_ids()) == len(shop.events)


SELECTION = {"tables": (), "since": None}


def state(warehouse: Warehouse) -> list[object]:
    """Return what a run changes: the state of runs, their chunks, and rows."""
    counts = [warehouse.one(f"SELECT count(*) FROM {table}") for table in ("lists", "members", "members")]
    return [warehouse.rows("SELECT run_id, state, message FROM runs"), len(warehouse.event_ids()), counts]


def test_a_claim_that_is_lost_is_taken_again_before_the_next_transaction(warehouse: Warehouse) -> None:
    """Nobody else has taken it: the work is done once, under the claim."""
    with warehouse.open() as session:
        run = runs.begin(session, "daily", {}, LOG)
        lose_claims(warehouse)
        assert runs.transact(session, run, lambda account: account.integration_id) == run.integration_id
        with warehouse.open() as other, pytest.raises(Busy, match="is in progress"):
            other.claims.take(run.integration_id, "daily")


@pytest.mark.parametrize(
    "selection",
    [pytest.param({"since": None}, id="resumed"), pytest.param({"since": days_ago(1)}, id="other arguments")],
)
def test_a_claim_is_not_taken_again_after_another_run(warehouse: Warehouse, selection: dict[str, datetime]) -> None:
    """The other run has ended, so the claim is free. But it has read to their end what this one would continue."""
    with warehouse.open() as session:
        run = runs.begin(session, "daily", {"since": None}, LOG)
        lose_claims(warehouse)
        assert warehouse.daily(**selection).state == "complete"
        stored = state(warehouse)
        with pytest.raises(Busy, match="another run has taken over"):
            runs.transact(session, run, lambda account: run_ledger.close_run(account, run.id, RunState.FAILED, "late"))
        with pytest.raises(Busy, match="another run has taken over"):
            runs.finish(session, run, RunState.FAILED, ["late"])
        assert state(warehouse) == stored
        with warehouse.open() as other:
            other.claims.take(run.integration_id, "daily")


def test_a_run_whose_process_is_gone_has_failed_once_another_one_begins(warehouse: Warehouse) -> None:
    with warehouse.open() as session:
        run = runs.begin(session, "daily", {"since": None}, LOG)
    with warehouse.open() as other:
        assert runs.begin(other, "daily", {"since": days_ago(1)}, LOG).id != run.id
    [[state, message, has_ended]] = warehouse.rows(
        "SELECT state, message, finished_at IS NOT NULL FROM runs WHERE run_id = %s", run.id
    )
    assert (state, has_ended) == ("failed", True)
    assert message.startswith("The process of this run ended, or lost its connection, before the run did.")
    with warehouse.open() as session:
        assert runs.begin(session, "daily", {"since": None}, LOG).id == run.id


def test_an_error_of_a_run_that_was_resumed_elsewhere_is_not_recorded(warehouse: Warehouse) -> None:
    """The run ends before it notices that another process has taken it over."""
    with warehouse.open() as session, warehouse.open() as other:
        run = runs.begin(session, "daily", {}, LOG)
        lose_claims(warehouse)
        assert runs.begin(other, "daily", {}, LOG).id == run.id
        runs.close_after_error(session, run, RunState.FAILED, "Cannot connect to the database.")
        assert warehouse.rows("SELECT state, message FROM runs") == [("running", None)]
        other.claims.release_all()
        runs.close_after_error(session, run, RunState.FAILED, "Cannot connect to the database.")
        assert warehouse.rows("SELECT state, message FROM runs") == [("running", None)]


def test_a_claim_that_fails_leaves_no_connection(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep the claim for as long as the process lives."""
    failed = list[Account]()

    def fail(account: Account, *_: object) -> NoReturn:
        failed.append(account)
        raise DatabaseAway

    with warehouse.open() as session:
        session.claims.take("account", "daily")
        lose_claims(warehouse)
        monkeypatch.setattr(run_ledger, "is_taken", fail)
        with pytest.raises(DatabaseAway):
            session.claims.renew()
        assert [each.connection.closed for each in failed] == [True]


def test_an_error_is_recorded_although_the_claim_was_lost(warehouse: Warehouse) -> None:
    """No other process has taken it."""
    with warehouse.open() as session:
        run = runs.begin(session, "daily", {}, LOG)
        lose_claims(warehouse)
        runs.close_after_error(session, run, RunState.FAILED, "The disk is full.")
        assert warehouse.rows("SELECT state, message FROM runs") == [("failed", "The disk is full.")]


def take(session: Session, run: Run) -> None:
    """Record that a session has taken a run, as beginning one does."""
    with session.database.transaction() as connection:
        run_ledger.take(run.account(connection), "daily", run.id, session.id)


def lose_claims(warehouse: Warehouse) -> None:
    """End every connection to the warehouse, and wait until Postgres has released its claims."""
    cut_connections(warehouse)
    wait_for_no_claims(warehouse)


def wait_for_no_claims(warehouse: Warehouse) -> None:
    """Wait until Postgres has noticed that the connections with claims have ended."""
    wait_until(
        lambda: not warehouse.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "no claim is left"
    )


@contextmanager
def without_answer(session: Session, warehouse: Warehouse, end: str) -> Iterator[None]:
    """Lose the connection of the session's next transaction at its COMMIT. The server ends it a bit later."""
    lost = psycopg.connect(warehouse.url, autocommit=True)
    lost.execute("SET search_path = pg_catalog, klaviyo")
    server, usual = Timer(0.3, lost.execute, [end]), session.database.transaction

    @contextmanager
    def transaction(waits: bool = True) -> Iterator[psycopg.Connection]:
        session.database.transaction = usual  # type: ignore[method-assign]
        lost.execute("BEGIN")
        yield lost
        server.start()
        raise DatabaseAway

    session.database.transaction = transaction  # type: ignore[method-assign]
    try:
        yield
    finally:
        server.join()
        lost.close()


@pytest.mark.parametrize(
    ("end", "attempts"), [pytest.param("COMMIT", 1, id="committed"), pytest.param("ROLLBACK", 2, id="rolled back")]
)
def test_work_is_committed_once_when_the_answer_to_the_commit_is_lost(
    warehouse: Warehouse, end: str, attempts: int
) -> None:
    """The next attempt waits until the server has ended the first one."""
    done: list[str] = []

    def work(account: Account) -> int:
        done.append(f"attempt {len(done) + 1}")
        account.execute("INSERT INTO {} (key, id) VALUES (%(key)s, 'P9')", dimensions.MEMBERS, key=done[-1])
        return len(done)

    with warehouse.open() as session:
        run = runs.begin(session, "daily", {}, LOG)
        runs.transact(session, run, work)
        with without_answer(session, warehouse, end):
            assert runs.transact(session, run, work) == 1 + attempts == len(done)
        assert warehouse.column("SELECT key FROM members ORDER BY key") == [done[0], done[-1]]
        assert warehouse.one("SELECT count(*) FROM klaviyo_internal.commits") == 1


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_run_is_opened_once_when_the_answer_to_the_commit_is_lost(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """The next attempt does not take it for one that did not finish. Its notes stay, and its requests count once."""
    salted = warehouse.variant(personal_data="hash", personal_data_salt="a salt that is long enough for hashes")
    salted.daily()
    usual, attempts = runs._Opening.attempt, 0

    def without_answer_once(opening: runs._Opening) -> Any:
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            return usual(opening)
        with without_answer(opening.session, warehouse, end):
            return usual(opening)

    monkeypatch.setattr(runs._Opening, "attempt", without_answer_once)
    with salted.variant(readable_properties=("size",)).open() as session:
        run = runs.begin(session, "daily", {}, LOG)
        assert (attempts, run.resumed_at) == (2, None)
        assert [note.partition(" has")[0] for note in run.notes] == ["READABLE_PROPERTIES"]
    assert warehouse.rows("SELECT run_id, requests FROM runs WHERE state = 'running'") == [(run.id, 1)]


def test_work_that_writes_nothing_leaves_nothing(warehouse: Warehouse) -> None:
    with warehouse.open() as session:
        run = runs.begin(session, "daily", {}, LOG)
        left = warehouse.rows("SELECT * FROM klaviyo_internal.commits")
        assert runs.transact(session, run, lambda account: account.is_true("SELECT true"))
        assert warehouse.rows("SELECT * FROM klaviyo_internal.commits") == left


def test_a_claim_waits_for_a_transaction_of_its_last_holder(warehouse: Warehouse) -> None:
    """A transaction that began under a claim ends before a new holder begins, although the claim was lost."""
    order: list[str] = []
    with warehouse.open() as session, warehouse.open() as other:
        run = runs.begin(session, "daily", {}, LOG)

        def take_over() -> None:
            other.claims.take(run.integration_id, "daily")
            take(other, run)
            order.append("claimed")

        thread = Thread(target=take_over)

        def work(account: Account) -> None:
            account.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND"
                " mode = 'ExclusiveLock' AND pid <> pg_backend_pid()"
            )
            thread.start()
            waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
            wait_until(lambda: warehouse.one(waits), "the new holder waited")
            order.append("stored")

        runs.transact(session, run, work)
        thread.join()
        assert order == ["stored", "claimed"]
        with pytest.raises(Busy, match="another run has taken over"):
            runs.transact(session, run, lambda account: order.append("stored"))
    assert order == ["stored", "claimed"]


def test_a_source_is_lent_to_one_thread_at_a_time(warehouse: Warehouse) -> None:
    """Threads at the same time get different sources, and later ones get those that were returned."""
    sources: list[Source] = []
    barrier = Barrier(3)

    def use() -> None:
        with session.source() as source:
            sources.append(source)
            barrier.wait(60)

    with warehouse.open() as session:
        for _ in range(2):
            threads = [Thread(target=use) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert len(set(map(id, sources[:3]))) == 3
    assert set(map(id, sources[3:])) == set(map(id, sources[:3]))


def test_a_source_is_returned_after_an_error(warehouse: Warehouse) -> None:
    with warehouse.open() as session:
        with pytest.raises(ZeroDivisionError), session.source() as first:
            raise ZeroDivisionError
        with session.source() as second:
            assert second is first


def test_traffic_is_that_of_all_sources(warehouse: Warehouse, shop: FakeAccount) -> None:
    with warehouse.open() as session:
        session.first_source().account()
        with session.source() as one, session.source() as other:
            list(one.metrics())
            list(other.lists())
            list(other.flows())
        assert session.traffic.requests == len(shop.requests) == 4


def test_another_process_can_join_a_run_in_progress(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It reads the chunks of its group, sends no request to join, and holds a separate claim."""
    with warehouse.open() as session, warehouse.open() as other:
        run = runs.begin(session, "backfill", {}, LOG)
        shop.recover()
        joined = runs.join(other, run.id, "backfill", "backfill_part a", 0.5)
        assert replace(joined, answer_seconds=run.answer_seconds, settings=run.settings) == run
        assert "backfill_part a" in other.claims
        assert shop.requests == []
        chunks = [BackfillChunk("OPEN", days_ago(day + 1), days_ago(day), 1) for day in range(3)]
        runs.transact(session, run, lambda account: backfill_ledger.add(account, chunks))
        runs.transact(session, run, lambda account: backfill_ledger.group(account, chunks[:2], "a"))
        planned = ThreadWorkers(other).call(part_of_plan, joined, "a")
        assert planned.chunks == tuple(each._replace(group_name="a") for each in chunks[:2])


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        pytest.param({"personal_data": "keep"}, "PERSONAL_DATA is keep", id="mode"),
        pytest.param({"personal_data_salt": "another salt" * 3}, "PERSONAL_DATA_SALT differs", id="salt"),
        pytest.param({"readable_properties": ("Größe",)}, "READABLE_PROPERTIES differs", id="readable names"),
    ],
)
def test_a_process_that_protects_personal_data_otherwise_cannot_join(
    warehouse: Warehouse, changed: dict[str, object], refusal: str
) -> None:
    """It would add plain rows, or those of another salt, to protected ones."""
    protected: dict[str, object] = {"personal_data": "hash", "personal_data_salt": "salt" * 8}
    with warehouse.open(**protected) as session, warehouse.open(**{**protected, **changed}) as other:
        run = runs.begin(session, "backfill", {}, LOG)
        with pytest.raises(BadSettings, match=refusal):
            runs.join(other, run.id, "backfill", "backfill_part a", 0.5)
        assert "backfill_part a" not in other.claims


def test_a_run_that_has_ended_cannot_be_joined(warehouse: Warehouse) -> None:
    ran = warehouse.backfill(days_ago(2))
    with warehouse.open() as session, pytest.raises(Stopped, match="has ended"):
        runs.join(session, ran.run.id, "backfill", "backfill_part a", 0.0)


def test_a_run_that_another_one_has_followed_cannot_be_joined(warehouse: Warehouse) -> None:
    """A part that was scheduled by a killed backfill begins while another backfill is in progress."""
    with warehouse.open() as session:
        killed = runs.begin(session, "backfill", {"start": days_ago(2)}, LOG)
    with warehouse.open() as session, warehouse.open() as part:
        runs.begin(session, "backfill", {"start": days_ago(3)}, LOG)
        with pytest.raises(Stopped, match="has ended"):
            runs.join(part, killed.id, "backfill", "backfill_part a", 0.0)


def test_an_unknown_run_cannot_be_joined(warehouse: Warehouse) -> None:
    with warehouse.open() as session, pytest.raises(BadSettings, match="This warehouse has no run nowhere of shop"):
        runs.join(session, "nowhere", "backfill", "backfill_part a", 0.0)
