"""Daily runs: everything is stored once, watermarks and freshness follow, and options limit what is read."""

import re
from typing import Any

import pytest

from klaviyo_pg.catalogue import events
from klaviyo_pg.errors import Incomplete
from klaviyo_pg.rows import Exclusion, Flow, Group, Suppression
from klaviyo_pg.windows import FULL_READ
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago
from tests.rows import campaign_row
from tests.runs import ALL_EVENTS

EVENT_IDS = " UNION ALL ".join(f"SELECT id FROM {table.name}" for table in events.EVENT_TABLES)


def test_everything_that_the_source_serves_is_stored_once(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.flows.append(Flow("F1", "Welcome", "live", LONG_AGO, LONG_AGO))
    shop.segments.append(Group("S1", "Buyers", LONG_AGO))
    shop.exclusions.append(Exclusion("P3@example.com", "HARD_BOUNCE", LONG_AGO))
    shop.campaigns.append(campaign_row("C1", included=("L1",), excluded=("S1",)))
    ran = warehouse.daily()
    assert (ran.state, ran.sentences, ran.exit_code) == ("complete", [], 0)
    assert sorted(warehouse.column(EVENT_IDS)) == sorted(event.id for event in shop.events)
    assert len(warehouse.column("SELECT id FROM opens")) == 6
    assert warehouse.column("SELECT id FROM members ORDER BY id") == ["P0", "P1", "P2", "P3"]
    assert warehouse.rows("SELECT id, list_type FROM lists ORDER BY id") == [
        ("L1", "list"),
        ("L2", "list"),
        ("S1", "segment"),
    ]
    assert warehouse.column("SELECT id FROM campaigns") == ["C1"]
    assert warehouse.column("SELECT id FROM automations") == ["F1"]
    assert warehouse.column("SELECT email FROM member_exclusions") == ["P3@example.com"]
    assert warehouse.rows("SELECT list_id, member_id FROM member_lists ORDER BY 1, 2") == [
        ("L1", "P0"),
        ("L1", "P1"),
        ("L2", "P1"),
    ]


def test_a_second_run_changes_no_row(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It reads the overlaps again, and every row in them is unchanged."""
    first = warehouse.daily()
    again = warehouse.daily()
    assert again.run.id != first.run.id
    assert again.changed() == {}
    assert again.counts["opens"]["unchanged"] > 0


def test_every_stream_gets_a_watermark(warehouse: Warehouse) -> None:
    """The watermark is the present of the run."""
    ran = warehouse.daily("default")
    whole = {"metrics", "lists", "segments", "campaigns", "flows", "tags", "exclusions", "profiles"}
    content = {"templates", "forms", "images"}
    whole |= {"custom_metrics", "mapped_metrics", *content, *(f"content_read/{each}" for each in content)}
    lists = {f"{stream}/{each}" for stream in ("list_members", "membership_sweep") for each in ("L1", "L2")}
    events = {"events", "events/OPEN", "events/ORDER"}
    assert warehouse.watermarks() == dict.fromkeys(whole | lists | events, ran.run.as_of)


def test_freshness_shows_each_stream_with_its_table(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Sweeps are left out. A metric shows its newest event, and a list its name."""
    warehouse.daily("default")
    rows = warehouse.rows("SELECT stream, name, table_name, newest_event FROM freshness WHERE integration = 'shop'")
    assert set(rows) == {
        ("metrics", "metrics", "metrics", None),
        ("lists", "lists", "lists", None),
        ("segments", "segments", "lists", None),
        ("campaigns", "campaigns", "campaigns", None),
        ("flows", "flows", "automations", None),
        ("tags", "tags", "tags", None),
        ("custom_metrics", "custom_metrics", "custom_metrics", None),
        ("mapped_metrics", "mapped_metrics", "mapped_metrics", None),
        ("exclusions", "exclusions", "member_exclusions", None),
        ("profiles", "profiles", "members", None),
        *((each, each, each, None) for each in ("templates", "forms", "images")),
        ("list_members/L1", "List L1", "stg_member_lists", None),
        ("list_members/L2", "List L2", "stg_member_lists", None),
        ("events/OPEN", "Opened Email", "opens", days_ago(1) + HOUR),
        ("events/ORDER", "Placed Order", "events", days_ago(2)),
    }
    assert set(warehouse.column("SELECT last_complete_run IS NOT NULL FROM freshness")) == {True}


def test_requests_and_rows_of_a_run_are_recorded(warehouse: Warehouse, shop: FakeAccount) -> None:
    ran = warehouse.daily()
    assert warehouse.rows("SELECT flow, state, message, requests, retries FROM runs") == [
        ("daily", "complete", None, len(shop.requests), 0)
    ]
    assert ran.traffic.requests == len(shop.requests)
    assert ran.counts["events"]["rows_read"] == ran.counts["events"]["inserted"] == 4


def test_a_later_run_reads_from_the_watermark_on(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Events that the source counts have the short overlap. Lists are not swept again, and profiles overlap a day."""
    ran = warehouse.daily()
    shop.recover()
    [late, _] = shop.add_events("ORDER", ran.run.as_of - 2 * DAY, ran.run.as_of)
    warehouse.daily()
    as_of = ran.run.as_of
    assert min(each.window.start for each in shop.sent("events") if each.window.start) == as_of - 3 * DAY
    assert [each.window.start for each in shop.sent("profiles")] == [as_of - DAY]
    assert {each.window.start for each in shop.sent("memberships")} == {as_of - 7 * DAY}
    assert late in warehouse.column(EVENT_IDS)
    assert len(set(warehouse.column(EVENT_IDS))) == len(shop.events)


def test_tables_limit_what_is_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Metrics and lists are always read, because the plan of the others depends on them."""
    ran = warehouse.daily("automations")
    assert ran.state == "complete"
    assert {each.kind for each in shop.requests} == {"account", "metrics", "lists", "flows"}
    assert warehouse.watermarks().keys() == {"metrics", "lists", "flows"}


def test_selected_metrics_are_read_one_by_one(warehouse: Warehouse, shop: FakeAccount) -> None:
    ran = warehouse.daily(*ALL_EVENTS, "events", metrics=("Placed Order",))
    assert ran.state == "complete"
    assert {each.subject for each in shop.sent("events")} == {"ORDER"}
    assert not warehouse.column("SELECT id FROM opens")
    assert len(warehouse.column("SELECT id FROM events")) == 4
    assert "events/OPEN" not in warehouse.watermarks()


def test_a_later_since_leaves_a_gap_and_the_watermark_stays(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The events from then on are stored, and the next run reads what lies before them."""
    ran = warehouse.daily(*ALL_EVENTS, since=days_ago(2))
    assert ran.state == "complete"
    assert len(warehouse.column("SELECT id FROM opens")) == 2
    assert "events/OPEN" not in warehouse.watermarks()
    warehouse.daily(*ALL_EVENTS)
    assert len(warehouse.column("SELECT id FROM opens")) == 6


def test_people_whom_only_lists_and_changes_name_are_read_last(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The source does not list them among the changed profiles, but has them by id. Ids that it lacks are ignored."""
    warehouse.daily()
    shop.add_person("P9", LONG_AGO)
    shop.add_member("L1", "P9", days_ago(1))
    shop.add_member("L1", "GONE", days_ago(1))
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert len(shop.sent("people")) == 1
    assert "P9" in warehouse.column("SELECT id FROM members")
    assert warehouse.column("SELECT member_id FROM member_lists WHERE list_id = 'L1' ORDER BY 1") == [
        *("GONE", "P0", "P1", "P9")
    ]


def test_events_of_unlisted_metrics_are_stored_and_move_later(warehouse: Warehouse, shop: FakeAccount) -> None:
    """They go into the general table, and move to the table of the metric once it is listed."""
    shop.add_events("CLICK", days_ago(1), days_ago(2))
    warehouse.daily()
    assert len(warehouse.column("SELECT id FROM events")) == 4 + 2
    shop.add_metric("CLICK", "Clicked Email")
    warehouse.daily()
    assert len(warehouse.column("SELECT id FROM events")) == 4
    assert len(warehouse.column("SELECT id FROM clicks")) == 2


def test_a_metric_that_appears_later_is_read_from_its_beginning(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It is read alone, because the others begin at their watermark. The run that meets it first names it."""
    assert warehouse.daily().sentences == []
    shop.add_metric("CLICK", "Clicked Email")
    shop.add_events("CLICK", days_ago(6), days_ago(1))
    assert warehouse.daily().sentences == ["New metric: Clicked Email."]
    assert warehouse.daily().sentences == []
    assert len(warehouse.column("SELECT id FROM clicks")) == 2
    assert "events/CLICK" in warehouse.watermarks()


def test_any_flow_names_the_metrics_that_it_meets_first(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily()
    shop.add_metric("A", "Viewed Shop")
    assert warehouse.reconcile().sentences == ["New metric: Viewed Shop."]
    shop.add_metric("B", "Back in Stock")
    assert warehouse.backfill(days_ago(2)).sentences == ["New metric: Back in Stock."]
    assert warehouse.daily().sentences == []


def test_a_run_logs_what_its_upgrade_has_added(warehouse: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    warehouse.daily()
    warehouse.execute("ALTER TABLE images DROP COLUMN name")
    with caplog.at_level("INFO"):
        assert warehouse.daily().sentences == []
    assert "Added the column images.name." in caplog.messages
    assert warehouse.rows("SELECT change, name FROM schema_changes") == [("added column", "images.name")]


def test_deleted_metrics_are_not_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Their rows and events stay, and the metric is marked as deleted."""
    warehouse.daily()
    del shop.metrics[0]
    shop.reads_all_metrics_at_once = False
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert {each.subject for each in shop.sent("events")} == {"ORDER"}
    assert warehouse.column("SELECT id FROM metrics WHERE deleted_at IS NOT NULL") == ["OPEN"]
    assert len(warehouse.column("SELECT id FROM opens")) == 6


def test_a_dialect_that_looks_up_members_reads_events_first(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It looks up the addresses of people that an event subscribed. Sweeps find out who left or is allowed again."""
    shop.reads_all_metrics_at_once = False
    shop.set_traits(looks_up_memberships=True, count_interval=DAY)
    shop.add_metric("JOIN", "Subscribed to List")
    for person in ("P0", "P1"):
        shop.add_events("JOIN", days_ago(3), person=person)
    shop.suppressions.append(Suppression("L1", "P3", days_ago(1)))
    assert warehouse.daily().state == "complete"
    kinds = [each.kind for each in shop.requests]
    assert kinds.index("memberships") > max(at for at, kind in enumerate(kinds) if kind == "events")
    members = "SELECT list_id, member_id FROM stg_member_lists WHERE absent_since IS NULL ORDER BY 1, 2"
    assert warehouse.rows(members) == [("L1", "P0"), ("L1", "P1"), ("L2", "P1")]
    suppressed = "SELECT member_id, list_id FROM list_suppressions WHERE lifted_at IS NULL"
    assert warehouse.rows(suppressed) == [("P3", "L1")]
    shop.members["L1"] = [each for each in shop.members["L1"] if each.member_id != "P0"]
    shop.suppressions.clear()
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '8 days'")
    assert warehouse.daily().state == "complete"
    assert warehouse.rows(members) == [("L1", "P1"), ("L2", "P1")]
    assert warehouse.rows(suppressed) == []


def looking_up(warehouse: Warehouse, shop: FakeAccount, personal_data: str) -> Warehouse:
    """Return a warehouse without addresses, of an account that looks up members by address and people one by one."""
    shop.reads_all_metrics_at_once, shop.rows_per_page = False, 1
    shop.set_traits(looks_up_memberships=True, count_interval=DAY)
    shop.add_metric("JOIN", "Subscribed to List")
    for person in ("P0", "P1"):
        shop.add_events("JOIN", days_ago(3), person=person)
    return warehouse.variant(personal_data=personal_data, personal_data_salt="s" * 16)


@pytest.mark.parametrize("mode", ["hash", "drop"])
def test_addresses_that_are_not_stored_are_asked_for_once(warehouse: Warehouse, shop: FakeAccount, mode: str) -> None:
    """All lists of a run share them, and later runs ask for those of people who have joined a list since, or sweep."""
    protected = looking_up(warehouse, shop, mode)
    members = "SELECT list_id, member_id FROM stg_member_lists WHERE absent_since IS NULL ORDER BY 1, 2"
    asked = []
    for joined in ([], [], ["P3"], []):
        for person in joined:
            shop.add_events("JOIN", days_ago(1), person=person)
            shop.add_member("L2", person, days_ago(1))
        shop.recover()
        assert protected.daily().state == "complete"
        asked.append(len(shop.sent("people")))
    assert asked == [2, 0, 1, 0]
    assert protected.rows(members) == [("L1", "P0"), ("L1", "P1"), ("L2", "P1"), ("L2", "P3")]
    shop.members["L1"] = [each for each in shop.members["L1"] if each.member_id != "P0"]
    shop.recover()
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '8 days'")
    assert protected.daily().state == "complete"
    assert len(shop.sent("people")) == 3
    assert protected.rows(members) == [("L1", "P1"), ("L2", "P1"), ("L2", "P3")]


def test_sweeps_are_planned_for_each_person_once(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Two people on 14 lists take two requests for their addresses and one for each list."""
    protected = looking_up(warehouse, shop, "hash")
    for number in range(12):
        shop.add_list(f"X{number}", f"Copy {number}")
        for person in ("P0", "P1"):
            shop.add_member(f"X{number}", person, days_ago(3))
    assert protected.daily(membership_sweep_requests=3).state == "complete"
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '7 days'")
    shop.recover()
    assert protected.daily(membership_sweep_requests=3).sentences == []
    assert {each.window for each in shop.sent("memberships")} == {FULL_READ}


def test_sweeps_are_planned_for_addresses_that_are_not_kept(
    warehouse: Warehouse, shop: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lists and two people, one of them kept: three requests for addresses and one for each list."""
    monkeypatch.setattr("pipeline.addresses.MOST_PEOPLE", 1)
    protected = looking_up(warehouse, shop, "hash")
    protected.daily()
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '4 days'")
    for budget, is_swept in (1, False), (2, True):
        shop.recover()
        protected.daily(membership_sweep_days=2, membership_sweep_requests=budget)
        assert len(shop.sent("people")) == 3
        assert (FULL_READ in {each.window for each in shop.sent("memberships")}) is is_swept


def test_a_budget_that_makes_sweeps_rarer_has_a_note(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Two people and two lists take four requests."""
    protected = looking_up(warehouse, shop, "hash")
    protected.daily()
    limits: dict[str, Any] = {"membership_sweep_days": 3, "membership_sweep_requests": 1}
    ran = protected.daily(**limits)
    assert (ran.state, ran.sentences) == (
        "complete",
        [
            "Lists are read in full about every 4 days instead of every 3, because that takes 4 requests and "
            "MEMBERSHIP_SWEEP_REQUESTS allows 1 in a run."
        ],
    )
    assert protected.daily(**limits | {"membership_sweep_days": 4}).sentences == []
    assert protected.daily(**limits | {"membership_sweep_days": 0}).sentences == []


def test_addresses_are_asked_for_again_if_a_list_was_not_read_to_its_end(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    """The next run looks up the same people."""
    protected = looking_up(warehouse, shop, "hash")
    assert protected.daily().state == "complete"
    shop.add_events("JOIN", days_ago(1), person="P3")
    for part, state in ({"memberships": Incomplete(["suppressions"], "Odd.")}, "partial"), ({}, "complete"):
        shop.incomplete = part
        shop.recover()
        assert protected.daily().state == state
        assert len(shop.sent("people")) == 1


@pytest.mark.parametrize("mode", ["hash", "drop"])
def test_personal_data_does_not_reach_the_warehouse(warehouse: Warehouse, shop: FakeAccount, mode: str) -> None:
    """Neither addresses nor properties are stored in plain text."""
    shop.add_person("P0", days_ago(1), first_name="Ada", properties={"secret": "value"})
    assert warehouse.daily(personal_data=mode, personal_data_salt="s" * 16).state == "complete"
    assert not warehouse.column("SELECT email FROM members WHERE email LIKE '%%@%%' OR first_name = 'Ada'")
    assert not warehouse.column("SELECT value FROM member_attributes WHERE value = 'value'")
    assert len(warehouse.column("SELECT id FROM members")) == 4


def test_the_new_members_of_ten_lists_are_read_by_one_unit(
    warehouse: Warehouse, shop: FakeAccount, caplog: pytest.LogCaptureFixture
) -> None:
    """A unit that reads a list in full reads no other list."""
    for number in range(12):
        shop.add_list(f"X{number}", "Empty")
    warehouse.daily("stg_member_lists")
    shop.recover()
    with caplog.at_level("INFO"):
        assert warehouse.daily("stg_member_lists").state == "complete"
    assert {each.subject for each in shop.sent("memberships")} == shop.members.keys()
    assert FULL_READ not in [each.window for each in shop.sent("memberships")]
    units = re.findall(r"Loaded list members of (\d+) lists: 0 rows", caplog.text)
    assert sorted(units) == ["10", "4"]


def test_incomplete_people_are_completed_by_id(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A dialect that does not list people reads them by id until they are complete."""
    shop.set_traits(looks_up_memberships=True, lists_people=False)
    for number in range(4):
        shop.add_person(f"P{number}", LONG_AGO, created=None if number == 0 else LONG_AGO, properties={})
    later = {"created": LONG_AGO, "first_name": "Ada"}
    shop.before("memberships", lambda: shop.add_person("P0", LONG_AGO, **later))
    assert warehouse.daily().state == "complete"
    known = "SELECT first_name FROM members WHERE id = 'P0' AND created_at IS NOT NULL"
    assert warehouse.column(known) == ["Ada"]
    assert len(shop.sent("people")) == 1
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert not shop.sent("people")
