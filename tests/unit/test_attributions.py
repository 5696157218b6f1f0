"""The attributions of events, from pages of the current dialect to frames and batches."""

import json
import re
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.rows import Attribution, EventPage
from pipeline.streams.events import by_seconds, event_batch
from tests.any_page import ACCOUNT, METRICS, SECOND, event_page
from transforms.attributions import attributions
from transforms.personal import Protection

AT = int(SECOND)
FULL = {
    "event": "e1",
    "attributed-event": "e0",
    "campaign": "C1",
    "campaign-message": "M1",
    "flow": "F1",
    "flow-message": "X1",
    "flow-message-variation": "V1",
}
ROW = Attribution("a1", "e1", AT, "e0", "C1", "M1", "F1", "X1", "V1")
NOTHING = Attribution("a1", "e1", AT, None, None, None, None, None, None)


def event(event_id: str = "e1", at: int = AT, **relationships: Any) -> dict[str, Any]:
    related = {"metric": {"data": {"type": "metric", "id": "m1"}}, **relationships}
    return {"type": "event", "id": event_id, "attributes": {"timestamp": at}, "relationships": related}


def referring(*ids: str) -> dict[str, Any]:
    """Return an event that refers to attributions."""
    return event(attributions={"data": [{"type": "attribution", "id": each} for each in ids]})


def attribution(row_id: str = "a1", **related: str) -> dict[str, Any]:
    relationships = {name: {"data": {"type": "any", "id": each}} for name, each in related.items()}
    return {"type": "attribution", "id": row_id, "relationships": relationships}


PERSON = {"type": "profile", "id": "p1", "attributes": {"email": "a@example.com"}}


def page(events: list[Any], *included: Any) -> EventPage:
    return event_page("current", json.dumps({"data": events, "included": included}).encode())


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        pytest.param(page([referring("a1")], PERSON, attribution(**FULL)), [ROW], id="both refer to each other"),
        pytest.param(page([event()], attribution(**FULL)), [ROW], id="only the attribution refers"),
        pytest.param(
            page([referring("a1")], attribution(campaign="C1")), [NOTHING._replace(campaign_id="C1")], id="only it does"
        ),
        pytest.param(
            page([referring("a1", "a2")], attribution(**FULL), attribution("a2")),
            [ROW, NOTHING._replace(id="a2")],
            id="two",
        ),
        pytest.param(page([referring("a1")], PERSON), [NOTHING._replace(is_included=False)], id="not included"),
        pytest.param(page([event()], attribution(event="e9")), [], id="of an event of another page"),
        pytest.param(page([event()], attribution()), [], id="of no event"),
        pytest.param(page([event(attributions=None)]), [], id="null"),
        pytest.param(page([event(attributions={"data": None})]), [], id="null data"),
        pytest.param(page([event(attributions={"links": {}})]), [], id="links only"),
        pytest.param(
            page([referring("a1")], {"type": "attribution", "id": "a1", "relationships": None}),
            [NOTHING],
            id="no relationships",
        ),
        pytest.param(
            page(
                [{**event(), "relationships": None}],
                attribution(event="e1") | {"relationships": {"event": {"data": {"id": "e1"}}, "campaign": None}},
            ),
            [NOTHING],
            id="an event without relationships, and null for a campaign",
        ),
    ],
)
def test_attributions_are_read_from_either_side(read: EventPage, expected: list[Attribution]) -> None:
    assert (list(read.attributions), list(read.rejects)) == (expected, [])
    assert read.events.id == ["e1"]


@pytest.mark.parametrize(
    ("events", "included", "reason"),
    [
        pytest.param([event()], [{"type": "attribution", "id": 7}], r"Expected `str`", id="number as ID"),
        pytest.param(
            [event()], [attribution() | {"relationships": {"flow": 7}}], r"Expected `object", id="number as a flow"
        ),
        pytest.param([event()], [attribution() | {"id": ""}], r"length >= 1", id="blank ID"),
        pytest.param([event(attributions=[7])], [], r"references to its attributions cannot be read", id="list"),
        pytest.param([event(attributions={"data": [7]})], [], r"cannot be read: Expected `object`", id="numbers"),
    ],
)
def test_attributions_that_cannot_be_read_are_rejects(events: list[Any], included: list[Any], reason: str) -> None:
    """The event and the people of the page are stored nevertheless."""
    read = page(events, *included, PERSON)
    assert (read.events.id, [each.id for each in read.profiles]) == (["e1"], ["p1"])
    assert (len(read.attributions), len(read.rejects)) == (0, 0)
    [reject] = read.hidden
    assert reject.hides
    assert re.search(reason, reject.reason), reject.reason


def test_keys_are_those_of_the_other_tables() -> None:
    [row] = attributions([page([referring("a1")], attribution(**FULL))], ACCOUNT).included.to_dicts()

    def key(text: str) -> str:
        return md5(text.encode()).hexdigest()

    assert {name: value for name, value in row.items() if name.endswith("key")} == {
        "key": key("Klaviyo:one:e1:a1"),
        "event_key": key("Klaviyo:one:e1"),
        "attributed_event_key": key("Klaviyo:one:e0"),
        "campaign_key": key("C1"),
        "campaign_message_key": key("M1"),
        "automation_key": key("F1"),
        "flow_message_key": key("X1"),
        "variation_key": key("V1"),
    }


@pytest.mark.parametrize("drops", [True, False])
def test_protected_ids_of_events_lead_to_the_keys_of_the_events(drops: bool) -> None:
    """An ID that is an address is hashed before the keys are derived, as that of the event is."""
    address = "ann@example.com"
    read = page([{**referring("a1"), "id": address}], attribution(**{"attributed-event": address}))
    protection = Protection(drops, "a salt", frozenset())
    batch = event_batch(METRICS, ACCOUNT, loads.MEMBER_STUBS, [read], protection)
    frames = dict(batch.frames)
    [event_key] = frames[loads.EVENTS["opens"]].get_column("key")
    [row] = frames[loads.EVENT_ATTRIBUTIONS].to_dicts()
    assert row["event_key"] == row["attributed_event_key"] == event_key
    assert address not in str(row)


def test_attributions_are_in_the_batch_of_their_event() -> None:
    """The events of the last second of a batch wait for the next one."""
    times = {"e1": AT, "e2": AT + 1, "e3": AT + 1}
    events = [event(each, at, attributions={"data": [{"id": f"of {each}"}]}) for each, at in times.items()]
    batches = [group.pages for group in by_seconds([page(events), page([event("e4", AT + 2)])], 2)]
    found = [
        ([row for each in pages for row in each.events.id], [row.id for each in pages for row in each.attributions])
        for pages in batches
    ]
    assert found == [(["e1"], ["of e1"]), (["e2", "e3"], ["of e2", "of e3"]), (["e4"], [])]


def test_a_page_without_attributions_makes_an_empty_frame() -> None:
    read = page([event()], PERSON)
    assert attributions([read], ACCOUNT).included.schema == loads.EVENT_ATTRIBUTIONS.schema
    assert attributions([read._replace(read_at=datetime.now(UTC))], ACCOUNT).included.is_empty()
