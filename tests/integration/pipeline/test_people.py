"""People who come from events and lists with only an ID and an address: they are completed by ID."""

import pytest

from klaviyo_pg.postgres.lookups import DIGITS
from klaviyo_pg.rows import Consent
from pipeline import plan
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import Warehouse, days_ago
from tests.runs import ALL_EVENTS

PEOPLE = "SELECT id, email, created_at, updated_at IS NULL FROM members ORDER BY id"


@pytest.fixture(autouse=True)
def created(shop: FakeAccount) -> None:
    """Give each profile a time of creation."""
    for profile_id, (profile, updated) in list(shop.profiles.items()):
        shop.profiles[profile_id] = (profile._replace(created=LONG_AGO), updated)


def age(warehouse: Warehouse, hours: int) -> None:
    """Make what is recorded about missing profiles so many hours older."""
    times = [("missing_profiles", "missing_since"), ("missing_profiles", "last_missing_at"), ("members", "updated_at")]
    for table, column in times:
        warehouse.execute(f"UPDATE {table} SET {column} = {column} - make_interval(hours => %s)", hours)


def asked(shop: FakeAccount) -> int:
    return len(shop.sent("people"))


def test_events_bring_an_id_and_an_address(warehouse: Warehouse) -> None:
    warehouse.daily(*ALL_EVENTS)
    assert warehouse.rows(PEOPLE) == [("P0", "P0@example.com", None, True), ("P2", "P2@example.com", None, True)]


def test_a_daily_run_completes_people(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Those of earlier events that it does not read itself."""
    warehouse.daily(*ALL_EVENTS)
    warehouse.daily("members")
    assert {(created, is_stub) for _, _, created, is_stub in warehouse.rows(PEOPLE)} == {(LONG_AGO, False)}
    assert warehouse.rows("SELECT name, value FROM member_attributes WHERE id = 'P2'") == [("size", "2")]


def test_a_backfill_ends_with_complete_people(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Also without any daily run."""
    assert warehouse.backfill(days_ago(7)).exit_code == 0
    assert warehouse.rows(PEOPLE) == [
        ("P0", "P0@example.com", LONG_AGO, False),
        ("P2", "P2@example.com", LONG_AGO, False),
    ]
    assert warehouse.rows("SELECT name, value FROM member_attributes ORDER BY id") == [("size", "0"), ("size", "2")]
    assert asked(shop) == 1
    warehouse.backfill(days_ago(7), restart=True)
    assert asked(shop) == 1


def test_a_person_whose_consent_is_left_out_keeps_the_stored_one(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The response had no subscriptions. Everything else of the person is stored as it is now."""
    given = {"consent": "SUBSCRIBED", "consent_timestamp": LONG_AGO}
    shop.add_person("P1", days_ago(20), created=LONG_AGO, **given, consents=[Consent("email", "SUBSCRIBED")])
    warehouse.daily()
    unknown = {"consents": None, "list_suppressions": None}
    shop.add_person("P1", days_ago(-0.5), created=LONG_AGO, city="Cork", **unknown)
    shop.add_person("NEW", days_ago(-0.5), created=LONG_AGO, **unknown)
    assert warehouse.daily().state == "complete"
    members = "SELECT id, city, consent, consent_timestamp FROM members WHERE id IN ('NEW', 'P1') ORDER BY id"
    assert warehouse.rows(members) == [("NEW", None, None, None), ("P1", "Cork", "SUBSCRIBED", LONG_AGO)]
    assert warehouse.column("SELECT consent FROM member_consents WHERE member_id = 'P1'") == ["SUBSCRIBED"]
    assert set(warehouse.column("SELECT is_subscribed FROM member_lists WHERE member_id = 'P1'")) == {True}


def test_a_member_of_a_list_is_completed(warehouse: Warehouse, shop: FakeAccount) -> None:
    person, _ = shop.profiles.pop("P1")
    warehouse.daily()
    assert "P1" in warehouse.column("SELECT member_id FROM missing_profiles")
    shop.profiles["P1"] = (person, days_ago(30))
    age(warehouse, 25)
    warehouse.daily()
    assert warehouse.rows("SELECT created_at, deleted_at FROM members WHERE id = 'P1'") == [(LONG_AGO, None)]


def test_someone_whom_the_source_does_not_return_is_asked_for_on_two_days(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    """Then they count as deleted, and no run asks for them again."""
    warehouse.daily(*ALL_EVENTS)
    del shop.profiles["P2"]
    for requests in (1, 1, 2, 2):
        warehouse.daily()
        assert asked(shop) == requests
        age(warehouse, 13)
    assert warehouse.rows("SELECT left_reason FROM members WHERE id = 'P2'") == [("deleted",)]


def test_many_people_are_shared_out_among_readers(
    warehouse: Warehouse, shop: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_PEOPLE_PER_READER", 1)
    shop.add_metric("CLICK", "Clicked Email")
    for number in range(40):
        shop.add_person(f"X{number}", days_ago(1), created=LONG_AGO)
        shop.add_events("CLICK", days_ago(3), person=f"X{number}")
    assert warehouse.backfill(days_ago(7)).exit_code == 0
    assert warehouse.one("SELECT count(*) FROM chunks WHERE starts_with(stream, 'people/')") == 16
    assert warehouse.one("SELECT count(*) FROM members WHERE created_at IS NULL") == 0


@pytest.mark.parametrize(("waiting", "readers"), [(0, 1), (2_000, 1), (2_001, 2), (9_000, 8), (1_000_000, 16)])
def test_readers_share_all_digits_of_keys(waiting: int, readers: int) -> None:
    chunks = list(plan.people_chunks(waiting))
    assert len({chunk.key for chunk in chunks}) == readers
    if readers > 1:
        assert "".join(chunk.subject or "" for chunk in chunks) == DIGITS


def test_a_change_of_the_names_that_stay_readable_is_followed(warehouse: Warehouse, shop: FakeAccount) -> None:
    """All people are read again, whichever names were added or removed. The run says so once."""
    hashed = warehouse.variant(personal_data="hash", personal_data_salt="s" * 32)
    for profile_id, (profile, updated) in list(shop.profiles.items()):
        shop.profiles[profile_id] = (profile._replace(properties={"Größe": "M"}), updated)
    names = "SELECT DISTINCT name FROM member_attributes"
    notes = []
    for readable in ((), ("Größe", "Länge"), ("Länge", "Größe"), ()):
        hashed.wait_for_the_next_second()
        ran = hashed.daily("members", readable_properties=readable)
        notes.append([sentence for sentence in ran.sentences if "READABLE_PROPERTIES" in sentence])
        assert (hashed.column(names) == ["Größe"]) == bool(readable)
    assert list(map(len, notes)) == [0, 1, 0, 1]
