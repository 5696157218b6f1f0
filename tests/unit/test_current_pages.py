"""The current dialect, from bytes to rows. The client is a table of answers."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from klaviyo_pg.errors import BadAnswer, NotFound, TooMuch
from klaviyo_pg.klaviyo.current import CHANNELS, SUPPRESSION_REASONS, CurrentSource
from klaviyo_pg.klaviyo.http import Client, Endpoint, Traffic
from klaviyo_pg.klaviyo.known import KnownPeople
from klaviyo_pg.klaviyo.rows import Campaign, Exclusion, Membership, Metric, Profile
from klaviyo_pg.windows import Window

HOST = "https://a.klaviyo.com"
EVERYTHING = Window(None, None)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
SECOND = int(JULY.timestamp())


class Answers:
    """Answers in turn, the last one again and again; notes what was asked for."""

    traffic = Traffic()

    def __init__(self, *pages: object) -> None:
        self._pages = list(pages)
        self.asked: list[tuple[str, Mapping[str, str] | None, str]] = []

    def get(
        self,
        path: str,
        parameters: Mapping[str, str] | None = None,
        endpoint: Endpoint | None = None,
        read: Callable[[bytes], Any] = bytes,
        can_be_less: bool = False,
    ) -> Any:
        self.asked.append((path, parameters, endpoint.scopes if endpoint else ""))
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
    """An event; `related` names its profile and metric, None for a relationship without anybody in it."""
    relationships = {name: {"data": to and {"id": to}} for name, to in related.items()}
    attributes = {"timestamp": second, "event_properties": properties}
    return {"id": event_id, "attributes": attributes, "relationships": relationships}


def test_pages_are_followed_to_the_end() -> None:
    """The first request has the parameters, each link is followed as it is, and the rows come page by page."""
    metric = {"id": "m1", "attributes": {"name": "Opened Email"}}
    it, answers = source(page(metric, link=f"{HOST}/api/metrics?page=2"), page(metric | {"id": "m2"}))
    assert [[row.id for row in found.rows] for found in it.metrics()] == [["m1"], ["m2"]]
    assert [(path, bool(query)) for path, query, _ in answers.asked] == [
        ("api/metrics", True),
        (f"{HOST}/api/metrics?page=2", False),
    ]


@pytest.mark.parametrize("links", [["a", "a"], ["a", "b", "a"], ["api/metrics"]])
def test_a_page_that_has_been_read_before_is_told(links: list[str]) -> None:
    """A cursor that leads in a circle would never end."""
    it, _ = source(*(page(link=link) for link in links), page())
    with pytest.raises(BadAnswer, match=r"^The API answered with a page of api/metrics that has been read before\.$"):
        list(it.metrics())


def test_every_field_of_a_metric() -> None:
    """Times in UTC; a category that is an object as JSON."""
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
    assert [found.rows for found in it.metrics()] == [[Metric("m1", "N", '{"a":1}', JULY, JULY)]]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("0001-01-01T00:00:00+05:00", datetime(1, 1, 1, tzinfo=UTC), id="before the year 1 in UTC"),
        pytest.param("9999-12-31T23:00:00-05:00", datetime(9999, 12, 31, 23, tzinfo=UTC), id="after 9999 in UTC"),
    ],
)
def test_times_at_the_ends_of_the_calendar(text: str, moment: datetime) -> None:
    """No run breaks off for a time that only an offset puts outside."""
    it, _ = source(page({"id": "m1", "attributes": {"created": text}}))
    assert next(it.metrics()).rows[0].created == moment


def test_campaigns_are_read_by_channel_archived_ones_too() -> None:
    """The API lists neither together."""
    it, answers = source(page())
    list(it.campaigns())
    filters = [query["filter"] for _, query, _ in answers.asked if query]
    assert filters == [
        f"equals(messages.channel,'{channel}'),equals(archived,{archived})"
        for channel in CHANNELS
        for archived in ("false", "true")
    ]


def test_every_field_of_a_campaign() -> None:
    """Subject and sender are those of its first message that has any."""
    row = {
        "id": "c1",
        "attributes": {
            "name": "Spring",
            "status": "Sent",
            "audiences": {"included": ["L1", "S1"], "excluded": ["L2"]},
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
    assert list(next(it.campaigns()).rows) == [
        Campaign(
            "c1", "Spring", "L1", "s@example.com", "Shop", "Hi", "Sent", JULY, "email", JULY, JULY, ["L1", "S1"], ["L2"]
        )
    ]


def test_a_bare_campaign() -> None:
    """A draft has neither audiences nor messages."""
    it, _ = source(page({"id": "c1", "attributes": {"audiences": None}}))
    (row,) = next(it.campaigns()).rows
    assert (row.list_id, row.subject, list(row.included), list(row.excluded)) == (None, None, [], [])


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        pytest.param(None, {"properties": "null"}, id="null"),
        pytest.param([1, "a"], {"properties": '[1,"a"]'}, id="a list"),
        pytest.param({}, {"properties": "{}"}, id="empty"),
        pytest.param({"$value": 2**60 + 1}, {"value": "1152921504606846977"}, id="a large number"),
        pytest.param({"$value": "12.50"}, {"value": "12.50"}, id="a number as text"),
        pytest.param({"$value": True}, {"value": "true"}, id="a boolean"),
        pytest.param({"$value": {"a": 1}}, {"value": '{"a":1}'}, id="an object"),
        pytest.param({"$message": 5, "$flow": "f1"}, {"message": "5", "flow": "f1"}, id="ids"),
        pytest.param(
            {"Campaign Name": "N", "Subject": "S", "List": "L"}, {"subject": "S", "list_name": "L"}, id="names"
        ),
        pytest.param({"Subject": ["a"]}, {"subject": '["a"]'}, id="a subject that is a list"),
    ],
)
def test_what_the_properties_of_an_event_say(properties: object, expected: Mapping[str, str]) -> None:
    """Anything may stand anywhere; a string is text as it is, all else JSON, with every digit."""
    body = json.dumps(page(event(properties=properties)), separators=(",", ":")).encode()
    it, _ = source(body)
    found = next(it.events(EVERYTHING)).events
    assert {name: getattr(found, name) for name in expected} == {name: [text] for name, text in expected.items()}


@pytest.mark.parametrize(
    ("related", "expected"),
    [
        pytest.param({"profile": "p1", "metric": "m1"}, ("p1", "m1", "a@example.com"), id="both"),
        pytest.param({"profile": None, "metric": None}, (None, None, None), id="null"),
        pytest.param({}, (None, None, None), id="not named"),
        pytest.param({"profile": "p2", "metric": "m1"}, ("p2", "m1", None), id="a profile that is not included"),
    ],
)
def test_whose_event_it_is(related: Mapping[str, str | None], expected: tuple[str | None, ...]) -> None:
    """Profile, metric and address, where they are known."""
    it, _ = source(page(event(**related), included=[{"id": "p1", "attributes": {"email": "a@example.com"}}]))
    found = next(it.events(EVERYTHING)).events
    assert (*found.profile_id, *found.metric_id, *found.email) == expected


def test_windows_are_kept_whatever_the_api_makes_of_them() -> None:
    """A second more is asked for, and what falls outside is left to the window beside."""
    window = Window(JULY, datetime(2026, 7, 2, tzinfo=UTC))
    around = [SECOND - 1, SECOND, SECOND + 86399, SECOND + 86400]
    it, answers = source(page(*(event(str(at), at) for at in around)))
    found = next(it.events(window, "m1")).events
    assert found.at == [SECOND, SECOND + 86399]
    _, query, scopes = answers.asked[0]
    assert query is not None and scopes == "events:read"
    assert query["filter"] == (
        'equals(metric_id,"m1"),greater-than(datetime,2026-06-30T23:59:59Z),less-than(datetime,2026-07-02T00:00:00Z)'
    )


def test_ids_are_quoted_in_filters() -> None:
    """One odd id on a page of events does not make the API refuse the question for fifty people."""
    it, answers = source(page())
    list(it.people(["p1", 'a"b\\']))
    query = answers.asked[0][1]
    assert query is not None and query["filter"] == r'any(id,["p1","a\"b\\"])'


def test_no_filter_where_there_is_no_bound() -> None:
    """An empty filter is refused by the API, so none is sent."""
    it, answers = source(page())
    list(it.events(EVERYTHING))
    assert answers.asked[0][1] is not None and "filter" not in answers.asked[0][1]


def test_a_person_is_given_once_until_changed() -> None:
    """The same record on a later page gives its address, and no row; a changed one gives a row again."""
    one, changed = ({"id": "p1", "attributes": {"email": f"{name}@example.com"}} for name in "ab")
    pages = [page(event(profile="p1"), included=[each], link=f"{at}") for at, each in enumerate((one, one, changed))]
    it, _ = source(*pages, page())
    read = list(it.events(EVERYTHING, known=KnownPeople()))
    assert [[person.email for person in found.profiles] for found in read] == [
        ["a@example.com"],
        [],
        ["b@example.com"],
        [],
    ]
    assert [found.events.email for found in read[:3]] == [["a@example.com"], ["a@example.com"], ["b@example.com"]]


@pytest.mark.parametrize("beside", [b"", b'{"id":5,"attributes":null},'], ids=["good page", "page with a bad event"])
@pytest.mark.parametrize(
    "person",
    [
        pytest.param(b'{"id":"p1","attributes":{"created":"never"}}', id="unreadable time"),
        pytest.param(b'{"attributes":{}}', id="no id"),
        pytest.param(b'{"id":"p1","attributes":{"properties":{"a":"\\ud800"}}}', id="lone surrogate"),
        pytest.param(b'{"id":"p1","attributes":{"properties":{"a":"\xff"}}}', id="no UTF-8"),
    ],
)
def test_a_bad_person_is_set_aside_and_the_events_stay(person: bytes, beside: bytes) -> None:
    """The person is rejected; the event keeps whose it is."""
    told = json.dumps(event(profile="p1")).encode()
    it, _ = source(b'{"data":[' + beside + told + b'],"included":[' + person + b"]}")
    (found,) = it.events(EVERYTHING)
    assert (found.events.id, found.events.profile_id, found.events.email) == (["e1"], ["p1"], [None])
    assert list(found.profiles) == []
    assert len(found.rejects) == 1 + bool(beside)


def test_every_field_of_a_person() -> None:
    """Location, consent, properties and list suppressions, each in its place; numbers also where they came as text."""
    said = {
        "email": "zoë@example.com",
        "phone_number": "+1",
        "first_name": "Zoë",
        "last_name": "O",
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
                    "list_suppressions": [{"list_id": "L1", "timestamp": None}],
                }
            }
        },
    }
    it, _ = source(page({"id": "p1", "attributes": said}))
    (row,) = next(it.profiles(EVERYTHING)).rows
    properties = [("Size", "L"), ("Visits", "3"), ("Tags", '["a"]'), ("None", None), ("", "true")]
    assert row == Profile(
        "p1", "zoë@example.com", "timezone", "Zoë", "O", "checkout", "address1", "address2", "city", "region", "zip",
        "country", "+1", -8.5, 51.9, JULY, properties, "SUBSCRIBED", JULY, [("L1", None)],
    )  # fmt: skip


@pytest.mark.parametrize("empty", [None, {}, {"email": None}, {"email": {"marketing": None}}])
def test_a_person_of_whom_nothing_is_known(empty: object) -> None:
    """Everything but the id may be null or missing."""
    it, _ = source(page({"id": "p1", "attributes": {"subscriptions": empty, "properties": None, "location": None}}))
    (row,) = next(it.profiles(EVERYTHING)).rows
    assert (row.email, list(row.properties), row.consent, list(row.list_suppressions)) == (None, [], None, [])


def test_exclusions_are_read_by_reason() -> None:
    """All reasons are asked for; one without an address is set aside."""
    suppressed = {
        "email": {"marketing": {"suppression": [{"reason": "HARD_BOUNCE", "timestamp": "2026-07-01T00:00:00Z"}]}}
    }
    people = [("p1", "a@b.c"), ("p2", None)]
    rows = [{"id": each, "attributes": {"email": email, "subscriptions": suppressed}} for each, email in people]
    it, answers = source(page(*rows))
    found = list(it.exclusions())
    assert len(found) == len(answers.asked) == len(SUPPRESSION_REASONS)
    assert list(found[0].rows) == [Exclusion("a@b.c", "HARD_BOUNCE", JULY)]
    assert ["p2" in reject.raw for reject in found[0].rejects] == [True]


def test_memberships_of_a_list() -> None:
    """Who is on the list, since when."""
    it, answers = source(page({"id": "p1", "attributes": {"joined_group_at": "2026-07-01T00:00:00Z"}}))
    assert list(next(it.memberships("L1", EVERYTHING)).rows) == [Membership("L1", "p1", JULY)]
    assert answers.asked[0][0] == "api/lists/L1/profiles"


def test_a_list_that_is_gone_is_told_from_an_empty_one() -> None:
    """It may be deleted while a run is under way; that is no word on its members."""
    it, _ = source(NotFound())
    with pytest.raises(NotFound):
        list(it.memberships("L1", EVERYTHING))


@pytest.mark.parametrize(
    ("pages", "expected"), [([page({"id": "A1"})], "A1"), ([page()], None), ([page({"id": ""})], None)]
)
def test_account_id(pages: list[object], expected: str | None) -> None:
    """The account's own id, where the API tells it."""
    it, _ = source(*pages)
    assert it.account_id() == expected


def test_a_page_that_takes_too_long_is_asked_for_again_with_fewer_rows() -> None:
    """The first one by its parameter, a later one by changing the link; rows come once."""
    next_page = {"links": {"next": "https://x/api/events?page%5Bcursor%5D=c&page%5Bsize%5D=250"}, "data": []}
    it, answers = source(TooMuch(), next_page, TooMuch(), {"data": []})
    assert len(list(it.events(Window(None, None)))) == 2
    sizes = [(path, (parameters or {}).get("page[size]")) for path, parameters, _ in answers.asked]
    assert sizes == [
        ("api/events", "1000"),
        ("api/events", "250"),
        ("https://x/api/events?page%5Bcursor%5D=c&page%5Bsize%5D=250", None),
        ("https://x/api/events?page%5Bcursor%5D=c&page%5Bsize%5D=62", None),
    ]


def test_a_page_that_takes_too_long_at_its_smallest_is_told() -> None:
    """There is an end to asking for less."""
    it, answers = source(TooMuch("no answer within 5 seconds"))
    with pytest.raises(TooMuch):
        list(it.events(Window(None, None)))
    assert [(parameters or {})["page[size]"] for _, parameters, _ in answers.asked] == ["1000", "250", "62", "15", "10"]


def test_small_pages_do_not_last() -> None:
    """After some good pages a larger one is tried; after twice as many where that was too much again."""
    link = "https://x/api/events?page%5Bcursor%5D={}&page%5Bsize%5D={}"
    sizes = [*[250] * 16, 1000, *[250] * 32]
    pages = [{"links": {"next": link.format(number, size)}, "data": []} for number, size in enumerate(sizes)]
    it, answers = source(TooMuch(), *pages[:17], TooMuch(), *pages[17:], {"data": []})
    assert len(list(it.events(Window(None, None)))) == len(pages) + 1
    asked = [int((given or {}).get("page[size]") or path.rpartition("D=")[2]) for path, given, _ in answers.asked]
    assert asked == [1000, *[250] * 16, 1000, 1000, *[250] * 32, 1000]
