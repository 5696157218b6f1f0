"""Pages with one oddity each: what exactly becomes of it."""

import json
from datetime import UTC, datetime

import pytest

from klaviyo_pg.errors import BadAnswer
from klaviyo_pg.klaviyo.rows import Beginning
from tests.any_page import ALWAYS, DIALECTS, JULY, SECOND, deep, event_page, page, source, stored_events

BESIDE = (b'{"id":"first","attributes":{"timestamp":5}}', b'{"id":"last","attributes":{"timestamp":6}}')
SET_ASIDE = [
    pytest.param(deep(1_000), id="a thousand levels"),
    pytest.param(deep(10_000), id="ten thousand levels"),
    pytest.param(deep(200_000), id="two hundred thousand levels"),
    pytest.param(b'{"a":"\xff"}', id="no UTF-8"),
    pytest.param(b'"\xed\xa0\x80"', id="a surrogate as bytes"),
    pytest.param(rb'"\ud800"', id="a surrogate as escape"),
    pytest.param(b"NaN", id="NaN"),
    pytest.param(b"[-Infinity]", id="Infinity"),
    pytest.param(b'{"a":"\x00"}', id="a raw NUL"),
    pytest.param(b'"' + b"x" * 5_000_000 + b'\xff"', id="no UTF-8 behind 5 MB"),
]


@pytest.mark.parametrize("properties", SET_ASIDE)
def test_one_event_cannot_be_read(properties: bytes) -> None:
    """It is one reject, with all its bytes; the events beside it and the link are read."""
    record = b'{"id":"odd","attributes":{"timestamp":5,"event_properties":' + properties + b"}}"
    found = event_page("current", page([BESIDE[0], record, BESIDE[1]], b',"links":{"next":"more"}'))
    assert found.events.id == ["first", "last"]
    assert [reject.raw for reject in found.rejects] == [record.decode("utf-8", "backslashreplace")]


@pytest.mark.parametrize(
    ("properties", "kept"),
    [
        pytest.param(b'{"a":1,"a":2}', b'{"a":1,"a":2}', id="a name twice"),
        pytest.param(b'"' + b"x" * 5_000_000 + b'"', b'"' + b"x" * 5_000_000 + b'"', id="5 MB"),
        pytest.param(deep(700), deep(700), id="700 levels"),
        pytest.param(b"[1e400]", b"[1e400]", id="a large number"),
        pytest.param(rb'{"a":"\u0000"}', b'{"a":""}', id="an escaped NUL"),
    ],
)
def test_an_odd_event_is_stored(properties: bytes, kept: bytes) -> None:
    """What Postgres' jsonb may take goes there, byte for byte but for NUL."""
    record = b'{"id":"odd","attributes":{"timestamp":5,"event_properties":' + properties + b"}}"
    stored, accounted = stored_events("current", page([*BESIDE, record]))
    frame = stored.frames[0][1]
    assert accounted == 3 and frame["properties"].to_list()[-1].encode() == kept


def test_a_number_that_is_too_large_hides_no_other_property() -> None:
    """The subject is a number that no float holds; message and flow are still known."""
    properties = b'{"$message":"c1","$flow":"f1","Subject":1e400,"$value":1' + b"0" * 5000 + b"}"
    (found,) = [
        event_page("current", page([b'{"id":"e","attributes":{"timestamp":5,"event_properties":%b}}' % properties]))
    ]
    events = found.events
    assert (events.message, events.flow, events.subject) == (["c1"], ["f1"], ["1e400"])


def test_an_id_with_a_nul_is_no_other_event() -> None:
    """Without its NUL it would overwrite the event that has the rest of the id."""
    records = [rb'{"id":"e\u0000","attributes":{"timestamp":5}}', b'{"id":"e","attributes":{"timestamp":5}}']
    found = event_page("current", page(records))
    assert found.events.id == ["e"] and "NUL" in found.rejects[0].reason


def test_of_two_events_with_one_id_the_last_stays() -> None:
    """Both were on the page; one row is stored."""
    records = [b'{"id":"e","attributes":{"timestamp":5}}', b'{"id":"e","attributes":{"timestamp":6}}']
    stored, accounted = stored_events("current", page(records))
    assert accounted == 2
    assert [at.timestamp() for at in stored.frames[0][1]["event_at"]] == [6]


@pytest.mark.parametrize("person", [b'{"id":null}', b'{"id":5}', b'{"id":""}', rb'{"id":"\u0000"}', b"{}", b"[]"])
def test_an_old_event_of_somebody_without_an_id(person: bytes) -> None:
    """The event is stored as nobody's; the person is set aside and is not called None."""
    found = event_page("legacy", page([b'{"id":"e","timestamp":5,"person":' + person + b"}"]))
    assert (found.events.id, found.events.profile_id, list(found.profiles)) == (["e"], [None], [])
    assert [reject.raw.encode() for reject in found.rejects] == [person]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_page_without_rows_is_followed(dialect: str) -> None:
    """The rows may stand on the page behind it."""
    first = {"current": b'{"data":[],"links":{"next":"https://x/2"}}', "legacy": b'{"data":[],"next":"2"}'}[dialect]
    last = {"current": b'{"id":"e","attributes":{"timestamp":5}}', "legacy": b'{"id":"e","timestamp":5}'}[dialect]
    answers = iter([first, page([last])])
    it = source(dialect, b"")
    for client in [value for value in vars(it).values()]:
        client.get = lambda *_, read, **__: read(next(answers))
    assert [found.events.id for found in it.events(ALWAYS)] == [[], ["e"]]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("metrics", "is_refused"),
    [(["m2", "m2"], True), (["m2", "m1"], False), ([None, None], False), ([None, "m2"], True), ([], False)],
)
def test_a_page_of_another_metric_is_refused(dialect: str, metrics: list[str | None], is_refused: bool) -> None:
    """An API that does not know the filter would be asked for everything once for each metric."""
    records = [
        {
            "id": f"e{at}",
            "timestamp": 5,
            "attributes": {"timestamp": 5},
            "statistic_id": metric,
            "relationships": {"metric": {"data": metric and {"id": metric}}},
        }
        for at, metric in enumerate(metrics)
    ]
    it = source(dialect, json.dumps({"data": records}).encode())
    if not is_refused:
        assert len(next(iter(it.events(ALWAYS, "m1"))).events) == len(metrics)
        return
    with pytest.raises(
        BadAnswer, match=r"^The API was asked for events of the metric m1 and answered with those of others\.$"
    ):
        list(it.events(ALWAYS, "m1"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_cursor_that_has_been_followed_is_refused(dialect: str) -> None:
    """Pages that lead in a circle would never end."""
    with pytest.raises(BadAnswer, match="has been read before"):
        list(source(dialect, b'{"data":[],"links":{"next":"again"},"next":"again"}').events(ALWAYS))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("seconds", "more", "expected"),
    [
        pytest.param([], False, Beginning(None, 0), id="nothing"),
        pytest.param([SECOND, b"1782950400"], False, Beginning(JULY.start, 2), id="one page"),
        pytest.param([SECOND, b"1785542400"], False, Beginning(JULY.start, 1), id="one page, beyond the end"),
        pytest.param([], True, None, id="no rows and a next page"),
        pytest.param([SECOND, b'"?"'], False, None, id="an event that cannot be read"),
    ],
)
def test_where_a_metric_begins(dialect: str, seconds: list[bytes], more: bool, expected: Beginning | None) -> None:
    """It is told only by a page whose every event can be read, and which begins with the first."""
    events = [b'{"id":"e","timestamp":%b,"attributes":{"timestamp":%b}}' % (at, at) for at in seconds]
    body = page(events, b',"links":{"next":"more"},"next":"more"' if more else b"")
    assert source(dialect, body).beginning("m1", JULY) == expected


def test_a_first_page_that_lacks_the_first_event_tells_no_beginning() -> None:
    """Where the API has an earlier event than the page that it gave first, it does not keep to the order asked for."""
    event = b'{"id":"e","attributes":{"timestamp":1782950400}}'
    assert source("current", page([event], b',"links":{"next":"more"}')).beginning("m1", JULY) is None
    first, earlier = page([event], b',"links":{"next":"more"}'), page([])
    answers = iter([first, earlier])
    it = source("current", b"")
    vars(it)["_client"].get = lambda *_, read, **__: read(next(answers))
    assert it.beginning("m1", JULY) == Beginning(datetime(2026, 7, 2, tzinfo=UTC), None)


def test_the_newest_events_first_tell_no_beginning() -> None:
    """In the legacy dialect the order of the page itself tells, within the window and beyond; one second has none."""
    for times in ((b"1782950400", SECOND), (b"1785542401", b"1785542400")):
        events = [b'{"id":"e","timestamp":%b}' % at for at in times]
        assert source("legacy", page(events, b',"next":"more"')).beginning("m1", JULY) is None
        assert source("legacy", page([events[0]] * 2, b',"next":"more"')).beginning("m1", JULY) is None
        in_order = source("legacy", page(events[::-1], b',"next":"more"')).beginning("m1", JULY)
        assert in_order == (Beginning(JULY.start, None) if SECOND in times else Beginning(None, 0))


NO_PAGES = [
    b"",
    b"<html>502</html>",
    b"[]",
    b"{}",
    b"null",
    b'"x"',
    b'{"data":[',
    b'{"data":[]',
    b'{"data":[]}]',
    b'{"data":[{}]} x',
    b'{"data":[],x}',
    b'{"data":{}}',
    b'{"data":[1}]',
    b'{"errors":[]}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "kind",
    ["events", "metrics", "campaigns", "flows", "exclusions", "people", "memberships", "beginning", "counts", "lists"],
)
@pytest.mark.parametrize("body", NO_PAGES)
def test_what_is_no_page_is_refused(dialect: str, kind: str, body: bytes) -> None:
    """Whatever is asked for: one error, which says that the answer was none."""
    it = source(dialect, body)
    arguments = {
        "events": [ALWAYS],
        "people": [["p1"]],
        "memberships": ["L1", ALWAYS, ["a"]],
        "beginning": ["m1", JULY],
        "counts": ["m1", JULY],
    }
    if (dialect, kind, body[:1]) in {
        ("legacy", "people", b"{"),
        ("legacy", "lists", b"["),
        ("legacy", "memberships", b"["),
    }:
        pytest.skip("that is an answer there, or begins like one")
    with pytest.raises(BadAnswer):
        list(getattr(it, kind)(*arguments.get(kind, [])))
