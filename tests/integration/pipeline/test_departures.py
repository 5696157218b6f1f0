"""Profiles that were deleted or merged at the source: sweeps find them, and their events follow a merge."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from klaviyo_pg.errors import Refused
from klaviyo_pg.postgres import claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erase, erase_events
from klaviyo_pg.postgres.partitions import Partition
from klaviyo_pg.rows import Consent, Reject, Suppression
from tests.connections import end_session
from tests.erasing import erase as erase_at_once
from tests.fake_source import FakeSource
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import DAY, Result, Warehouse, cut_connections, days_ago, merge_profiles
from tests.rows_read import rows_read

OFTEN: dict[str, Any] = {"profile_sweep_days": 0.000001}
MANY = 6_000
FILL = """
INSERT INTO opens (key, id, member_key, event_at, metric_key, extracted_at, esp_integration_id)
SELECT md5('Q' || n), 'Q' || n, md5('Q' || n), '2020-01-01Z'::timestamptz + n * interval '1 hour', 'm', '2020-01-01Z',
    (SELECT esp_integration_id FROM integrations)
FROM generate_series(1, %s) AS n
"""
MEMBERS = "SELECT id, deleted_at IS NOT NULL, left_reason FROM members ORDER BY id"


@pytest.fixture(autouse=True)
def created(shop: FakeAccount) -> None:
    """Give each profile a time of creation, one a month."""
    for number, (profile_id, (profile, updated)) in enumerate(list(shop.profiles.items())):
        created = LONG_AGO.replace(month=number + 1)
        shop.profiles[profile_id] = (profile._replace(created=created, consent="SUBSCRIBED"), updated)


def sweep(warehouse: Warehouse, **settings: Any) -> Result:
    """Run the daily sync with a sweep of profiles, which is due from the second after the last one on."""
    warehouse.wait_for_the_next_second()
    return warehouse.daily(**OFTEN, **settings)


def owners(warehouse: Warehouse, table: str) -> set[str]:
    return set(warehouse.column(f"SELECT m.id FROM {table} AS e LEFT JOIN members AS m USING (member_key)"))


def age(warehouse: Warehouse, days: int) -> None:
    """Make what is recorded about missing profiles so many days older."""
    warehouse.execute("UPDATE missing_profiles SET missing_since = missing_since - make_interval(days => %s)", days)


def test_a_sweep_marks_deleted_profiles(warehouse: Warehouse, shop: FakeAccount) -> None:
    """They are no longer subscribed to anything. Nothing else changes."""
    warehouse.daily()
    assert set(warehouse.column("SELECT is_subscribed FROM member_lists")) == {True}
    del shop.profiles["P1"]
    sweep(warehouse)
    assert warehouse.rows(MEMBERS) == [
        ("P0", False, None),
        ("P1", True, "deleted"),
        ("P2", False, None),
        ("P3", False, None),
    ]
    lists = warehouse.rows("SELECT list_id, member_id, is_subscribed, left_reason FROM member_lists ORDER BY 1, 2")
    assert lists == [
        ("L1", "P0", True, None),
        ("L1", "P1", False, "profile_deleted"),
        ("L2", "P1", False, "profile_deleted"),
    ]
    deleted_at = "SELECT deleted_at FROM members WHERE id = 'P1'"
    first = warehouse.one(deleted_at)
    again = sweep(warehouse)
    assert warehouse.one(deleted_at) == first and "member_lists" not in again.changed()


def test_a_sweep_looks_up_by_id_what_it_did_not_find(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A profile that exists after all is not marked, but stored as it is now."""
    warehouse.daily()
    profile, updated = shop.profiles["P1"]
    shop.profiles["P1"] = (profile._replace(created=datetime.now(LONG_AGO.tzinfo), city="Cork"), updated)
    sweep(warehouse)
    assert warehouse.rows("SELECT city, deleted_at FROM members WHERE id = 'P1'") == [("Cork", None)]


def test_a_profile_that_is_back_is_no_longer_marked(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily()
    profile, _ = shop.profiles.pop("P1")
    sweep(warehouse)
    shop.profiles["P1"] = (profile, days_ago(-0.5))
    sweep(warehouse)
    assert ("P1", False, None) in warehouse.rows(MEMBERS)
    assert warehouse.rows("SELECT * FROM missing_profiles") == []
    assert set(warehouse.column("SELECT is_subscribed FROM member_lists")) == {True}


def test_a_profile_that_a_sweep_lists_again_is_no_longer_marked(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Also if it has not changed, so that only sweeps return it."""
    warehouse.daily()
    status = "SELECT list_id, member_id, is_subscribed, left_reason FROM member_lists ORDER BY 1, 2"
    people, lists = warehouse.rows("SELECT id, consent, deleted_at FROM members ORDER BY id"), warehouse.rows(status)
    unchanged = shop.profiles.pop("P1")
    sweep(warehouse)
    assert ("P1", True, "deleted") in warehouse.rows(MEMBERS)
    shop.profiles["P1"] = unchanged
    sweep(warehouse)
    assert warehouse.rows("SELECT id, consent, deleted_at FROM members ORDER BY id") == people
    assert warehouse.rows(status) == lists
    assert warehouse.rows("SELECT * FROM missing_profiles") == []


def test_a_sweep_is_due_after_days_and_limited_in_requests(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Each run sweeps the months that were swept longest ago."""
    warehouse.daily()
    warehouse.daily(profile_sweep_requests=3)
    swept = sorted(each.window.seconds[0] for each in shop.sent("profile_ids"))  # two readers send them, side by side
    assert swept == [LONG_AGO.replace(month=month).timestamp() for month in (1, 2, 3)]
    shop.requests.clear()
    warehouse.daily(profile_sweep_requests=3)
    assert [each.window.start for each in shop.sent("profile_ids")] == [LONG_AGO.replace(month=4)]
    shop.requests.clear()
    warehouse.daily()
    assert shop.sent("profile_ids") == []


def test_a_sweep_with_an_unreadable_record_is_due_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It can be that of any profile, so no profile counts as unseen."""
    warehouse.daily()
    del shop.profiles["P1"]
    shop.unreadable["profile_ids", 0] = Reject("7", "Not a profile.")
    sweep(warehouse)
    assert len(shop.sent("profile_ids")) == 4
    assert [stream for stream in warehouse.watermarks() if stream.startswith("profile_sweep/")] == []
    assert ("P1", False, None) in warehouse.rows(MEMBERS)


def test_an_event_that_has_another_profile_shows_a_merge(warehouse: Warehouse, shop: FakeAccount) -> None:
    """One event is read again within the overlap. All others follow it, and so do subscriptions."""
    warehouse.daily()
    assert owners(warehouse, "opens") == {"P0"}
    merge_profiles(shop, "P0", "P3")
    warehouse.daily(lookback_days=(datetime.now(UTC) - days_ago(1)) / DAY, profile_sweep_days=0)
    assert owners(warehouse, "opens") == {"P3"}
    moved = "SELECT email, email_domain FROM opens WHERE id <> 'E00005'"
    assert set(warehouse.rows(moved)) == {("P3@example.com", "example.com")}
    assert ("P0", True, "merged") in warehouse.rows(MEMBERS)
    merges = warehouse.rows("SELECT old_member_id, new_member_id, events_moved_at IS NOT NULL FROM profile_merges")
    assert merges == [("P0", "P3", True)]
    assert warehouse.one("SELECT is_subscribed FROM member_lists WHERE member_id = 'P0'") is False


def test_events_that_follow_a_hashed_address_keep_their_domain(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The domain is not part of the new address, which is a digest."""
    shop.events = [event._replace(email=f"{event.profile_id}@example.com") for event in shop.events]
    settings: dict[str, Any] = {"personal_data": "hash", "personal_data_salt": "s" * 16}
    warehouse.daily(**settings)
    [domain] = warehouse.column("SELECT DISTINCT email_domain FROM opens")
    merge_profiles(shop, "P0", "P3")
    sweep(warehouse, lookback_days=0, **settings)
    new_address = warehouse.one("SELECT email FROM members WHERE id = 'P3'")
    assert domain is not None
    assert warehouse.rows("SELECT DISTINCT email, email_domain FROM opens") == [(new_address, domain)]


def test_a_merge_is_found_without_reading_events_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The source is asked for the owner of an event of the missing profile."""
    warehouse.daily()
    merge_profiles(shop, "P0", "P3")
    sweep(warehouse, lookback_days=0)
    assert owners(warehouse, "opens") == {"P3"}
    assert ("P0", True, "merged") in warehouse.rows(MEMBERS)
    assert len(shop.sent("event_owner")) == 1
    sweep(warehouse)
    assert len(shop.sent("event_owner")) == 1


@pytest.mark.parametrize(("has_time", "reads_all"), [(True, False), (False, True)])
def test_the_last_event_of_a_missing_profile_is_found_by_its_time(
    warehouse: Warehouse, shop: FakeAccount, has_time: bool, reads_all: bool
) -> None:
    """To ask for its owner. Only without the time, which Klaviyo says, a run has to look through all events."""
    warehouse.daily()
    last = warehouse.one("SELECT max(event_at) FROM opens WHERE member_key = md5('P0')")
    shop.add_person("P0", days_ago(0), created=LONG_AGO, last_event_date=last if has_time else None)
    warehouse.daily("members")
    warehouse.execute(FILL, MANY)
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET enable_seqscan = off")  # as if it were large
    del shop.profiles["P0"]
    before = rows_read(warehouse.url, "opens")
    sweep(warehouse, lookback_days=0)
    assert len(shop.sent("event_owner")) == 1
    after = rows_read(warehouse.url, "opens")
    assert (after["opens"] - before["opens"] >= MANY) is reads_all


def test_a_refused_event_does_not_hide_the_owners_of_others(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Klaviyo refuses IDs that it considers malformed. It is not asked for such an event again."""
    warehouse.daily()
    merge_profiles(shop, "P0", "P1")
    merge_profiles(shop, "P2", "P3")
    shop.fail("event_owner", Refused("Invalid Event ID."), times=1)
    assert sweep(warehouse, lookback_days=0).state == "complete"
    merged = warehouse.rows("SELECT old_member_id, new_member_id FROM profile_merges")
    assert merged in ([("P0", "P1")], [("P2", "P3")])
    assert sweep(warehouse, lookback_days=0).state == "complete"
    assert len(shop.sent("event_owner")) == 2


def test_a_profile_that_is_merged_into_an_erased_person_is_erased(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Its data is that person's now, and its events do not bring the person back."""
    integration_id = warehouse.daily().run.integration_id
    with warehouse.open() as session, session.database.transaction() as connection:
        erase_at_once(Account(connection, "klaviyo", integration_id), None, ["P3"])
    merge_profiles(shop, "P0", "P3")
    ran = sweep(warehouse, lookback_days=0)
    assert ran.sentences == ["Erased 1 person merged into people who had been erased."]
    assert warehouse.rows("SELECT * FROM profile_merges") == []
    assert set(warehouse.rows("SELECT member_key, email FROM opens")) == {(None, None)}
    assert [row[0] for row in warehouse.rows(MEMBERS)] == ["P1", "P2"]
    assert sweep(warehouse).sentences == []


def test_events_follow_a_profile_that_was_merged_twice(
    warehouse: Warehouse, shop: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first merge is noticed while the old profile still exists, the second one with both of them gone."""
    shop.add_metric("LEFT", "Unsubscribed")
    shop.add_events("LEFT", days_ago(5), person="P0")
    shop.add_member("L1", "P3", days_ago(8))
    warehouse.daily()
    read_again: dict[str, Any] = {"lookback_days": (datetime.now(UTC) - days_ago(1)) / DAY}
    shop.events = [event._replace(profile_id="P1") if event.id == "E00005" else event for event in shop.events]
    warehouse.daily(**read_again)
    merge_profiles(shop, "P0", "P1")
    merge_profiles(shop, "P1", "P3")
    monkeypatch.setattr(FakeSource, "event_owner", lambda source, event_id: None)  # as the legacy dialect does
    warehouse.daily(**read_again)
    assert owners(warehouse, "opens") == {"P3"}
    assert warehouse.column("SELECT member_id FROM subscription_changes") == ["P3"]
    assert warehouse.one("SELECT is_subscribed FROM member_lists WHERE member_id = 'P3'") is False


@pytest.mark.parametrize("passed", [("P0", "P3"), ("P0", "P1", "P3")], ids=["one merge", "two merges"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new events", "stored events"])
def test_events_that_were_read_before_a_merge_and_are_stored_after_it_follow_too(
    warehouse: Warehouse, shop: FakeAccount, passed: tuple[str, ...], is_new: bool
) -> None:
    """As those of a spool. They do not show that the profile with the events was merged into the one that is gone."""
    warehouse.daily()
    [new_id] = shop.add_events("OPEN", days_ago(20), person="P0")
    read_before = [event for event in shop.events if (event.id == new_id) is is_new]
    for old, new in pairwise(passed):
        merge_profiles(shop, old, new)
        sweep(warehouse, lookback_days=0)
    shop.events = read_before
    warehouse.daily(lookback_days=100, profile_sweep_days=0)
    assert owners(warehouse, "opens") == {"P3"}
    merges = warehouse.rows("SELECT old_member_id, new_member_id FROM profile_merges")
    assert sorted(merges) == list(pairwise(passed))
    assert warehouse.one("SELECT count(*) FROM profile_merges WHERE events_moved_at IS NULL") == 0


def test_events_wait_for_a_profile_that_is_not_stored(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Neither their address nor the subscription changes get lost until the profile can be read."""
    shop.add_metric("LEFT", "Unsubscribed")
    shop.add_events("LEFT", days_ago(5), person="P0")
    warehouse.daily()
    merge_profiles(shop, "P0", "P9")
    sweep(warehouse, lookback_days=0)
    assert owners(warehouse, "opens") == {"P0"}
    assert ("P0", True, "merged") in warehouse.rows(MEMBERS)
    shop.add_person("P9", days_ago(0), created=LONG_AGO)
    warehouse.daily(lookback_days=0)
    assert owners(warehouse, "opens") == {"P9"}
    assert warehouse.column("SELECT member_id FROM subscription_changes") == ["P9"]


def test_only_the_event_follows_while_the_old_profile_exists(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily()
    shop.events = [event._replace(profile_id="P3") if event.id == "E00005" else event for event in shop.events]
    warehouse.daily()
    assert sorted(warehouse.rows("SELECT e.id, m.id FROM opens AS e JOIN members AS m USING (member_key)"))[-2:] == [
        ("E00004", "P0"),
        ("E00005", "P3"),
    ]
    assert set(warehouse.rows(MEMBERS)) == {(f"P{number}", False, None) for number in range(4)}


def test_deleted_people_are_erased_once_missing_on_two_days(warehouse: Warehouse, shop: FakeAccount) -> None:
    """With DELETED_PROFILES=erase. People whose profile was merged are not erased, because their events live on."""
    warehouse.daily()
    del shop.profiles["P1"]
    merge_profiles(shop, "P0", "P3")
    sweep(warehouse, deleted_profiles="erase")
    assert [row[0] for row in warehouse.rows(MEMBERS)] == ["P0", "P1", "P2", "P3"]
    age(warehouse, 2)
    ran = sweep(warehouse, deleted_profiles="erase")
    assert ran.sentences == ["Erased 1 person deleted in Klaviyo."]
    assert [row[0] for row in warehouse.rows(MEMBERS)] == ["P0", "P2", "P3"]
    assert warehouse.rows("SELECT DISTINCT member_id FROM member_lists") == [("P0",)]
    assert sweep(warehouse, deleted_profiles="erase").sentences == []


def test_no_one_is_erased_before_klaviyo_was_asked_for_a_merge(
    warehouse: Warehouse, shop: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests of a run are limited. A person without events needs none."""
    shop.add_person("P9", days_ago(20), created=LONG_AGO)
    shop.add_events("OPEN", days_ago(3), person="P1")
    warehouse.daily()
    del shop.profiles["P9"]
    merge_profiles(shop, "P0", "P3")
    merge_profiles(shop, "P1", "P3")
    settings: dict[str, Any] = {"lookback_days": 0, "deleted_profiles": "erase", "tables": "members"}
    monkeypatch.setattr("pipeline.streams.departures._MOST_OWNERS", 1)
    sweep(warehouse, **settings)
    age(warehouse, 2)
    monkeypatch.setattr("pipeline.streams.departures._MOST_OWNERS", 0)
    assert sweep(warehouse, **settings).sentences == ["Erased 1 person deleted in Klaviyo."]
    assert warehouse.rows(MEMBERS)[:2] == [("P0", True, "merged"), ("P1", True, "deleted")]
    monkeypatch.setattr("pipeline.streams.departures._MOST_OWNERS", 1)
    assert sweep(warehouse, **settings).sentences == []
    assert warehouse.rows(MEMBERS)[:2] == [("P0", True, "merged"), ("P1", True, "merged")]


def request_erasing(warehouse: Warehouse) -> str:
    """Run once, let the erasing of P1 be requested, and return the ID of the account."""
    integration_id = warehouse.daily().run.integration_id
    with warehouse.open() as session, session.database.transaction() as connection:
        erase.request(Account(connection, "klaviyo", integration_id), [], ["P1"])
    return integration_id


def test_a_daily_run_finishes_erasing_that_was_interrupted(warehouse: Warehouse) -> None:
    integration_id = request_erasing(warehouse)
    with warehouse.open() as session, session.database.transaction() as connection:
        account = Account(connection, "klaviyo", integration_id)
        assert claims.try_claim(account, erase.CLAIM, for_transaction=True)
        left = "Another process is erasing people. It also erases those who were left to this run."
        assert warehouse.daily().sentences == [left]
        assert erase.pending(account) == 1
    assert warehouse.daily().sentences == ["Finished erasing 1 person, which had been interrupted."]
    assert warehouse.column("SELECT id FROM members WHERE id = 'P1'") == []
    assert warehouse.daily().sentences == []


def test_erasing_that_another_process_takes_over_is_left_to_it(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database restarts, and the other process claims erasing before the run notices. The run is complete."""
    integration_id = request_erasing(warehouse)
    look = erase_events.to_search

    def taken_over(account: Account) -> list[Partition]:
        assert erase_events.to_search is taken_over, "the run continues without its claim"
        monkeypatch.setattr(erase_events, "to_search", look)
        cut_connections(warehouse)
        other.claims.take(integration_id, erase.CLAIM)
        return look(account)

    monkeypatch.setattr(erase_events, "to_search", taken_over)
    with warehouse.open() as other:
        ran = warehouse.daily()
        left = "Another process is erasing people. It also erases those who were left to this run."
        assert (ran.state, ran.sentences) == ("complete", [left])
    assert warehouse.daily().sentences == ["Finished erasing 1 person, which had been interrupted."]


def test_a_connection_that_is_lost_while_erasing_is_claimed_ends_no_run(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_erasing(warehouse)
    try_claim = claims.try_claim

    def lose_connection(account: Account, what: str) -> bool:
        if what == erase.CLAIM:
            monkeypatch.setattr(claims, "try_claim", try_claim)
            end_session(warehouse.url, account.connection)
        return try_claim(account, what)

    monkeypatch.setattr(claims, "try_claim", lose_connection)
    assert warehouse.daily().sentences == ["Finished erasing 1 person, which had been interrupted."]


def test_consents_and_suppressions_follow_the_profile(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A consent or suppression that the source no longer returns is gone, or lifted."""
    profile, _ = shop.profiles["P1"]
    sms = Consent("sms", "SUBSCRIBED", can_receive=True, method="PREFERENCE_PAGE", double_optin=True)
    email = Consent("email", "NEVER_SUBSCRIBED", can_receive=True)
    suppression = Suppression("L2", "P1", LONG_AGO, "USER_SUPPRESSED")
    shop.profiles["P1"] = (
        profile._replace(consents=(email, sms), list_suppressions=(suppression,)),
        days_ago(3),
    )
    warehouse.daily()
    consents = "SELECT channel, consent, can_receive, double_optin FROM member_consents ORDER BY channel"
    assert warehouse.rows(consents) == [
        ("email", "NEVER_SUBSCRIBED", True, None),
        ("sms", "SUBSCRIBED", True, True),
    ]
    keys = "SELECT count(*) FROM member_consents WHERE key = md5(esp_source || ':' || esp_integration_id || ':' || id)"
    assert warehouse.one(keys) == 2
    status = (
        "SELECT is_subscribed, unsubscribed_at, left_reason FROM member_lists WHERE member_id = 'P1' ORDER BY list_id"
    )
    assert warehouse.rows(status) == [(True, None, None), (False, LONG_AGO, "suppressed")]
    shop.profiles["P1"] = (profile._replace(consents=(email,)), days_ago(0))
    warehouse.daily()
    assert warehouse.rows(consents) == [("email", "NEVER_SUBSCRIBED", True, None)]
    assert warehouse.rows(status) == [(True, None, None), (True, None, None)]
    assert warehouse.rows("SELECT list_id, reason, lifted_at IS NOT NULL FROM list_suppressions") == [
        ("L2", "USER_SUPPRESSED", True)
    ]


def test_many_missing_profiles_have_to_be_missing_twice(warehouse: Warehouse, shop: FakeAccount) -> None:
    """An API that suddenly returns no profiles does not make everyone a deleted person."""
    for number in range(4, 24):
        shop.add_person(f"P{number:02}", days_ago(20), created=LONG_AGO)
    warehouse.daily()
    people = dict(shop.profiles)
    shop.profiles = {}
    ran = sweep(warehouse)
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert "lacks 24 of 24 stored rows of profiles" in ran.sentences[0]
    assert warehouse.column("SELECT id FROM members WHERE deleted_at IS NOT NULL") == []
    shop.profiles = people
    assert warehouse.daily(profile_sweep_days=0).state == "complete"
    shop.profiles = {}
    sweep(warehouse)
    assert warehouse.daily(profile_sweep_days=0).state == "complete"
    assert len(warehouse.column("SELECT id FROM members WHERE deleted_at IS NOT NULL")) == 24
