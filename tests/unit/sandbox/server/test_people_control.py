"""Changes to people through the control API: merges, suppressions and consents, as both dialects then show them."""

from typing import Any

import pytest

from sandbox.account import Options
from sandbox.api.keys import API_KEY
from tests.unit.sandbox.conftest import LONG_AGO, Server, serve

OPTIONS = Options(members=60, events=300, days=20)
SUBSCRIPTIONS = {"additional-fields[profile]": "subscriptions"}
AT = "2026-11-20T12:00:00+00:00"


@pytest.fixture
def server() -> Server:
    return serve(OPTIONS)


def control(server: Server, method: str, path: str, body: Any = None, code: int = 200) -> None:
    answer = server.send(method, f"/sandbox/{path}", None, json=body)
    assert answer.status_code == code, answer.text


def status(server: Server, path: str) -> int:
    headers = {"authorization": f"Klaviyo-API-Key {API_KEY}", "revision": "2026-07-15"}
    return server.send("GET", f"/api/{path}", None, headers=headers).status_code


def two_people(server: Server) -> tuple[str, str]:
    """Return a person who has generated events and is on a list, and another one."""
    account = server.account
    members = {index for group in account.lists.values() for index in group.joined}
    old = next(person for person in account.timeline.persons if person in members)
    return account.people.id(old), account.people.id((old + 1) % len(account.people))


def owners(server: Server) -> dict[str, str]:
    """Return the profile id of each event, by id."""
    rows = server.current("events", **{"page[size]": 1000})["data"]
    related = {row["id"]: row["relationships"]["profile"]["data"] for row in rows}
    return {event_id: person["id"] for event_id, person in related.items() if person}


def marketing(server: Server, person: str) -> Any:
    """Return a person's subscription to emails."""
    profile = server.current(f"profiles/{person}", **SUBSCRIPTIONS)["data"]
    return profile["attributes"]["subscriptions"]["email"]["marketing"]


def test_the_events_of_a_merged_profile_belong_to_the_other_one(server: Server) -> None:
    """Each answer about an event says so, in both dialects, and the events are otherwise unchanged."""
    old, new = two_people(server)
    (added,) = server.add_events({"metric": "Placed Order", "timestamp": AT, "profile_id": old})
    before = owners(server)
    timeline = {event["id"]: event for event in server.timeline("v1/metrics/timeline", LONG_AGO)}
    control(server, "POST", f"profiles/{old}/merge", {"into": new, "timestamp": AT})
    assert owners(server) == {event_id: new if owner == old else owner for event_id, owner in before.items()}
    moved = [event_id for event_id, owner in before.items() if owner == old]
    assert added in moved and len(moved) > 1
    for event_id in moved:
        assert server.current(f"events/{event_id}")["data"]["relationships"]["profile"]["data"]["id"] == new
        assert server.current(f"events/{event_id}/profile")["data"]["id"] == new
    of_new = server.current("events", **{"filter": f'equals(profile_id,"{new}")', "page[size]": 1000})["data"]
    assert {row["id"] for row in of_new} == {event_id for event_id, owner in before.items() if owner in (old, new)}
    after = {event["id"]: event for event in server.timeline("v1/metrics/timeline", LONG_AGO)}
    assert {after[event_id]["person"]["id"] for event_id in moved} == {new}
    properties = {event_id: event["event_properties"] for event_id, event in timeline.items()}
    assert {event_id: event["event_properties"] for event_id, event in after.items()} == properties


def test_a_merged_profile_no_longer_exists(server: Server) -> None:
    """The other profile takes its places on lists, unless it has a place too, and its last event."""
    old, new = two_people(server)
    people, lists = server.account.people, server.account.lists
    source, destination = people.index_of(old), people.index_of(new)
    assert source is not None and destination is not None
    joined = {each: (group.joined.get(source), group.joined.get(destination)) for each, group in lists.items()}
    last = max(people.last_event[source], people.last_event[destination])
    control(server, "POST", f"profiles/{old}/merge", {"into": new, "timestamp": AT})
    assert status(server, f"profiles/{old}") == 404
    assert server.status(f"v1/person/{old}") == 404
    assert old not in [row["id"] for row in server.current("profiles", **{"page[size]": 100})["data"]]
    for each, (of_old, of_new) in joined.items():
        assert (lists[each].joined.get(source), lists[each].joined.get(destination)) == (None, of_new or of_old)
    assert people.last_event[destination] == last
    assert server.current(f"profiles/{new}")["data"]["attributes"]["updated"] == AT


def test_a_merged_profile_can_be_merged_on(server: Server) -> None:
    old, new = two_people(server)
    third = next(each for each in map(server.account.people.id, range(60)) if each not in (old, new))
    before = owners(server)
    control(server, "POST", f"profiles/{old}/merge", {"into": new})
    control(server, "POST", f"profiles/{new}/merge", {"into": third})
    assert owners(server) == {each: third if owner in (old, new) else owner for each, owner in before.items()}
    control(server, "POST", f"profiles/{old}/merge", {"into": third}, code=400)
    control(server, "POST", f"profiles/{third}/merge", {"into": third}, code=400)


def test_suppressions_begin_and_end(server: Server) -> None:
    """A suppression for one list is apart from those for all, and each change counts as a change of the profile."""
    _, person = two_people(server)
    list_id = next(iter(server.account.lists))
    control(server, "POST", f"profiles/{person}", {"suppressions": []})
    control(server, "POST", f"profiles/{person}/suppressions", {"reason": "USER_SUPPRESSED", "timestamp": AT})
    for_list = {"reason": "UNSUBSCRIBE", "timestamp": AT, "list_id": list_id}
    control(server, "POST", f"profiles/{person}/suppressions", for_list)
    shown = marketing(server, person)
    assert shown["suppression"] == [{"reason": "USER_SUPPRESSED", "timestamp": AT}]
    assert shown["list_suppressions"] == [{"list_id": list_id, "reason": "UNSUBSCRIBE", "timestamp": AT}]
    assert not shown["can_receive_email_marketing"]
    control(server, "DELETE", f"profiles/{person}/suppressions", {"reason": "HARD_BOUNCE"})
    assert marketing(server, person)["suppression"]
    control(server, "DELETE", f"profiles/{person}/suppressions", {"timestamp": "2026-11-21T12:00:00+00:00"})
    shown = marketing(server, person)
    assert (shown["suppression"], len(shown["list_suppressions"])) == ([], 1)
    control(server, "DELETE", f"profiles/{person}/suppressions", {"list_id": list_id, "timestamp": AT})
    assert marketing(server, person)["list_suppressions"] == []
    assert server.current(f"profiles/{person}")["data"]["attributes"]["updated"] == AT


def test_a_person_without_suppression_can_receive_emails_whatever_the_consent(server: Server) -> None:
    """This is what Klaviyo's API says, even of people who have never subscribed."""
    _, person = two_people(server)
    for consent in ("NEVER_SUBSCRIBED", "SUBSCRIBED", "UNSUBSCRIBED"):
        control(
            server, "POST", f"profiles/{person}", {"email": "x@example.com", "consent": consent, "suppressions": []}
        )
        assert marketing(server, person)["can_receive_email_marketing"]


def test_each_channel_has_its_consent(server: Server) -> None:
    """Members that are not set are those of a person who never subscribed; WhatsApp is null then."""
    _, person = two_people(server)
    given = {"consent": "SUBSCRIBED", "consent_timestamp": "2026-11-20 12:00:00+00:00"}
    consents: dict[str, dict[str, Any]] = {
        "email": {"method": "FORM", "double_optin": True},
        "sms": {**given, "can_receive_sms_marketing": True, "method": "API", "method_detail": "checkout"},
        "sms_transactional": {"consent": "UNSUBSCRIBED"},
        "push": {**given, "can_receive_push_marketing": True},
    }
    control(server, "POST", f"profiles/{person}", {"consents": consents})
    shown = server.current(f"profiles/{person}", **SUBSCRIPTIONS)["data"]["attributes"]["subscriptions"]
    assert shown["email"]["marketing"] | consents["email"] == shown["email"]["marketing"]
    assert shown["sms"]["marketing"] == consents["sms"] | {"last_updated": None}
    assert shown["sms"]["transactional"]["consent"] == "UNSUBSCRIBED"
    assert shown["sms"]["transactional"]["can_receive_sms_transactional"] is False
    assert shown["mobile_push"]["marketing"] == consents["push"]
    assert shown["whatsapp"] is None
    control(server, "POST", f"profiles/{person}", {"consents": {"whatsapp": {**given, "can_receive": True}}})
    shown = server.current(f"profiles/{person}", **SUBSCRIPTIONS)["data"]["attributes"]["subscriptions"]
    assert shown["whatsapp"]["marketing"]["can_receive"] is True
    assert shown["whatsapp"]["marketing"]["phone_number"] is None
    control(server, "POST", f"profiles/{person}", {"consents": {"fax": given}}, code=400)


def test_ids_of_profiles_are_listed_by_the_time_of_creation(server: Server) -> None:
    """A sweep of all ids asks for nothing else, and resumes at a time of creation."""
    query = {"fields[profile]": "created", "sort": "created", "page[size]": 100}
    rows = server.current("profiles", **query)["data"]
    created = [row["attributes"]["created"] for row in rows]
    assert len(rows) == OPTIONS.members and created == sorted(created)
    assert {tuple(row["attributes"]) for row in rows} == {("created",)}
    later = server.current("profiles", **query, filter=f"greater-than(created,{created[29]})")["data"]
    assert later == [row for row in rows if row["attributes"]["created"] > created[29]]


def test_a_change_that_is_refused_changes_nothing(server: Server) -> None:
    person = server.account.people.id(3)
    before = server.account.people.profile(3)
    row = {"reason": "SPAM_COMPLAINT", "timestamp": 1}
    control(server, "POST", f"profiles/{person}", {"suppressions": [row], "shoe_size": 44}, code=400)
    assert server.account.people.profile(3) == before
