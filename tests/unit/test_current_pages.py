"""The current dialect, from bytes to rows, with a fake client that returns prepared answers."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from klaviyo_pg.errors import BadAnswer, Garbled, MissingScope, NotFound, PageTooLarge, Refused, TooMuch
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.current.campaigns import CHANNELS
from klaviyo_pg.klaviyo.current.rows import counts
from klaviyo_pg.klaviyo.current.source import SUPPRESSION_REASONS, CurrentSource
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.klaviyo.people_cache import PendingPeople, PeopleCache
from klaviyo_pg.rows import (
    Campaign,
    CampaignMessage,
    Consent,
    Count,
    Exclusion,
    Flow,
    FlowAction,
    FlowMessage,
    Membership,
    MembershipPage,
    Metric,
    Page,
    Profile,
    Reject,
    Suppression,
    Tag,
    TagGroup,
)
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.windows import FULL_READ, OpenWindow, Window

HOST = "https://a.klaviyo.com"
JULY = datetime(2026, 7, 1, tzinfo=UTC)
SECOND = int(JULY.timestamp())


class Answers:
    """A client that returns its answers in turn, repeats the last one, and records the requests."""

    traffic = Traffic()

    def __init__(self, *pages: object) -> None:
        self._pages = list(pages)
        self.requests: list[tuple[str, Mapping[str, str] | None, str]] = []

    def get(
        self,
        path: str,
        parameters: Mapping[str, str] | None = None,
        endpoint: Endpoint | None = None,
        read: Callable[[bytes], Any] = bytes,
        can_ask_for_less: bool = False,
    ) -> Any:
        self.requests.append((path, parameters, endpoint.scopes if endpoint else ""))
        page = self._pages.pop(0) if len(self._pages) > 1 else self._pages[0]
        if isinstance(page, Exception):
            raise page
        return read(page if isinstance(page, bytes) else json.dumps(page).encode())


def source(*pages: object) -> tuple[CurrentSource, Answers]:
    answers = Answers(*pages)
    return CurrentSource(cast(Client, answers)), answers


def page(*rows: object, link: str | None = None, **others: object) -> dict[str, object]:
    return {"data": list(rows), "links": {"next": link}, **others}


def event(event_id: str = "e1", second: int = SECOND, properties: object = None, **related: str | None) -> Any:
    """Return an event. `related` are the ids of its profile and metric; None is an empty relationship."""
    relationships = {name: {"data": each and {"id": each}} for name, each in related.items()}
    attributes = {"timestamp": second, "event_properties": properties}
    return {"id": event_id, "attributes": attributes, "relationships": relationships}


def test_pages_are_followed_to_the_end() -> None:
    """The first request has the parameters, each link is followed unchanged, and the rows are read page by page."""
    metric = {"id": "m1", "attributes": {"name": "Opened Email"}}
    it, answers = source(page(metric, link=f"{HOST}/api/metrics?page=2"), page(metric | {"id": "m2"}))
    assert [[row.id for row in each.rows] for each in it.metrics()] == [["m1"], ["m2"]]
    assert [(path, bool(query)) for path, query, _ in answers.requests] == [
        ("api/metrics", True),
        (f"{HOST}/api/metrics?page=2", False),
    ]


@pytest.mark.parametrize("links", [["a", "a"], ["a", "b", "a"], ["api/metrics"]])
def test_a_link_to_a_page_that_was_already_read_is_refused(links: list[str]) -> None:
    """Following cursors in a circle would never end."""
    it, _ = source(*(page(link=link) for link in links), page())
    with pytest.raises(
        BadAnswer, match=r"^The API returned a link to a page of api/metrics that has already been read"
    ):
        list(it.metrics())


def test_all_fields_of_a_metric_are_read() -> None:
    """Times are in UTC, and a category that is an object is JSON."""
    row = {
        "id": "m1",
        "attributes": {
            "name": "N",
            "created": "2026-07-01T02:00:00+02:00",
            "updated": "2026-07-01T00:00:00",
            "integration": {"category": {"a": 1}},
        },
    }
    it, _ = source(page(row))
    assert [each.rows for each in it.metrics()] == [[Metric("m1", "N", '{"a":1}', JULY, JULY)]]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("0001-01-01T00:00:00+05:00", datetime(1, 1, 1, tzinfo=UTC), id="before the year 1 in UTC"),
        pytest.param("9999-12-31T23:00:00-05:00", datetime(9999, 12, 31, 23, tzinfo=UTC), id="after 9999 in UTC"),
    ],
)
def test_times_at_the_limits_of_the_calendar_are_read(text: str, moment: datetime) -> None:
    """A time that only its offset puts outside the calendar does not stop a run."""
    it, _ = source(page({"id": "m1", "attributes": {"created": text}}))
    assert next(it.metrics()).rows[0].created == moment


def test_campaigns_are_read_by_channel_and_include_archived_ones() -> None:
    """The API requires a channel, and lists archived campaigns separately."""
    it, answers = source(page())
    list(it.campaigns())
    filters = [query["filter"] for _, query, _ in answers.requests if query]
    assert filters == [
        f"equals(messages.channel,'{channel}'),equals(archived,{archived})"
        for channel in CHANNELS
        for archived in ("false", "true")
    ]


def test_all_fields_of_a_campaign_are_read() -> None:
    """Subject and sender are those of the first message that has content."""
    row = {
        "id": "c1",
        "attributes": {
            "name": "Spring",
            "status": "Sent",
            "archived": True,
            "audiences": {"included": ["L1", "S1"], "excluded": ["L2"]},
            "scheduled_at": "2026-07-01T00:00:00Z",
            "created_at": "2026-07-01T00:00:00Z",
            "updated_at": "2026-07-01T00:00:00Z",
            "send_time": "2026-07-01T00:00:00Z",
        },
        "relationships": {"campaign-messages": {"data": [{"id": "empty"}, {"id": "gone"}, {"id": "full"}]}},
    }
    content = {"subject": "Hi", "from_email": "s@example.com", "from_label": "Shop"}
    messages = [
        {"id": "full", "attributes": {"definition": {"content": content}}},
        {"id": "empty", "attributes": {"definition": None}},
    ]
    it, _ = source(page(row, included=messages))
    sender = ("s@example.com", "Shop")
    assert list(next(it.campaigns()).rows) == [
        Campaign(
            *("c1", "Spring", "L1", *sender, "Hi", "Sent", JULY, "email", JULY, JULY, ["L1", "S1"], ["L2"], True, JULY),
            messages=[
                CampaignMessage("full", "c1", "email", None, "Hi", None, None, *sender, status="Sent"),
                CampaignMessage("empty", "c1", "email", status="Sent"),
            ],
        )
    ]


@pytest.mark.parametrize(
    ("status", "sent_at"),
    [
        *((status, JULY) for status in ("Sending", "Sending Segments", "Variations Sent", "Sent")),
        *((status, None) for status in ("Draft", "Scheduled", "Preparing to send", "Cancelled: Smart Sending", None)),
    ],
)
def test_a_campaign_that_is_only_planned_has_no_time_of_sending(status: str | None, sent_at: datetime | None) -> None:
    """The API's `send_time` is also the time at which a campaign is to be sent."""
    it, _ = source(page({"id": "c1", "attributes": {"status": status, "send_time": JULY.isoformat()}}))
    assert next(it.campaigns()).rows[0].sent_at == sent_at


def sent(**attributes: object) -> tuple[list[CampaignMessage], list[Reject]]:
    """Return what becomes of a message with these attributes, and with any other members of the resource."""
    members: dict[str, object] = {
        name: attributes.pop(name) for name in ("id", "type", "relationships") if name in attributes
    }
    resource = {"id": "m1", "type": "campaign-message", "attributes": attributes, **members}
    it, _ = source(page({"id": "c1", "attributes": {"status": "Sent"}}, included=[resource]))
    read = next(it.campaigns())
    return list(read.rows[0].messages), list(read.rejects)


OF_C1 = {"campaign": {"data": {"type": "campaign", "id": "c1"}}}


def test_all_fields_of_a_campaign_message_are_read() -> None:
    """The message names its campaign itself. Its times of sending are an interval."""
    content = {"subject": "Hi", "preview_text": "Soon", "from_email": "s@example.com", "from_label": "Shop"}
    times = [{"datetime": f"2026-07-0{day}T00:00:00Z", "is_local": day == 2} for day in (3, 1, 2)]
    [message], rejects = sent(
        definition={"channel": "email", "label": "A", "content": {**content, "reply_to_email": "r@example.com"}},
        send_times=times,
        created_at="2026-07-01T00:00:00.000001+00:00",
        updated_at="2026-07-01 00:00:00+00:00",
        relationships={**OF_C1, "template": {"data": {"id": "T1"}}},
    )
    texts = ("email", "A", "Hi", "Soon", None, "s@example.com", "Shop", "r@example.com", "T1", "Sent")
    created = JULY + timedelta(microseconds=1)
    assert message == CampaignMessage("m1", "c1", *texts, JULY, JULY + timedelta(days=2), True, created, JULY)
    assert rejects == []


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param({}, {}, id="no attributes"),
        pytest.param({"definition": {}, "send_times": None}, {}, id="nulls"),
        pytest.param({"definition": {"channel": "carrier_pigeon"}}, {"channel": "carrier_pigeon"}, id="a new channel"),
        pytest.param({"definition": {"content": {"body": "Hi"}}}, {"body": "Hi"}, id="a text message"),
        pytest.param(
            {"definition": {"content": {"title": "Sale", "body": {"a": 1}}}},
            {"subject": "Sale", "body": '{"a":1}'},
            id="a push notification with an odd body",
        ),
        pytest.param({"definition": {"label": 5}}, {"label": "5"}, id="a name that is a number"),
        pytest.param({"send_times": [None, {}, {"datetime": "soon", "is_local": "yes"}]}, {}, id="odd times"),
        pytest.param({"send_times": "never", "created_at": 5, "updated_at": {}}, {}, id="times of other types"),
        pytest.param(
            {"send_times": [{"datetime": "2026-07-01T00:00:00"}]},
            {"send_at": JULY, "last_send_at": JULY},
            id="a time without a zone",
        ),
    ],
)
def test_what_a_campaign_message_lacks_is_null(attributes: dict[str, object], expected: dict[str, Any]) -> None:
    """Values of another type than expected do not keep the campaign from being read."""
    messages, rejects = sent(relationships=OF_C1, **attributes)
    nothing = CampaignMessage("m1", "c1", "email", status="Sent")
    assert (messages, rejects) == ([nothing._replace(**expected)], [])


@pytest.mark.parametrize(
    "relationships",
    [None, {}, {"campaign": None}, {"campaign": {"data": None}}, {"campaign": {"data": []}}, [], "c1"],
)
def test_a_message_of_no_campaign_is_rejected(relationships: object) -> None:
    """It may be one that the warehouse has, so that nothing is taken for deleted."""
    messages, [rejected] = sent(relationships=relationships)
    assert (messages, rejected.hides) == ([], True)
    assert rejected.reason == "The message belongs to none of the campaigns on its page."


def flow_with(*included: object, **relationships: object) -> Page[Flow]:
    """Return the page with a flow and what it includes."""
    attributes = {"name": "Welcome", "archived": False, "trigger_type": "A new one"}
    it, _ = source(page({"id": "f1", "attributes": attributes, "relationships": relationships}, included=included))
    return next(it.flows())


def action(row_id: str, kind: str, data: object, links: object = None, **others: object) -> dict[str, object]:
    """Return an action of the flow f1."""
    definition = {"id": row_id, "type": kind, "data": data, "links": links}
    attributes = {"definition": definition, "created": "2026-07-01T00:00:00Z", "updated": "2026-07-02T00:00:00Z"}
    of_f1 = {"relationships": {"flow": {"data": {"type": "flow", "id": "f1"}}}}
    return {"type": "flow-action", "id": row_id, "attributes": attributes, **of_f1, **others}


def test_the_actions_of_a_flow_are_read_with_their_messages() -> None:
    """A test has several messages, at any depth. An action belongs to the flow that refers to it."""
    email = {
        "subject_line": "Hi",
        "preview_text": "Soon",
        "from_email": "s@example.com",
        "from_label": "Shop",
        "reply_to_email": "r@example.com",
        "template_id": "T1",
        "name": "One",
        "transactional": True,
        "smart_sending_enabled": False,
        "id": "m1",
    }
    variations = [{"type": "send-sms", "data": {"message": {"id": each, "body": "B"}}} for each in ("m2", "m3", "m2")]
    test = {"main_action": variations[0], "current_experiment": {"variations": variations}}
    read = flow_with(
        action("1", "send-email", {"message": email, "status": "live"}, {"next": "2"}),
        action("2", "conditional-split", {}, {"next_if_true": "3", "next_if_false": None}, relationships=None),
        action("3", "content-experiment", test),
        **{"flow-actions": {"data": [{"id": "2"}, {"id": "gone"}, None]}},
    )
    [flow] = read.rows
    assert (flow.archived, flow.trigger_type, list(read.rejects)) == (False, "A new one", [])
    first, split, experiment = flow.actions
    times = (JULY, JULY + timedelta(days=1))
    definition = '{"id":"2","type":"conditional-split","data":{},"links":{"next_if_true":"3","next_if_false":null}}'
    assert first[:7] == ("1", "f1", "send-email", "live", "2", None, None)
    assert split == FlowAction("2", "f1", "conditional-split", None, None, "3", None, definition, *times)
    assert experiment.action_type == "content-experiment"
    texts = ("email", "One", "Hi", "Soon", None, "s@example.com", "Shop", "r@example.com", "T1", "live")
    assert flow.messages == [
        FlowMessage("m1", "f1", "1", *texts, True, False, False, *times),
        *(
            FlowMessage(each, "f1", "3", "sms", body="B", is_variation=True, created=times[0], updated=times[1])
            for each in ("m2", "m3")
        ),
    ]


@pytest.mark.parametrize(
    "attributes",
    [
        None,
        [],
        {},
        {"definition": None, "created": "soon", "updated": 5},
        {"definition": []},
        {"definition": {"type": None, "data": None, "links": []}},
        {"definition": {"data": {"message": None, "status": None}, "links": None}},
        {"definition": {"data": {"message": {"id": None}}}},
        {"definition": {"data": {"message": {"id": "", "name": "x"}}}},
        {"definition": {"data": {"message": "m1"}}},
    ],
)
def test_what_an_action_of_a_flow_lacks_is_null(attributes: object) -> None:
    """Only its definition may differ."""
    read = flow_with({**action("1", "", None), "attributes": attributes})
    [flow] = read.rows
    assert [each._replace(definition=None) for each in flow.actions] == [FlowAction("1", "f1")]
    assert (list(flow.messages), list(read.rejects)) == ([], [])


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        pytest.param(
            action("1", "", None, relationships=None), "The action belongs to none of the flows", id="no flow"
        ),
        pytest.param({"type": "flow-action", "attributes": {}}, "missing required field `id`", id="no id"),
        pytest.param({"type": "flow-action", "id": 5}, "Expected `str`", id="an id that is no text"),
    ],
)
def test_an_action_that_cannot_be_placed_is_rejected(resource: dict[str, object], reason: str) -> None:
    """It may be one that the warehouse has, so that nothing is taken for deleted."""
    read = flow_with(resource, {"type": "tag", "id": "t1"})
    [rejected] = read.rejects
    assert (rejected.hides, list(read.rows[0].actions)) == (True, [])
    assert reason in rejected.reason


def test_a_definition_that_is_nested_deeply_stops_nothing() -> None:
    """Levels that are too deep to be stored are replaced, and the action stays."""
    body = json.dumps(page({"id": "f1", "attributes": {}}, included=[action("1", "x", "DEEP")]))
    for levels in (100, 900, 100_000):
        it, _ = source(body.replace('"DEEP"', "[" * levels + "]" * levels).encode())
        read = next(it.flows())
        assert [each.id for each in read.rows[0].actions] == ["1"]
        assert not any(reject.hides for reject in read.rejects)


def test_tags_are_read_with_their_groups() -> None:
    """One request reads both. What a tag or a group lacks is null."""
    group = {"type": "tag-group", "id": "g1", "attributes": {"name": "Market", "exclusive": True, "default": False}}
    of_g1 = {"tag-group": {"data": {"type": "tag-group", "id": "g1"}}}
    tags = [
        {"type": "tag", "id": "t1", "attributes": {"name": "VIP"}, "relationships": of_g1},
        {"type": "tag", "id": "t2", "attributes": None, "relationships": {"tag-group": {"data": None}}},
        {"type": "tag", "id": "t3"},
        {"type": "tag", "id": None},
    ]
    odd = {"type": "tag-group", "id": "g2", "attributes": {"name": 5, "exclusive": "yes"}}
    it, answers = source(page(*tags, included=[group, odd]))
    [read] = it.tags()
    groups = [TagGroup("g1", "Market", True, False), TagGroup("g2", "5")]
    assert read.rows == [Tag("t1", "VIP", "g1"), Tag("t2"), Tag("t3"), *groups]
    assert [reject.hides for reject in read.rejects] == [True]
    assert [(path, query) for path, query, _ in answers.requests] == [("api/tags", {"include": "tag-group"})]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param({"is_active": True, "is_starred": False, "is_processing": True}, (True, False, True), id="all"),
        pytest.param({"is_active": None, "is_starred": "yes", "is_processing": {}}, (None, None, None), id="odd"),
        pytest.param({}, (None, None, None), id="missing"),
    ],
)
def test_segments_have_their_states(attributes: dict[str, object], expected: tuple[bool | None, ...]) -> None:
    it, answers = source(page({"id": "S1", "attributes": attributes}))
    [row] = next(it.segments()).rows
    assert (row.is_active, row.is_starred, row.is_processing) == expected
    [(_, query, _)] = answers.requests
    assert query is not None and {"is_active", "is_processing"} <= set(query["fields[segment]"].split(","))


TAGGABLE = ("campaigns", "flows", "lists", "segments")


@pytest.mark.parametrize("kind", TAGGABLE)
@pytest.mark.parametrize(
    ("relationships", "expected"),
    [
        pytest.param({"tags": {"data": [{"type": "tag", "id": "t1"}, {"id": "t2"}]}}, ["t1", "t2"], id="two"),
        pytest.param({"tags": {"data": []}}, [], id="none"),
        pytest.param({"tags": {"data": [None, {}, {"id": 5}, {"id": ""}, "t1", {"id": "t1"}]}}, ["t1"], id="odd ones"),
        pytest.param({"tags": {"links": {}}}, None, id="not included"),
        pytest.param({"tags": {"data": None}}, None, id="null"),
        pytest.param({"tags": None}, None, id="a null relationship"),
        pytest.param({}, None, id="no relationship"),
        pytest.param(None, None, id="no relationships"),
    ],
)
def test_tags_are_read_with_what_they_are_on(kind: str, relationships: object, expected: list[str] | None) -> None:
    """None says that the tags are unknown, so that the stored ones stay."""
    it, answers = source(page({"id": "x", "attributes": {}, "relationships": relationships}, included=[]))
    [row] = next(getattr(it, kind)()).rows
    assert row.tags == expected
    [(_, query, _)] = answers.requests[:1]
    assert query is not None and "tags" in query["include"].split(",")


@pytest.mark.parametrize("kind", TAGGABLE)
def test_a_key_that_may_not_read_tags_reads_what_they_are_on(kind: str) -> None:
    """The request is repeated without them. A key that lacks the other scope is refused again, and says which."""
    row = {"id": "x", "attributes": {}}
    it, answers = source(MissingScope("tags:read"), page(row))
    [read] = next(getattr(it, kind)()).rows
    assert (read.id, read.tags) == ("x", None)
    assert ["tags" in (query or {}).get("include", "") for _, query, _ in answers.requests] == [True, False]
    it, _ = source(MissingScope(f"{kind}:read"))
    with pytest.raises(MissingScope, match=f"{kind}:read"):
        list(getattr(it, kind)())


def test_other_included_resources_are_no_messages() -> None:
    """They are neither stored nor rejected."""
    assert sent(type="tag", name="VIP") == ([], [])


def test_a_campaign_without_audiences_and_messages_is_read() -> None:
    """This is a draft."""
    it, _ = source(page({"id": "c1", "attributes": {"audiences": None}}))
    (row,) = next(it.campaigns()).rows
    assert (row.list_id, row.subject, list(row.included), list(row.excluded)) == (None, None, [], [])


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        pytest.param(None, {"properties": b"null"}, id="null"),
        pytest.param([1, "a"], {"properties": b'[1,"a"]'}, id="a list"),
        pytest.param({}, {"properties": b"{}"}, id="empty"),
        pytest.param({"$value": 2**60 + 1}, {"value": "1152921504606846977"}, id="a large number"),
        pytest.param({"$value": "12.50"}, {"value": "12.50"}, id="a number as text"),
        pytest.param({"$value": True}, {"value": "true"}, id="a boolean"),
        pytest.param({"$value": {"a": 1}}, {"value": '{"a":1}'}, id="an object"),
        pytest.param({"$message": 5, "$flow": "f1"}, {"message": "5", "flow": "f1"}, id="ids"),
        pytest.param(
            {"Campaign Name": "N", "Subject": "S", "List": "L"}, {"subject": "S", "list_name": "L"}, id="names"
        ),
        pytest.param({"Subject": ["a"]}, {"subject": '["a"]'}, id="a subject that is a list"),
        pytest.param({"$variation": "v1"}, {"variation": "v1", "email_domain": None}, id="a variation"),
        pytest.param({"Email Domain": "a.example"}, {"email_domain": "a.example"}, id="a domain"),
        pytest.param({}, {"is_machine_open": None, "is_bot_click": None}, id="nothing about machines"),
        pytest.param({"machine_open": True}, {"is_machine_open": True}, id="a machine"),
        pytest.param({"machine_open": False}, {"is_machine_open": False}, id="no machine"),
        pytest.param({"Machine Open": True, "$flow": 1}, {"is_machine_open": True}, id="a machine, by another name"),
        pytest.param({"Apple Privacy Open": False}, {"is_machine_open": False}, id="no privacy proxy"),
        pytest.param({"machine_open": False, "Apple Privacy Open": True}, {"is_machine_open": True}, id="a proxy"),
        pytest.param({"machine_open": True, "Machine Open": False}, {"is_machine_open": True}, id="a contradiction"),
        pytest.param({"Bot Click": True}, {"is_bot_click": True, "is_machine_open": None}, id="a bot"),
        pytest.param({"Bot Click": "False"}, {"is_bot_click": False}, id="a boolean that is text"),
        pytest.param({"Bot Click": 1, "machine_open": "x"}, {"is_bot_click": None, "is_machine_open": None}, id="odd"),
    ],
)
def test_properties_of_an_event_become_columns(properties: object, expected: Mapping[str, object]) -> None:
    """A property can contain anything. A string stays unchanged, and other values are JSON with every digit."""
    body = json.dumps(page(event(properties=properties)), separators=(",", ":")).encode()
    it, _ = source(body)
    events = next(it.events(FULL_READ)).events
    assert {name: getattr(events, name) for name in expected} == {name: [text] for name, text in expected.items()}


@pytest.mark.parametrize(
    ("related", "expected"),
    [
        pytest.param({"profile": "p1", "metric": "m1"}, ("p1", "m1", "a@example.com"), id="both"),
        pytest.param({"profile": None, "metric": None}, (None, None, None), id="null"),
        pytest.param({}, (None, None, None), id="missing"),
        pytest.param({"profile": "p2", "metric": "m1"}, ("p2", "m1", None), id="a profile that is not included"),
    ],
)
def test_an_event_has_its_person_and_metric(related: dict[str, Any], expected: tuple[str | None, ...]) -> None:
    """The email address is that of the included profile."""
    it, _ = source(page(event(**related), included=[{"id": "p1", "attributes": {"email": "a@example.com"}}]))
    events = next(it.events(FULL_READ)).events
    assert (*events.profile_id, *events.metric_id, *events.email) == expected


def test_windows_of_events_are_exact() -> None:
    """The request begins a second early, and events outside the window are dropped."""
    window = Window(JULY, datetime(2026, 7, 2, tzinfo=UTC))
    around = [SECOND - 1, SECOND, SECOND + 86399, SECOND + 86400]
    it, answers = source(page(*(event(str(at), at) for at in around)))
    events = next(it.events(window, "m1")).events
    assert events.at == [SECOND, SECOND + 86399]
    _, query, scopes = answers.requests[0]
    assert query is not None and scopes == "events:read"
    assert query["filter"] == (
        'equals(metric_id,"m1"),greater-than(datetime,2026-06-30T23:59:59Z),less-than(datetime,2026-07-02T00:00:00Z)'
    )


def test_ids_are_quoted_in_filters() -> None:
    """An odd id does not make the API refuse the request for fifty people."""
    it, answers = source(page())
    list(it.people(["p1", 'a"b\\']))
    query = answers.requests[0][1]
    assert query is not None and query["filter"] == r'any(id,["p1","a\"b\\"])'


def test_a_full_read_has_no_filter() -> None:
    """The API refuses an empty filter."""
    it, answers = source(page())
    list(it.events(FULL_READ))
    assert answers.requests[0][1] is not None and "filter" not in answers.requests[0][1]


def test_a_person_is_read_once_until_changed() -> None:
    """A repeated record adds only the address to events. A changed record is a new row."""
    one, changed = ({"id": "p1", "attributes": {"email": f"{name}@example.com"}} for name in "ab")
    pages = [page(event(profile="p1"), included=[each], link=f"{at}") for at, each in enumerate((one, one, changed))]
    it, _ = source(*pages, page())
    read = list(it.events(FULL_READ, known_people=PendingPeople(PeopleCache())))
    assert [[person.email for person in each.profiles] for each in read] == [
        ["a@example.com"],
        [],
        ["b@example.com"],
        [],
    ]
    assert [each.events.email for each in read[:3]] == [["a@example.com"], ["a@example.com"], ["b@example.com"]]


@pytest.mark.parametrize("bad_event", [b"", b'{"id":5,"attributes":null},'], ids=["good page", "page with a bad event"])
@pytest.mark.parametrize(
    "person",
    [
        pytest.param(b'{"id":"p1","attributes":{"created":"never"}}', id="unreadable time"),
        pytest.param(b'{"attributes":{}}', id="no id"),
        pytest.param(b'{"id":"p1","attributes":{"email":"\\ud800"}}', id="lone surrogate"),
        pytest.param(b'{"id":"p1","attributes":{"email":"\xff"}}', id="not UTF-8"),
    ],
)
def test_a_bad_person_is_rejected_without_the_events(person: bytes, bad_event: bytes) -> None:
    """The event keeps the id of its person."""
    good_event = json.dumps(event(profile="p1")).encode()
    it, _ = source(b'{"data":[' + bad_event + good_event + b'],"included":[' + person + b"]}")
    (read,) = it.events(FULL_READ)
    assert (read.events.id, read.events.profile_id, read.events.email) == (["e1"], ["p1"], [None])
    assert list(read.profiles) == []
    assert len(read.rejects) == 1 + bool(bad_event)


def test_all_fields_of_a_person_are_read() -> None:
    """Coordinates can be text."""
    attributes = {
        "email": "zoë@example.com",
        "phone_number": "+1",
        "first_name": "Zoë",
        "last_name": "O",
        "external_id": "crm-1",
        "organization": "Ropes",
        "title": "Dr",
        "locale": "en-IE",
        "last_event_date": "2026-07-01T00:00:00Z",
        "updated": "2026-07-01T00:00:00Z",
        "created": "2026-07-01T00:00:00Z",
        "location": {
            **{name: name for name in ("address1", "address2", "city", "country", "region", "zip", "timezone")},
            "latitude": "51.9",
            "longitude": -8.5,
        },
        "properties": {"$source": "checkout", "Size": "L", "Visits": 3, "Tags": ["a"], "None": None, "": True},
        "subscriptions": {
            "email": {
                "marketing": {
                    "consent": "SUBSCRIBED",
                    "consent_timestamp": "2026-07-01T00:00:00Z",
                    "list_suppressions": [{"list_id": "L1", "timestamp": None, "reason": "UNSUBSCRIBE"}],
                    "can_receive_email_marketing": True,
                    "method": "FORM",
                    "last_updated": "2026-07-01 00:00:00+00:00",
                    "double_optin": True,
                }
            },
            "sms": {"marketing": {"consent": "SUBSCRIBED", "can_receive_sms_marketing": "odd", "last_updated": 1}},
            "mobile_push": [],
            "whatsapp": None,
        },
    }
    it, _ = source(page({"id": "p1", "attributes": attributes}))
    (row,) = next(it.profiles(FULL_READ)).rows
    properties = {"Size": "L", "Visits": "3", "Tags": '["a"]', "None": None, "": "true"}
    assert row == Profile(
        "p1", "zoë@example.com", "timezone", "Zoë", "O", "checkout", "address1", "address2", "city", "region", "zip",
        "country", "+1", -8.5, 51.9, JULY, properties, "SUBSCRIBED", JULY,
        [Suppression("L1", "p1", None, "UNSUBSCRIBE")], "crm-1", "Ropes", "Dr", "en-IE", JULY, JULY,
        [Consent("email", "SUBSCRIBED", True, "FORM", None, JULY, JULY, True), Consent("sms", "SUBSCRIBED")],
    )  # fmt: skip


@pytest.mark.parametrize("empty", [None, {}, {"email": None}, {"email": {"marketing": None}}])
def test_a_person_with_only_an_id_is_read(empty: object) -> None:
    """Everything except the id can be null or missing. Without subscriptions, the suppressions are unknown."""
    it, _ = source(page({"id": "p1", "attributes": {"subscriptions": empty, "properties": None, "location": None}}))
    (row,) = next(it.profiles(FULL_READ)).rows
    assert (row.email, row.properties, row.consent, row.list_suppressions) == (
        None,
        {},
        None,
        None if empty is None else [],
    )


def test_exclusions_are_read_by_reason() -> None:
    """One request is sent for each reason, and a person without an address is rejected."""
    suppressed = {
        "email": {"marketing": {"suppression": [{"reason": "HARD_BOUNCE", "timestamp": "2026-07-01T00:00:00Z"}]}}
    }
    people = [("p1", "a@b.c"), ("p2", None)]
    rows = [{"id": each, "attributes": {"email": email, "subscriptions": suppressed}} for each, email in people]
    it, answers = source(page(*rows))
    read = list(it.exclusions())
    assert len(read) == len(answers.requests) == len(SUPPRESSION_REASONS)
    assert list(read[0].rows) == [Exclusion("a@b.c", "HARD_BOUNCE", JULY, "p1")]
    assert ["p2" in reject.raw for reject in read[0].rejects] == [True]


@pytest.mark.parametrize(
    "subscriptions",
    [
        pytest.param(None, id="null subscriptions"),
        pytest.param({}, id="no channel"),
        pytest.param({"email": {"marketing": None}}, id="null marketing"),
        pytest.param({"email": {"marketing": {"suppression": None}}}, id="null suppression"),
        pytest.param({"email": {"marketing": {"suppression": []}}}, id="no suppression"),
    ],
)
def test_a_suppressed_person_whose_suppression_is_left_out_has_the_requested_reason(subscriptions: object) -> None:
    """The request asks for suppressed people only, so that everyone on its pages is excluded."""
    it, _ = source(page({"id": "p1", "attributes": {"email": "a@b.c", "subscriptions": subscriptions}}))
    [read] = it.exclusions("HARD_BOUNCE")
    assert (list(read.rows), list(read.rejects)) == ([Exclusion("a@b.c", "HARD_BOUNCE", None, "p1")], [])


def test_ids_are_quoted_in_paths() -> None:
    """Anyone who sends events can choose their IDs."""
    relationships = {"profile": {"data": {"id": "p1"}}}
    it, answers = source({"data": {"id": "e", "attributes": {"timestamp": 1}, "relationships": relationships}})
    assert it.event_owner("a/b?c#d e") == "p1"
    assert answers.requests[0][0] == "api/events/a%2Fb%3Fc%23d%20e"


def test_members_of_a_list_are_read_with_their_joining_time() -> None:
    it, answers = source(page({"id": "p1", "attributes": {"joined_group_at": "2026-07-01T00:00:00Z"}}))
    assert list(next(it.memberships("L1", FULL_READ)).rows) == [Membership("L1", "p1", JULY)]
    assert answers.requests[0][0] == "api/lists/L1/profiles"


def _read(it: CurrentSource, kind: str) -> Iterator[Page[Any] | MembershipPage]:
    yield from it.profiles(FULL_READ) if kind == "profiles" else it.memberships("L1", FULL_READ)


def reached_by(kind: str, *pages: list[str | None]) -> list[datetime | None]:
    """Return `reached` of pages whose people or list members have these cursor times."""
    field = {"profiles": "updated", "memberships": "joined_group_at"}[kind]
    records = [[{"id": "p1", "attributes": {field: time}} for time in each] for each in pages]
    it, _ = source(*(page(*each, link=f"{at}") for at, each in enumerate(records)), page())
    return [each.reached for each in _read(it, kind)][:-1]


T1, T2, T3 = (f"2026-07-01T00:00:0{second}Z" for second in (1, 2, 3))
ONE, TWO, THREE = (JULY + timedelta(seconds=second) for second in (1, 2, 3))


@pytest.mark.parametrize("kind", ["profiles", "memberships"])
@pytest.mark.parametrize(
    ("pages", "reached"),
    [
        pytest.param([[T1, T2], [T2, T3]], [TWO, THREE], id="in order"),
        pytest.param([[T1, T1], [T1]], [ONE, ONE], id="all at the same time"),
        pytest.param([[], [T1], []], [None, ONE, ONE], id="pages without rows"),
        pytest.param([["2026-07-01T02:00:01+02:00"], ["2026-07-01T00:00:02"]], [ONE, TWO], id="other offsets"),
        pytest.param([[T2, T1], [T2, T3]], [None, None], id="not in order within a page"),
        pytest.param([[T2], [T1], [T3]], [TWO, None, None], id="not in order between pages"),
        pytest.param([[T1], [T2, None], [T3]], [ONE, None, None], id="a time is missing"),
        pytest.param([["0001-01-01T00:00:00Z"], [T1]], [None, ONE], id="the first time of the calendar"),
    ],
)
def test_pages_in_order_say_how_far_they_have_reached(
    kind: str, pages: list[list[str | None]], reached: list[datetime | None]
) -> None:
    """`reached` is the last time of a page. Once the order is violated, it is unknown for the rest of the read."""
    assert reached_by(kind, *pages) == reached


@pytest.mark.parametrize("kind", ["profiles", "memberships"])
def test_a_rejected_record_does_not_hide_the_progress(kind: str) -> None:
    """The other records of the page show how far the read has come."""
    field = {"profiles": "updated", "memberships": "joined_group_at"}[kind]
    it, _ = source(page({"id": "p1", "attributes": {field: T1}}, {"id": "p2", "attributes": {field: "never"}}))
    read = next(_read(it, kind))
    assert (read.reached, len(read.rows), len(read.rejects)) == (ONE, 1, 1)


def test_reading_resumes_from_what_was_reached() -> None:
    """The request includes the time itself: later rows of the same second may be on the next page."""
    it, answers = source(page())
    list(it.profiles(FULL_READ.resumed_at(TWO)))
    list(it.memberships("L1", OpenWindow(JULY).resumed_at(TWO)))
    assert [(query or {})["filter"] for _, query, _ in answers.requests] == [
        "greater-than(updated,2026-07-01T00:00:01Z)",
        "greater-than(joined_group_at,2026-07-01T00:00:01Z)",
    ]


def test_people_are_sorted_and_requested_with_the_time_of_their_change() -> None:
    """Without its cursor, the progress of a read would be unknown."""
    it, answers = source(page())
    list(it.profiles(FULL_READ))
    query = answers.requests[0][1]
    assert query is not None and query["sort"] == "updated"
    assert "updated" in query["fields[profile]"].split(",")


def test_a_deleted_list_is_not_an_empty_one() -> None:
    """A list that is deleted during a run must not look like a list without members."""
    it, _ = source(NotFound())
    with pytest.raises(NotFound):
        list(it.memberships("L1", FULL_READ))


def aggregate(dates: list[str], *counts: list[int]) -> bytes:
    """Return an answer of the endpoint for aggregates, with one row for each list of counts."""
    data = [{"dimensions": [], "measurements": {"count": each}} for each in counts]
    return json.dumps({"data": {"attributes": {"dates": dates, "data": data}}}).encode()


def test_counts_of_an_aggregate() -> None:
    """Hours without events are left out, and rows are added up."""
    dates = ["2026-07-01T00:00:00+00:00", "2026-07-01T01:00:00+00:00", "2026-07-01T02:00:00+00:00"]
    found = counts(aggregate(dates, [1, 0, 2], [3, 0, 0]), JULY, JULY + timedelta(hours=3))
    hour = timedelta(hours=1)
    assert found == [Count(JULY, JULY + hour, 4), Count(JULY + 2 * hour, JULY + 3 * hour, 2)]
    assert counts(aggregate(dates), JULY, JULY + timedelta(hours=3)) == []


@pytest.mark.parametrize("numbers", [[1, 2], [1, 2, 3, 4], []])
def test_an_aggregate_with_another_number_of_counts_than_dates_is_not_one(numbers: list[int]) -> None:
    """Otherwise counts would be those of other hours, or missing, without notice."""
    dates = ["2026-07-01T00:00:00+00:00", "2026-07-01T01:00:00+00:00", "2026-07-01T02:00:00+00:00"]
    with pytest.raises(Garbled, match="not an aggregate"):
        counts(aggregate(dates, numbers), JULY, JULY + timedelta(hours=3))


@pytest.mark.parametrize(
    ("pages", "expected"), [([page({"id": "A1"})], "A1"), ([page()], None), ([page({"id": ""})], None)]
)
def test_the_account_is_read(pages: list[object], expected: str | None) -> None:
    """It is None if the API does not return a valid id."""
    it, _ = source(*pages)
    account = it.account()
    assert (account and account.id) == expected


def test_a_page_that_takes_too_long_is_requested_with_fewer_rows() -> None:
    """The first page is requested with another parameter, later ones with a changed link."""
    next_page = {"links": {"next": "https://x/api/events?page%5Bcursor%5D=c&page%5Bsize%5D=250"}, "data": []}
    it, answers = source(TooMuch(), next_page, TooMuch(), {"data": []})
    assert len(list(it.events(FULL_READ))) == 2
    sizes = [(path, (parameters or {}).get("page[size]")) for path, parameters, _ in answers.requests]
    assert sizes == [
        ("api/events", "1000"),
        ("api/events", "250"),
        ("https://x/api/events?page%5Bcursor%5D=c&page%5Bsize%5D=250", None),
        ("https://x/api/events?page%5Bcursor%5D=c&page%5Bsize%5D=62", None),
    ]


def test_the_smallest_page_is_not_reduced_further() -> None:
    it, answers = source(TooMuch("no response within 5 seconds"))
    with pytest.raises(TooMuch):
        list(it.events(FULL_READ))
    assert [(parameters or {})["page[size]"] for _, parameters, _ in answers.requests] == [
        "1000",
        "250",
        "62",
        "15",
        "10",
    ]


def test_pages_grow_again() -> None:
    """A larger page is tried after some good ones, and after twice as many if it fails again."""
    link = "https://x/api/events?page%5Bcursor%5D={}&page%5Bsize%5D={}"
    sizes = [*[250] * 16, 1000, *[250] * 32]
    pages = [{"links": {"next": link.format(number, size)}, "data": []} for number, size in enumerate(sizes)]
    it, answers = source(TooMuch(), *pages[:17], TooMuch(), *pages[17:], {"data": []})
    assert len(list(it.events(FULL_READ))) == len(pages) + 1
    requested = [
        int((query or {}).get("page[size]") or path.rpartition("D=")[2]) for path, query, _ in answers.requests
    ]
    assert requested == [1000, *[250] * 16, 1000, 1000, *[250] * 32, 1000]


def requested_sizes(answers: Answers) -> list[str]:
    """Return the page sizes of first pages."""
    return [parameters["page[size]"] for _, parameters, _ in answers.requests if parameters]


def test_a_page_size_that_is_refused_leads_to_a_smaller_one() -> None:
    """The size that is accepted holds for later reads of the endpoint, and for the plan of a backfill."""
    it, answers = source(PageTooLarge(), PageTooLarge(), page())
    assert it.events_per_page == 1000
    list(it.events(FULL_READ))
    list(it.events(FULL_READ))
    assert requested_sizes(answers) == ["1000", "500", "200", "200"]
    assert it.events_per_page == 200


def test_a_later_page_whose_size_is_refused_is_requested_again() -> None:
    link = "https://x/api/events?page%5Bcursor%5D=c&page%5Bsize%5D={}"
    it, answers = source(page(link=link.format(1000)), PageTooLarge(), page())
    assert len(list(it.events(FULL_READ))) == 2
    assert [path for path, _, _ in answers.requests] == ["api/events", link.format(1000), link.format(500)]


def test_pages_do_not_grow_beyond_the_accepted_size() -> None:
    link = "https://x/api/profiles?page%5Bcursor%5D={}&page%5Bsize%5D=50"
    pages = [{"links": {"next": link.format(number)}, "data": []} for number in range(40)]
    it, answers = source(PageTooLarge(), *pages, {"data": []})
    list(it.profiles(FULL_READ))
    assert requested_sizes(answers) == ["100", "50"]
    assert all(path.endswith("=50") for path, parameters, _ in answers.requests if not parameters)


def test_a_refusal_of_every_page_size_is_an_ordinary_one() -> None:
    """Nothing is remembered of it."""
    it, answers = source(PageTooLarge("No page size."))
    with pytest.raises(Refused, match=r"^No page size\.$"):
        list(it.lists())
    assert requested_sizes(answers) == ["10", "5", "1"]
    with pytest.raises(Refused):
        list(it.metrics())
    assert it.events_per_page == 1000


def test_the_page_size_of_events_can_be_set() -> None:
    answers = Answers(page())
    it = CurrentSource(cast(Client, answers), PageSizes(), 300)
    list(it.events(FULL_READ))
    list(it.profiles(FULL_READ))
    assert requested_sizes(answers) == ["300", "100"]
    assert it.events_per_page == 300


@pytest.mark.parametrize(
    ("read", "parts", "name"),
    [
        pytest.param(CurrentSource.campaigns, 6, "archived email", id="campaigns"),
        pytest.param(CurrentSource.flows, 2, "archived flows", id="flows"),
        pytest.param(CurrentSource.exclusions, 5, "INVALID_EMAIL", id="exclusions"),
    ],
)
def test_a_part_that_is_refused_does_not_stop_the_others(
    read: Callable[[CurrentSource], Iterator[Page[Any]]], parts: int, name: str
) -> None:
    """The last page names the part. If all parts are refused, the read fails."""
    it, answers = source(page(), Refused("Odd."), page())
    pages = list(read(it))
    assert len(answers.requests) == parts
    assert [each.incomplete is None for each in pages] == [True] * (parts - 1) + [False]
    assert pages[-1].incomplete and (pages[-1].incomplete.parts, pages[-1].incomplete.reason) == ((name,), "Odd.")
    it, answers = source(Refused("Odd."))
    with pytest.raises(Refused, match=r"^Odd\.$"):
        list(read(it))
    assert len(answers.requests) == parts
