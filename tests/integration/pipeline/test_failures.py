"""The effects of errors on a run: its state, sentences and exit code, and what this run and the next one read."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from klaviyo_pg.errors import (
    BadAnswer,
    BadKey,
    BadSettings,
    DatabaseUnusable,
    MissingScope,
    Stopped,
    Throttled,
    Unavailable,
)
from klaviyo_pg.windows import FULL_READ
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import Warehouse, days_ago


def run_state(warehouse: Warehouse) -> tuple[str, str | None]:
    """Return the state and the message of the last run in the ledger."""
    [row] = warehouse.rows("SELECT state, message FROM runs ORDER BY started_at DESC LIMIT 1")
    return row[0], row[1]


def test_a_failing_chunk_does_not_stop_the_others(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The run fails with the error as its sentence, everything else is stored, and no watermark covers the gap."""
    shop.fail("profiles", Unavailable("Klaviyo is away."))
    ran = warehouse.daily()
    assert (ran.state, ran.sentences, ran.exit_code) == ("failed", ["Klaviyo is away."], 1)
    assert run_state(warehouse) == ("failed", "Klaviyo is away.")
    assert len(warehouse.column("SELECT id FROM opens")) == 6
    assert len(warehouse.column("SELECT list_id FROM member_lists")) == 3
    assert "profiles" not in warehouse.watermarks()
    assert "events/OPEN" in warehouse.watermarks()


def test_a_failed_run_is_resumed_and_reads_only_what_is_left(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The next run with the same selection on the same day keeps the id and the present of the failed one.

    New members are read from the watermark on, with their overlap. Profiles are not, since they were read just now.
    """
    shop.fail("events", BadAnswer("Odd."), times=2)
    failed = warehouse.daily()
    assert (failed.state, failed.sentences, failed.exit_code) == ("failed", ["Odd."], 1)
    unread = [each.window for each in shop.sent("events")[:2]]
    shop.recover()
    resumed = warehouse.daily()
    assert (resumed.run.id, resumed.run.as_of, resumed.state) == (failed.run.id, failed.run.as_of, "complete")
    assert {each.window for each in shop.sent("events")} == set(unread)
    assert {each.kind for each in shop.requests} == {"account", "events", "memberships", "counts"}
    assert FULL_READ not in [each.window for each in shop.sent("memberships")]
    assert sorted(warehouse.column("SELECT id FROM opens UNION SELECT id FROM events")) == sorted(
        event.id for event in shop.events
    )
    assert warehouse.watermarks()["events/OPEN"] == failed.run.as_of


def test_another_selection_does_not_resume_a_failed_run(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.fail("profiles", BadAnswer(), times=1)
    failed = warehouse.daily()
    assert warehouse.daily("members").run.id != failed.run.id
    assert warehouse.daily(lookback_days=5).run.id != failed.run.id
    assert warehouse.daily().run.id == failed.run.id


def test_a_missing_scope_leaves_the_run_partial(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Everything else is read. A partial run is not resumed: the next one reads everything again."""
    shop.fail("campaigns", MissingScope("campaigns:read"))
    ran = warehouse.daily()
    sentence = "The API key lacks the scope campaigns:read. Add it to the key in Klaviyo's settings."
    assert (ran.state, ran.sentences, ran.exit_code) == ("partial", [sentence], 3)
    assert len(warehouse.column("SELECT id FROM opens")) == 6
    assert "campaigns" not in warehouse.watermarks()
    shop.recover()
    again = warehouse.daily()
    assert (again.state, again.run.id == ran.run.id) == ("complete", False)
    assert "campaigns" in warehouse.watermarks()


def test_without_metrics_no_events_are_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A key that may not read metrics leaves the run partial, with one sentence."""
    shop.fail("metrics", MissingScope("metrics:read"))
    ran = warehouse.daily()
    assert (ran.state, len(ran.sentences), ran.exit_code) == ("partial", 1, 3)
    assert "metrics:read" in ran.sentences[0]
    assert not shop.sent("events") and not shop.sent("counts")
    assert len(warehouse.column("SELECT id FROM members")) == 4


def test_an_account_without_metrics_is_read_completely(warehouse: Warehouse, shop: FakeAccount) -> None:
    """There are no events to read either, and no scope is missing."""
    shop.metrics.clear()
    shop.events.clear()
    ran = warehouse.daily()
    assert (ran.state, ran.sentences, ran.exit_code) == ("complete", [], 0)
    assert not shop.sent("events")


def test_a_missing_account_scope_keeps_the_stored_account_id(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The run succeeds, and new rows name the account as an earlier run has read it."""
    warehouse.daily("stg_member_lists")
    shop.fail("account", MissingScope("accounts:read"))
    shop.add_member("L1", "P3", days_ago(1))
    ran = warehouse.daily("stg_member_lists")
    assert (ran.state, ran.run.account_id) == ("complete", "ACCOUNT")
    assert warehouse.rows("SELECT _account_id, count(*) FROM stg_member_lists GROUP BY 1") == [("ACCOUNT", 4)]


def test_without_the_account_scope_rows_name_no_account(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.fail("account", MissingScope("accounts:read"))
    assert warehouse.daily("stg_member_lists").state == "complete"
    assert warehouse.column("SELECT DISTINCT _account_id FROM stg_member_lists") == [None]


def test_a_long_pause_postpones_the_rest(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Nothing else begins, the run is to be continued, and the next run resumes it."""
    shop.fail("lists", Throttled("Wait a day.", 86_400.0))
    ran = warehouse.daily(concurrency=1)
    assert (ran.state, ran.sentences, ran.exit_code) == ("to be continued", ["Wait a day."], 4)
    assert [each.kind for each in shop.requests] == ["account", "metrics", "lists"]
    assert run_state(warehouse) == ("to be continued", "Wait a day.")
    shop.recover()
    resumed = warehouse.daily(concurrency=1)
    assert (resumed.run.id, resumed.state) == (ran.run.id, "complete")
    assert not shop.sent("metrics")


def test_a_request_to_stop_ends_the_run_after_the_batch(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The batch is stored, nothing else begins, and the exit code is that of a program stopped by a signal."""
    shop.before("lists", warehouse.stop)
    ran = warehouse.daily(concurrency=1)
    assert (ran.state, ran.sentences, ran.exit_code) == ("stopped", [str(Stopped())], 130)
    assert [each.kind for each in shop.requests] == ["account", "metrics", "lists"]
    assert len(warehouse.column("SELECT id FROM lists")) == 2
    shop.recover()
    resumed = warehouse.daily(concurrency=1)
    assert (resumed.run.id, resumed.state) == (ran.run.id, "complete")
    assert not shop.sent("lists")


def test_an_error_that_the_user_has_to_fix_ends_a_group_at_once(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The other lists of the unit are not read, and the exit code is 2."""
    warehouse.daily("stg_member_lists")
    shop.recover()
    shop.fail("memberships", BadKey("Revoked."), times=1)
    ran = warehouse.daily("stg_member_lists")
    assert (ran.state, ran.sentences, ran.exit_code) == ("failed", ["Revoked."], 2)
    assert [each.subject for each in shop.sent("memberships")] == ["L1"]


def test_a_list_that_fails_does_not_stop_the_others_of_its_unit(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The resumed run reads only the list that failed."""
    shop.add_list("L3", "List L3")
    warehouse.daily("stg_member_lists")
    shop.recover()
    shop.fail("memberships", BadAnswer("Odd."), subject="L2")
    ran = warehouse.daily("stg_member_lists")
    assert (ran.state, ran.sentences) == ("failed", ["Odd."])
    assert [each.subject for each in shop.sent("memberships")] == ["L1", "L2", "L3"]
    shop.recover()
    assert warehouse.daily("stg_member_lists").state == "complete"
    assert [each.subject for each in shop.sent("memberships")] == ["L2"]


def test_lists_are_left_for_the_next_run_while_the_api_is_unavailable(warehouse: Warehouse, shop: FakeAccount) -> None:
    """After two failures in a row, the other lists of the unit are left for the next run."""
    for number in range(4):
        shop.add_list(f"X{number}", "Empty")
    warehouse.daily("stg_member_lists")
    shop.recover()
    shop.fail("memberships", Unavailable("Away."))
    ran = warehouse.daily("stg_member_lists")
    assert (ran.state, ran.sentences) == ("failed", ["Away."])
    assert len(shop.sent("memberships")) == 2
    shop.recover()
    assert warehouse.daily("stg_member_lists").state == "complete"
    assert len(shop.sent("memberships")) == 6


def test_lists_that_are_deleted_meanwhile_are_no_failure(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A sweep of such a list marks no one as absent."""
    warehouse.daily("stg_member_lists")
    shop.recover()
    shop.before("lists", shop.members.clear)
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '8 days'")
    assert warehouse.daily("stg_member_lists").state == "complete"
    assert {each.window for each in shop.sent("memberships")} == {FULL_READ}
    assert warehouse.column("SELECT member_id FROM stg_member_lists WHERE absent_since IS NOT NULL") == []


def test_a_row_that_the_database_refuses_fails_the_run(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A constraint that the user added is reported, nothing of the chunk is stored, and the rest is read."""
    warehouse.execute("ALTER TABLE opens ADD CHECK (id <> 'E00002')")
    ran = warehouse.daily(concurrency=1)
    assert (ran.state, ran.exit_code) == ("failed", DatabaseUnusable.exit_code)
    assert "constraint that was added" in ran.sentences[0]
    assert "E00002" not in warehouse.column("SELECT id FROM opens")
    assert len(warehouse.column("SELECT list_id FROM member_lists")) == 3
    warehouse.execute("ALTER TABLE opens DROP CONSTRAINT opens_id_check")
    assert warehouse.daily(concurrency=1).state == "complete"
    assert len(warehouse.column("SELECT id FROM opens")) == 6


def test_requests_of_failed_chunks_are_counted(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The run's count includes requests that no stored batch accounts for."""
    shop.fail("events", Unavailable("Away."))
    shop.fail("flows", BadAnswer("Odd."))
    warehouse.daily()
    assert warehouse.column("SELECT requests FROM runs") == [len(shop.requests)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"klaviyo_account_id": "OTHER"}, "KLAVIYO_ACCOUNT_ID is OTHER", id="another account"),
        pytest.param(
            {"personal_data": "drop", "personal_data_salt": "s" * 16}, "PERSONAL_DATA is drop", id="another protection"
        ),
        pytest.param({"metrics": ("No such metric",)}, "METRICS: the account has no metric", id="unknown metric"),
        pytest.param({"destinations": {"OPEN": "nowhere"}}, "DESTINATIONS: 'nowhere'", id="unknown table"),
    ],
)
def test_wrong_settings_are_reported_before_anything_is_read(
    warehouse: Warehouse, shop: FakeAccount, changes: dict[str, Any], message: str
) -> None:
    warehouse.daily("metrics")
    shop.recover()
    try:
        ran = warehouse.daily(**changes)
        text, code = ran.sentences[0], ran.exit_code
    except BadSettings as error:
        text, code = str(error), error.exit_code
    assert text.startswith(message)
    assert code == 2
    assert FULL_READ not in [each.window for each in shop.sent("events")]
    assert not shop.sent("events")


def test_another_account_under_the_same_name_is_refused(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily("metrics")
    shop.account_id = "OTHER"
    with pytest.raises(BadSettings, match=r"^KLAVIYO_INTEGRATION shop is account ACCOUNT in this warehouse, but "):
        warehouse.daily("metrics")
    assert warehouse.daily("metrics", klaviyo_integration="other").state == "complete"


@pytest.mark.parametrize("lacks_scope", [(False, True), (True, False), (True, True)], ids=str)
def test_the_key_of_another_account_is_recognized_by_metrics(
    warehouse: Warehouse, shop: FakeAccount, lacks_scope: tuple[bool, bool]
) -> None:
    """Nothing of the other account is stored, or marked as deleted, if either key may not ask for its account."""
    other = FakeAccount(account_id="OTHER")
    other.add_metric("YM", "Placed Order")
    for account, lacks in zip((shop, other), lacks_scope, strict=True):
        if lacks:
            account.fail("account", MissingScope("accounts:read"))
    warehouse.daily("metrics")
    before = warehouse.rows("SELECT id, deleted_at FROM metrics ORDER BY id")
    warehouse.open_source = other.open
    with pytest.raises(BadSettings, match="belongs to another account than shop"):
        warehouse.daily("metrics")
    assert warehouse.rows("SELECT id, deleted_at FROM metrics ORDER BY id") == before
    assert warehouse.daily("metrics", klaviyo_integration="other").state == "complete"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda shop: shop.add_metric("NEW", "New"), id="a new metric"),
        pytest.param(lambda shop: shop.metrics.pop(), id="a deleted metric"),
        pytest.param(lambda shop: shop.metrics.clear(), id="no metric"),
        pytest.param(lambda shop: shop.fail("metrics", MissingScope("metrics:read")), id="no scope for metrics"),
    ],
)
def test_an_account_stays_recognized(
    warehouse: Warehouse, shop: FakeAccount, change: Callable[[FakeAccount], object]
) -> None:
    warehouse.daily("metrics")
    shop.fail("account", MissingScope("accounts:read"))
    change(shop)
    assert warehouse.daily("metrics").state != "failed"


def test_an_account_under_a_second_name_is_refused(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Everything would count twice; a name whose account was not known until now is refused, too."""
    warehouse.daily("metrics")
    message = (
        "This warehouse has account ACCOUNT already, as shop, and would count everything twice. Set "
        "KLAVIYO_INTEGRATION to shop, or rename the account: klaviyo-pg rename shop eu."
    )
    for _ in range(2):
        with pytest.raises(BadSettings, match=f"^{re.escape(message)}$"):
            warehouse.daily("metrics", klaviyo_integration="eu")
        assert warehouse.column("SELECT name FROM integrations WHERE account_id IS NOT NULL") == ["shop"]
        warehouse.execute(
            "INSERT INTO integrations (name, esp_integration_id, created_at) VALUES ('eu', 'x', now())"
            " ON CONFLICT DO NOTHING"
        )
