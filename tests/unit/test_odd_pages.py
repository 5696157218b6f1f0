"""Pages with one oddity each, and the exact result."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from klaviyo_pg.errors import BadAnswer
from klaviyo_pg.rows import Beginning
from klaviyo_pg.windows import FULL_READ
from tests.any_page import DIALECTS, JULY, SECOND, deep, event_page, page, source, stored_events

GOOD_EVENTS = (b'{"id":"first","attributes":{"timestamp":5}}', b'{"id":"last","attributes":{"timestamp":6}}')
UNREADABLE = [
    pytest.param(deep(1_000), id="a thousand levels"),
    pytest.param(deep(10_000), id="ten thousand levels"),
    pytest.param(deep(200_000), id="two hundred thousand levels"),
    pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
    pytest.param(b'"\xed\xa0\x80"', id="a surrogate as bytes"),
    pytest.param(rb'"\ud800"', id="a surrogate as escape"),
    pytest.param(b"NaN", id="NaN"),
    pytest.param(b"[-Infinity]", id="Infinity"),
    pytest.param(b'{"a":"\x00"}', id="a raw NUL"),
    pytest.param(b'"' + b"x" * 5_000_000 + b'\xff"', id="not UTF-8 after 5 MB"),
]


@pytest.mark.parametrize("properties", UNREADABLE)
def test_an_unreadable_event_is_stored_with_values_replaced(properties: bytes) -> None:
    """Its original is kept with all its bytes if anything is lost. The other events and the link are read."""
    record = b'{"id":"odd","attributes":{"timestamp":5,"event_properties":' + properties + b"}}"
    read = event_page("current", page([GOOD_EVENTS[0], record, GOOD_EVENTS[1]], b',"links":{"next":"more"}'))
    assert read.events.id == ["first", "odd", "last"]
    is_lost = b"\x00" not in properties  # NUL is only escaped here, and removed and counted later
    originals = [record.decode("utf-8", "backslashreplace")] if is_lost else []
    assert [reject.raw for reject in read.rejects] == originals
    assert all(reject.replaced and not reject.hides for reject in read.rejects)


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        pytest.param(b'{"a":1,"a":2}', b'{"a":1,"a":2}', id="a name twice"),
        pytest.param(b'"' + b"x" * 5_000_000 + b'"', b'"' + b"x" * 5_000_000 + b'"', id="5 MB"),
        pytest.param(deep(700), deep(700), id="700 levels"),
        pytest.param(b"[1e400]", b"[1e400]", id="a large number"),
        pytest.param(rb'{"a":"\u0000"}', b'{"a":""}', id="an escaped NUL"),
    ],
)
def test_an_odd_event_is_stored(properties: bytes, expected: bytes) -> None:
    """Properties that jsonb can store are unchanged, except for NUL."""
    record = b'{"id":"odd","attributes":{"timestamp":5,"event_properties":' + properties + b"}}"
    stored, accounted = stored_events("current", page([*GOOD_EVENTS, record]))
    frame = stored.frames[0][1]
    assert accounted == 3 and frame["properties"].to_list()[-1].encode() == expected


def test_a_number_that_is_too_large_does_not_affect_other_properties() -> None:
    """The subject is larger than any float, and message and flow are still read."""
    properties = b'{"$message":"c1","$flow":"f1","Subject":1e400,"$value":1' + b"0" * 5000 + b"}"
    record = b'{"id":"e","attributes":{"timestamp":5,"event_properties":%b}}' % properties
    events = event_page("current", page([record])).events
    assert (events.message, events.flow, events.subject) == (["c1"], ["f1"], ["1e400"])


@pytest.mark.parametrize("value", [rb"\ud800", b"\xff"])
@pytest.mark.parametrize(
    "record",
    [
        b'{"id":"%b","attributes":{"timestamp":5}}',
        b'{"id":"e","attributes":{"timestamp":5},"relationships":{"profile":{"data":{"id":"%b"}}}}',
    ],
)
def test_an_identity_is_not_replaced(record: bytes, value: bytes) -> None:
    """The record could become another one."""
    read = event_page("current", page([record % value]))
    assert read.events.id == [] and [reject.replaced for reject in read.rejects] == [0]


def test_a_syntax_error_rejects_its_record_alone() -> None:
    """There is no value in it that could be replaced."""
    record = b'{"id":"odd","attributes":{"timestamp":5,"event_properties":{"a" 1}}}'
    read = event_page("current", page([*GOOD_EVENTS, record]))
    assert read.events.id == ["first", "last"] and [reject.raw.encode() for reject in read.rejects] == [record]


def test_an_id_with_a_nul_is_rejected() -> None:
    """Without the NUL, it would be the id of another event and overwrite it."""
    records = [rb'{"id":"e\u0000","attributes":{"timestamp":5}}', b'{"id":"e","attributes":{"timestamp":5}}']
    read = event_page("current", page(records))
    assert read.events.id == ["e"] and "NUL" in read.rejects[0].reason


def test_of_two_events_with_the_same_id_the_last_stays() -> None:
    records = [b'{"id":"e","attributes":{"timestamp":5}}', b'{"id":"e","attributes":{"timestamp":6}}']
    stored, accounted = stored_events("current", page(records))
    assert accounted == 2
    assert [at.timestamp() for at in stored.frames[0][1]["event_at"]] == [6]


@pytest.mark.parametrize("person", [b'{"id":null}', b'{"id":5}', b'{"id":""}', rb'{"id":"\u0000"}', b"{}", b"[]"])
def test_a_legacy_event_is_stored_without_a_person_who_has_no_id(person: bytes) -> None:
    """The person is rejected, and is not stored with the id "None"."""
    read = event_page("legacy", page([b'{"id":"e","timestamp":5,"person":' + person + b"}"]))
    assert (read.events.id, read.events.profile_id, list(read.profiles)) == (["e"], [None], [])
    assert [reject.raw.encode() for reject in read.rejects] == [person]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_reading_continues_after_a_page_without_rows(dialect: str) -> None:
    """The next page can have rows."""
    first = {"current": b'{"data":[],"links":{"next":"https://x/2"}}', "legacy": b'{"data":[],"next":"2"}'}[dialect]
    last = {"current": b'{"id":"e","attributes":{"timestamp":5}}', "legacy": b'{"id":"e","timestamp":5}'}[dialect]
    answers = iter([first, page([last])])
    it = source(dialect, b"")
    for client in [value for value in vars(it).values() if hasattr(value, "traffic")]:
        client.get = lambda *_, read, **__: read(next(answers))
    assert [read.events.id for read in it.events(FULL_READ)] == [[], ["e"]]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("metrics", "is_refused"),
    [(["m2", "m2"], True), (["m2", "m1"], False), ([None, None], False), ([None, "m2"], True), ([], False)],
)
def test_a_page_without_the_requested_metric_is_refused(
    dialect: str, metrics: list[str | None], is_refused: bool
) -> None:
    """If the API ignored the filter, everything would be read once for each metric."""
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
        assert len(next(iter(it.events(FULL_READ, "m1"))).events) == len(metrics)
        return
    with pytest.raises(
        BadAnswer, match=r"^The API was asked for events of the metric m1 and returned only events of other metrics"
    ):
        list(it.events(FULL_READ, "m1"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_cursor_that_was_already_followed_is_refused(dialect: str) -> None:
    """Following cursors in a circle would never end."""
    with pytest.raises(BadAnswer, match="has already been read"):
        list(source(dialect, b'{"data":[],"links":{"next":"again"},"next":"again"}').events(FULL_READ))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("seconds", "more", "expected"),
    [
        pytest.param([], False, Beginning(None, 0), id="nothing"),
        pytest.param([SECOND, b"1782950400"], False, Beginning(JULY.start, 2), id="one page"),
        pytest.param([SECOND, b"1785542400"], False, Beginning(JULY.start, 1), id="one page, beyond the end"),
        pytest.param([], True, None, id="no rows and a next page"),
        pytest.param([SECOND, b'"?"'], False, None, id="an unreadable event"),
    ],
)
def test_the_first_page_shows_where_a_metric_begins(
    dialect: str, seconds: list[bytes], more: bool, expected: Beginning | None
) -> None:
    """It does only if all its events can be read and the first event of the metric is one of them."""
    events = [b'{"id":"e","timestamp":%b,"attributes":{"timestamp":%b}}' % (at, at) for at in seconds]
    body = page(events, b',"links":{"next":"more"},"next":"more"' if more else b"")
    assert source(dialect, body).beginning("m1", JULY) == expected


def test_a_first_page_without_the_first_event_does_not_show_the_beginning() -> None:
    """If the API has an earlier event than those on the first page, it ignores the requested order."""
    event = b'{"id":"e","attributes":{"timestamp":1782950400}}'
    assert source("current", page([event], b',"links":{"next":"more"}')).beginning("m1", JULY) is None
    first, earlier = page([event], b',"links":{"next":"more"}'), page([])
    answers = iter([first, earlier])
    it = source("current", b"")
    vars(it)["_client"].get = lambda *_, read, **__: read(next(answers))
    assert it.beginning("m1", JULY) == Beginning(datetime(2026, 7, 2, tzinfo=UTC), None)


def test_descending_events_do_not_show_the_beginning() -> None:
    """The legacy dialect checks the order within the page. Events of the same second do not show an order."""
    for times in ((b"1782950400", SECOND), (b"1785542401", b"1785542400")):
        events = [b'{"id":"e","timestamp":%b}' % at for at in times]
        assert source("legacy", page(events, b',"next":"more"')).beginning("m1", JULY) is None
        assert source("legacy", page([events[0]] * 2, b',"next":"more"')).beginning("m1", JULY) is None
        in_order = source("legacy", page(events[::-1], b',"next":"more"')).beginning("m1", JULY)
        assert in_order == (Beginning(JULY.start, None) if SECOND in times else Beginning(None, 0))


NOT_PAGES = [
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
@pytest.mark.parametrize("body", NOT_PAGES)
def test_a_response_that_is_not_a_page_is_refused(dialect: str, kind: str, body: bytes) -> None:
    """Every request raises the same error."""
    it = source(dialect, body)
    arguments: dict[str, list[Any]] = {
        "events": [FULL_READ],
        "people": [["p1"]],
        "memberships": ["L1", FULL_READ, ["a"]],
        "beginning": ["m1", JULY],
        "counts": ["m1", JULY],
    }
    if (dialect, kind, body[:1]) in {
        ("legacy", "people", b"{"),
        ("legacy", "lists", b"["),
        ("legacy", "memberships", b"["),
    }:
        pytest.skip("a valid response, or the beginning of one")
    with pytest.raises(BadAnswer):
        list(getattr(it, kind)(*arguments.get(kind, [])))
