"""The details of people: a digest of them makes unchanged people free, and never hides a change."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Consent, EventPage, Events, Page, Profile, Suppression
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.windows import FULL_READ
from pipeline import store
from pipeline.batch import Protected, protect, protection_of
from pipeline.chunks import Chunk
from pipeline.outcome import RowCounts
from pipeline.runs import Run, begin
from pipeline.session import Session
from pipeline.streams.events import event_batch
from pipeline.streams.people import people_batch, with_stored
from pipeline.streams.stream import Reading
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import HOUR, LOG, Warehouse, days_ago
from tests.rows import profile_row
from transforms.digests import NO_DIGEST, digest_of
from transforms.events import Metrics

READ = datetime(2026, 7, 1, tzinfo=UTC)
SMS, EMAIL = Consent("sms", "SUBSCRIBED"), Consent("email", "SUBSCRIBED")
ATTRIBUTES = "SELECT id, name, value FROM member_attributes ORDER BY 1, 2"
DIGESTS = "SELECT id, details_digest FROM members ORDER BY id"


def ada(**fields: Any) -> Profile:
    """Return a person with these fields."""
    values = {"created": READ, "properties": {"size": "M", "color": "red"}, "list_suppressions": (), "consents": (SMS,)}
    return profile_row("P1", **values | fields)


def batch(session: Session, run: Run, *people: Profile, at: datetime = READ) -> Protected:
    """Make a batch of people who were read at a time."""
    with session.source() as source:
        reading = Reading(session, run, source, Chunk("profiles"), FULL_READ)
        return protect(people_batch(reading, with_stored(reading, [Page(people, (), at)])), run.settings)


def put(session: Session, run: Run, made: Protected) -> RowCounts:
    """Store a batch."""
    guard = Guard("profiles", 0.3, READ)
    return store.store(session, run, Chunk("profiles"), made, Traffic(), guard, lambda account: None)


def read(warehouse: Warehouse, *people: Profile, at: datetime = READ, **settings: object) -> RowCounts:
    """Read and store people, in one batch."""
    with warehouse.open(**settings) as session:
        run = begin(session, "daily", {}, LOG)
        return put(session, run, batch(session, run, *people, at=at))


def meet(warehouse: Warehouse, *people: Profile, at: datetime) -> None:
    """Read and store a page of events that includes whole people, as those of the legacy dialect do."""
    page = EventPage(Events(*([] for _ in Events._fields)), people, (), at)
    with warehouse.open() as session:
        run = begin(session, "daily", {}, LOG)
        made = event_batch(Metrics({}, {}), run.integration_id, loads.CONSENTING_EVENT_MEMBERS, [page])
        put(session, run, protect(made, run.settings))


def rows_of(made: Protected) -> dict[str, int]:
    """Return the number of rows of details in a batch, by table."""
    rows: dict[str, int] = {}
    for load, frame in made.frames:
        if load in loads.DETAILS:
            rows[load.table.name] = rows.get(load.table.name, 0) + frame.height
    return rows


@pytest.mark.parametrize("mode", ["keep", "hash", "drop"])
def test_a_digest_is_that_of_what_is_stored(warehouse: Warehouse, mode: str) -> None:
    settings: dict[str, Any] = {"personal_data": mode, "personal_data_salt": "s" * 32}
    person = ada()
    read(warehouse, person, **settings)
    account_id = warehouse.one("SELECT DISTINCT esp_integration_id FROM members")
    digest = digest_of(account_id, protection_of(warehouse.configured(**settings)))
    assert warehouse.rows(DIGESTS) == [("P1", digest(person))]


def test_details_that_have_not_changed_are_not_built(warehouse: Warehouse) -> None:
    """They count as unchanged rows."""
    read(warehouse, ada())
    with warehouse.open() as session:
        run = begin(session, "daily", {}, LOG)
        again = batch(session, run, ada(city="Cork"), at=READ + HOUR)
        assert rows_of(again) == {"member_attributes": 0, "member_consents": 0, "list_suppressions": 0}
        counts = put(session, run, again)
    assert counts["member_attributes"]["unchanged"] == counts["member_attributes"]["rows_read"] == 2
    assert warehouse.one("SELECT city FROM members") == "Cork"


@pytest.mark.parametrize(
    ("change", "query", "expected"),
    [
        pytest.param(
            {"properties": {"size": "L", "color": "red"}},
            ATTRIBUTES,
            [("P1", "color", "red"), ("P1", "size", "L")],
            id="a property changed",
        ),
        pytest.param({"properties": {"size": "M"}}, ATTRIBUTES, [("P1", "size", "M")], id="a property removed"),
        pytest.param({"properties": {}}, ATTRIBUTES, [], id="all properties removed"),
        pytest.param(
            {"consents": (SMS._replace(consent="UNSUBSCRIBED"),)},
            "SELECT consent FROM member_consents",
            [("UNSUBSCRIBED",)],
            id="a consent",
        ),
        pytest.param({"consents": ()}, "SELECT consent FROM member_consents", [], id="no consent"),
        pytest.param(
            {"list_suppressions": (Suppression("L1", "P1", READ),)},
            "SELECT list_id, lifted_at FROM list_suppressions",
            [("L1", None)],
            id="a suppression",
        ),
    ],
)
def test_each_change_of_details_is_stored(
    warehouse: Warehouse, change: dict[str, Any], query: str, expected: Sequence[tuple[Any, ...]]
) -> None:
    """It is stored back as well, when the person is as before again."""
    read(warehouse, ada())
    before = warehouse.rows(query)
    read(warehouse, ada(**change), at=READ + HOUR)
    assert warehouse.rows(query) == expected != before
    read(warehouse, ada(), at=READ + 2 * HOUR)
    if "suppression" not in query:
        assert warehouse.rows(query) == before


def test_an_older_record_changes_neither_the_digest_nor_the_details(warehouse: Warehouse) -> None:
    """Two readers can store what they have read in the other order, even where the older one found another value."""
    read(warehouse, ada(), at=READ)
    read(warehouse, ada(city="Cork"), at=READ + 2 * HOUR)
    digests = warehouse.rows(DIGESTS)
    read(warehouse, ada(properties={"size": "XL"}), at=READ + HOUR)
    assert warehouse.rows(DIGESTS) == digests
    assert warehouse.rows(ATTRIBUTES) == [("P1", "color", "red"), ("P1", "size", "M")]


def test_what_another_reader_stores_meanwhile_is_seen_by_the_next_read(warehouse: Warehouse) -> None:
    read(warehouse, ada())
    with warehouse.open() as session:
        run = begin(session, "daily", {}, LOG)
        unchanged = batch(session, run, ada(), at=READ + 2 * HOUR)
        put(session, run, batch(session, run, ada(properties={"size": "XL"}), at=READ + HOUR))
        put(session, run, unchanged)
        assert warehouse.rows(ATTRIBUTES) == [("P1", "size", "XL")]
        put(session, run, batch(session, run, ada(), at=READ + 3 * HOUR))
    assert warehouse.rows(ATTRIBUTES) == [("P1", "color", "red"), ("P1", "size", "M")]


def test_two_readers_of_a_new_person_store_the_later_record(warehouse: Warehouse) -> None:
    """The second one expected to append."""
    with warehouse.open() as session:
        run = begin(session, "daily", {}, LOG)
        later = batch(session, run, ada(properties={"size": "XL"}), at=READ + HOUR)
        earlier = batch(session, run, ada())
        put(session, run, later)
        put(session, run, earlier)
        assert warehouse.rows(ATTRIBUTES) == [("P1", "size", "XL")]
        put(session, run, batch(session, run, ada(), at=READ + 2 * HOUR))
    assert warehouse.rows(ATTRIBUTES) == [("P1", "color", "red"), ("P1", "size", "M")]


def test_another_protection_makes_the_details_differ(warehouse: Warehouse) -> None:
    """A name of a property that becomes readable is stored."""
    person = ada(properties={"Größe": "M"})
    settings: dict[str, Any] = {"personal_data": "hash", "personal_data_salt": "s" * 32}
    read(warehouse, person, **settings)
    read(warehouse, person, at=READ + HOUR, **settings, readable_properties="Größe")
    assert warehouse.column("SELECT name FROM member_attributes") == ["Größe"]


@pytest.mark.parametrize(
    ("properties", "repeated"),
    [
        pytest.param({"x" * 2001: "1"}, "rejected", id="a name that is too long"),
        pytest.param({"size": "M\x00"}, "nul_characters", id="a NUL character"),
    ],
)
def test_what_could_not_be_stored_as_it_is_has_no_digest(
    warehouse: Warehouse, properties: Mapping[str, str], repeated: str
) -> None:
    """So each run reports it."""
    person = ada(properties=properties)
    read(warehouse, person)
    counts = read(warehouse, person, at=READ + HOUR)
    assert sum(numbers[repeated] for numbers in counts.values()) == 1
    assert warehouse.rows(DIGESTS) == [("P1", NO_DIGEST)]


def test_a_digest_that_was_replaced_is_not_taken_for_that_of_the_details(warehouse: Warehouse) -> None:
    """After a record without a digest, the earlier record is a change."""
    read(warehouse, ada())
    read(warehouse, ada(properties={"size": "\x00"}), at=READ + HOUR)
    read(warehouse, ada(), at=READ + 2 * HOUR)
    assert warehouse.rows(ATTRIBUTES) == [("P1", "color", "red"), ("P1", "size", "M")]


def test_the_other_dialect_clears_digests(warehouse: Warehouse, shop: FakeAccount) -> None:
    """There, properties are also loaded from pages of events, which compare no digests."""
    read(warehouse, ada())
    shop.set_traits(lists_people=False)
    read(warehouse, ada(properties={"size": "L"}), at=READ + HOUR)
    assert warehouse.rows(DIGESTS) == [("P1", None)]
    assert read(warehouse, ada(properties={"size": "L"}), at=READ + 2 * HOUR)["members"]["updated"] == 0
    shop.set_traits(lists_people=True)
    read(warehouse, ada(), at=READ + 3 * HOUR)
    assert warehouse.rows(ATTRIBUTES) == [("P1", "color", "red"), ("P1", "size", "M")]


@pytest.mark.parametrize("flow", ["daily", "backfill"])
def test_people_whom_the_other_dialect_overwrote_are_read_again(
    warehouse: Warehouse, shop: FakeAccount, flow: str
) -> None:
    """Its records lack what the first one had, so all people are read once, although they have not changed."""
    people = "SELECT id, consent, klaviyo_updated_at FROM members ORDER BY id"
    consents = "SELECT member_id, consent FROM member_consents ORDER BY 1"
    shop.add_person("P2", days_ago(20), created=READ, consent="SUBSCRIBED", consents=(SMS,))
    warehouse.daily()
    before = warehouse.rows(people), warehouse.rows(consents)

    shop.set_traits(lists_people=False)
    complete = shop.profiles["P2"]
    shop.add_person("P2", days_ago(20), created=READ)
    if flow == "daily":
        warehouse.daily(lookback_days=7)
    else:
        warehouse.backfill(days_ago(9))
    assert warehouse.rows(people) != before[0]

    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '1 minute'")  # a minute passes
    shop.set_traits(lists_people=True)
    shop.profiles["P2"] = complete
    warehouse.daily()
    assert (warehouse.rows(people), warehouse.rows(consents)) == before
    shop.recover()
    warehouse.daily()
    assert all(request.window != FULL_READ for request in shop.sent("profiles")), "from the watermark on again"


@pytest.mark.parametrize(
    ("met", "hours", "expected"),
    [
        pytest.param((EMAIL._replace(consent="UNSUBSCRIBED"),), 1, [("email", "UNSUBSCRIBED")], id="changed"),
        pytest.param((), 1, [], id="none any more"),
        pytest.param((EMAIL._replace(consent="UNSUBSCRIBED"),), -1, [("email", "SUBSCRIBED")], id="read before"),
    ],
)
def test_pages_of_events_replace_the_consent_to_email(
    warehouse: Warehouse, met: Sequence[Consent], hours: int, expected: list[tuple[str, str]]
) -> None:
    """Of the other channels they say nothing. A page that was read before the person was does not count."""
    read(warehouse, ada(consents=(EMAIL, SMS)))
    meet(warehouse, ada(consents=met), at=READ + hours * HOUR)
    stored = warehouse.rows("SELECT channel, consent FROM member_consents ORDER BY channel")
    assert stored == [*expected, ("sms", "SUBSCRIBED")]


def test_pages_of_events_store_the_consent_of_new_people(warehouse: Warehouse) -> None:
    meet(warehouse, ada(consents=(EMAIL,)), at=READ)
    meet(warehouse, ada(consents=(EMAIL,)), at=READ + HOUR)
    assert warehouse.rows("SELECT channel, consent FROM member_consents") == [("email", "SUBSCRIBED")]
