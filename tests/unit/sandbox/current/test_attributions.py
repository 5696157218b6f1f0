"""The attributions of orders in the sandbox: to the last message that the same person opened or clicked."""

from itertools import islice
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandbox.account.attributions import SECONDS
from sandbox.derived import DerivedOptions, derive
from tests.unit.sandbox.conftest import Server

DERIVED = derive(DerivedOptions(events=200_000, members=9_000))


def attributions(server: Server, event_id: str, **parameters: Any) -> list[dict[str, Any]]:
    """Return the included attributions of an event."""
    page = server.current(f"events/{event_id}", **parameters)
    related = page["data"]["relationships"].get("attributions")
    found = [each for each in page.get("included", []) if each["type"] == "attribution"]
    assert [each["id"] for each in (related["data"] if related else [])] == [each["id"] for each in found]
    return found


def test_attributions_are_included_on_request_and_can_be_replaced(own: Server) -> None:
    """One that comes late or is withdrawn is a replacement."""
    server, account = own, own.account
    refs = range(len(account.timeline.times))
    order = next(ref for ref in refs if account.attributions.of(ref))
    touch = next(ref for ref in refs if account.timeline.source(ref).flow)
    order_id, touch_id = str(account.timeline.id(order)), str(account.timeline.id(touch))
    [found] = attributions(server, order_id, include="attributions")
    assert found["relationships"]["event"]["data"] == {"type": "event", "id": order_id}
    assert attributions(server, order_id, include="profile") == []
    for touches in ([touch_id], []):
        server.send("POST", f"/sandbox/events/{order_id}/attributions", None, json={"to": touches})
        changed = attributions(server, order_id, include="attributions")
        assert [each["relationships"]["attributed-event"]["data"]["id"] for each in changed] == touches
    refused = server.send("POST", f"/sandbox/events/{order_id}/attributions", None, json={"to": ["NOPE"]})
    assert refused.status_code == 400


@given(st.integers(0, 199_999))
def test_a_derived_account_finds_the_earlier_events_of_a_person(ref: int) -> None:
    """Without reading all of them. The touch of an order is one of them, and not too old."""
    timeline = DERIVED.timeline
    earlier = list(islice(timeline.earlier(ref), 50))
    everything = [each for each in timeline.of_person(timeline.person(ref), None) if each < ref]
    assert earlier == everything[::-1][:50]
    for each in DERIVED.attributions.of(ref):
        touch = timeline.find(each.event or "")
        assert touch in everything
        assert timeline.times[ref] - timeline.times[touch] <= SECONDS
