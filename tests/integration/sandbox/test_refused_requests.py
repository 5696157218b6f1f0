"""Runs whose requests the API refuses in part: an endpoint, a channel, a reason, or a page size."""

from collections import Counter
from collections.abc import Iterator

import pytest

from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT
from tests.runs import Warehouse

DAYS = 30
FOREVER = 10**9


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=200, events=3_000, days=DAYS, until=MIDNIGHT) as box:
        yield box


@pytest.fixture
def refusing(box: Sandbox) -> Iterator[Sandbox]:
    """The account. What a test makes it refuse ends with the test."""
    yield box
    box.set_faults()
    box.set_server(largest_page=1000)


def in_schema(warehouse: Warehouse, schema: str, **settings: object) -> Warehouse:
    """Return a warehouse in a separate schema. The first run reads all of the account's history."""
    return warehouse.variant(warehouse_schema=schema, first_sync_days=60, **settings)


def refuse(box: Sandbox, endpoint: str, query: str = "") -> None:
    """Refuse an endpoint, or its requests whose query contains a text."""
    box.set_faults({"endpoint": endpoint, "query": query, "status": 400, "times": FOREVER})


NOT_DERIVED = "member_lists was not derived, because the exclusions were never read completely."


def truth(box: Sandbox) -> Counter[str]:
    """Return the ids of the account's events, each once."""
    return Counter(event["id"] for event in box.events())


@pytest.mark.parametrize(
    ("endpoint", "query", "sentence"),
    [
        pytest.param(
            "GET /api/campaigns",
            "",
            "The campaigns could not be read: GET /api/campaigns:",
            id="campaigns",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "GET /api/campaigns",
            "'mobile_push'",
            "The campaigns were read without mobile_push, archived mobile_push: GET /api/campaigns:",
            id="channel",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "GET /api/profiles",
            '"HARD_BOUNCE"',
            "The exclusions of HARD_BOUNCE could not be read: GET /api/profiles:",
            id="exclusions",
        ),
        pytest.param(
            "GET /api/flows",
            "equals(archived,true)",
            "The flows were read without archived flows: GET /api/flows:",
            id="archived flows",
        ),
    ],
)
def test_a_refused_endpoint_costs_no_event(
    warehouse: Warehouse, refusing: Sandbox, endpoint: str, query: str, sentence: str
) -> None:
    synced = in_schema(warehouse, f"refused_{len(sentence)}")
    refuse(refusing, endpoint, query)
    ran = synced.daily()
    assert (ran.state, ran.exit_code) == ("partial", 3)
    refusal = f"{sentence} the API returned 400: A test requested this error."
    assert ran.sentences == [refusal, *([NOT_DERIVED] if "exclusions" in sentence else [])]
    assert Counter(synced.event_ids()) == truth(refusing)
    refusing.set_faults()
    assert synced.daily().exit_code == 0
    stored = "SELECT count(*) FROM campaigns WHERE automation_key IS NULL AND NOT is_placeholder"
    assert synced.one(stored) == refusing.state()["campaigns"]


def test_a_refused_channel_deletes_no_campaign(warehouse: Warehouse, refusing: Sandbox) -> None:
    """Its campaigns stay as they are."""
    synced = in_schema(warehouse, "channel")
    assert synced.daily().exit_code == 0
    refuse(refusing, "GET /api/campaigns", "'sms'")
    assert synced.daily().exit_code == 3
    assert synced.one("SELECT count(*) FROM campaigns WHERE deleted_at IS NOT NULL AND NOT is_placeholder") == 0


def test_a_refused_page_size_is_reduced_and_remembered(warehouse: Warehouse, refusing: Sandbox) -> None:
    """Each event is stored once, and the next run begins with the size that was accepted."""
    synced = in_schema(warehouse, "sizes", concurrency=1)
    refusing.set_server(largest_page=250)
    before = refusing.state()["answers"].get("GET /api/events 400", 0)
    ran = synced.daily()
    assert (ran.state, ran.sentences) == ("complete", [])
    assert Counter(synced.event_ids()) == truth(refusing)
    assert synced.rows("SELECT endpoint, page_size FROM page_sizes") == [("events", 200)]
    assert refusing.state()["answers"]["GET /api/events 400"] - before == 2
    assert synced.daily().state == "complete"
    assert refusing.state()["answers"]["GET /api/events 400"] - before == 2


def test_page_sizes_of_all_endpoints_are_reduced(warehouse: Warehouse, refusing: Sandbox) -> None:
    synced = in_schema(warehouse, "small")
    refusing.set_server(largest_page=7)
    ran = synced.daily("campaigns", "lists", "members", "member_lists")
    assert (ran.state, ran.sentences) == ("complete", [])
    assert synced.one("SELECT count(*) FROM members") == refusing.state()["members"]
    assert set(synced.column("SELECT page_size FROM page_sizes")) == {5}


def test_the_setting_for_the_page_size_of_events_is_used(warehouse: Warehouse, refusing: Sandbox) -> None:
    """The API accepts it, so nothing has to be learned."""
    refusing.set_server(largest_page=300)
    synced = in_schema(warehouse, "by_hand")
    assert synced.daily("events", events_page_size=300).state == "complete"
    assert synced.rows("SELECT endpoint, page_size FROM page_sizes") == []
