"""Generated pages: each record is stored once or rejected, and no content stops the read."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from klaviyo_pg.errors import BadAnswer
from klaviyo_pg.windows import FULL_READ
from tests.any_page import (
    DIALECTS,
    JULY,
    SECOND,
    check,
    deep,
    event_page,
    lost,
    page,
    source,
    stored_events,
    stored_people,
    stored_rows,
)

Drawn = TypeVar("Drawn")
FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
TEXTS = [
    *(b'""', b'"x"', b'"0"', rb'"\u0000"', rb'"a\u0000b"', rb'"\\u0000"', rb'"\\\u0000"', b'"a\x00b"', b'"a\nb"'),
    *(rb'"\ud800"', rb'"\udc00 and more"', rb'"\ud83d\ude00"', b'"\xed\xa0\x80"', b'"\xff"', '"\u2028 \x85"'.encode()),
    *(b'"yesterday"', b'"0001-01-01T00:00:00+14:00"', b'"9999-12-31T23:59:59-14:00"', b'"10000-01-01T00:00:00Z"'),
    *(b'"2026-07-01T00:00:00Z"', b'"2026-07-01 00:00:00"', b'"NaN"', b'"1e400"', b'"' + b"9" * 500 + b'"'),
]
NUMBERS = [
    *(b"0", b"-0", b"1.5", b"01", b"1.", b"-", b"1e400", b"-1e400", b"1e-999", b"1" + b"0" * 400, b"1" + b"0" * 5000),
    *(b"NaN", b"Infinity", b"-Infinity", b"9223372036854775808", b"18446744073709551616", b"true", b"tru", b"null"),
    *(b"-62135596800", b"253402300799", b"253402300800", b"-62135596801", SECOND),
]
NESTED = [
    *(b"[]", b"{}", b"[1]", b'{"a":1,"a":2}', b'{"":""}', rb'{"\u0000":1}', rb'{"a\u0000":1,"a":2}', rb'{"\ud800":1}'),
    *(deep(500), deep(10_000), b'{"a":' * 2000 + b"1" + b"}" * 2000, b'[null,"",{"id":5}]'),
    *(
        b'{"$message":5,"$flow":["f"],"Subject":1e400,"$value":1e400,"List":null}',
        b'{"data":null}',
        b'{"data":{"id":""}}',
    ),
]
odd = st.one_of(st.sampled_from([*TEXTS, *NUMBERS, *NESTED]), st.integers(900, 1000).map(deep))


def mostly(usual: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return _seldom(odd, usual)


def _seldom(unusual: st.SearchStrategy[Drawn], usual: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    return st.integers(0, 7).flatmap(lambda drawn: unusual if drawn == 0 else usual)


def an_object(needed: Mapping[str, st.SearchStrategy[bytes]]) -> st.SearchStrategy[bytes]:
    """Generate JSON objects with these members. Sometimes a member is missing, repeated or odd."""
    members = st.tuples(*(_member(name, value) for name, value in needed.items()))
    return members.map(lambda drawn: _object(chain.from_iterable(drawn)))


def _member(name: str, value: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[tuple[str, bytes]]]:
    missing: st.SearchStrategy[list[tuple[str, bytes]]] = st.just([])
    repeated = odd.map(lambda text: [(name, text), (name, text)])
    return _seldom(missing | repeated, mostly(value).map(lambda text: [(name, text)]))


def _object(members: Iterable[tuple[str, bytes]]) -> bytes:
    return b"{" + b",".join(b'"' + name.encode() + b'":' + text for name, text in members) + b"}"


def an_id(letter: str) -> st.SearchStrategy[bytes]:
    return st.integers(0, 5).map(lambda number: f'"{letter}{number}"'.encode())


def related(letter: str) -> st.SearchStrategy[bytes]:
    return an_object({"data": an_object({"id": an_id(letter)})})


def some(record: st.SearchStrategy[bytes], most: int = 6) -> st.SearchStrategy[list[bytes]]:
    return st.lists(mostly(record), max_size=most)


text = st.sampled_from([b'"x"', b'"Spring sale"', b"null", b'""'])
moment = st.sampled_from([b'"2026-07-01T00:00:00+00:00"', b'"2026-07-01T02:00:00+02:00"', b"null"])
second = st.sampled_from([SECOND, b"1782950400", b"1785542400", b"5"])
event_properties = an_object(
    {"$message": text, "$flow": text, "Subject": text, "List": text, "$value": st.just(b"12.50"), "Deep": odd}
)
person_properties = an_object({"Size": text, "$source": text, "Tags": odd})
location = an_object({"city": text, "latitude": st.just(b"51.9"), "longitude": st.just(b'"-8.5"')})
suppressions = an_object({"list_id": an_id("L"), "timestamp": moment}).map(lambda record: b"[" + record + b"]")
subscriptions = an_object(
    {"email": an_object({"marketing": an_object({"consent": text, "list_suppressions": suppressions})})}
)
person = an_object(
    {
        "id": an_id("p"),
        "attributes": an_object(
            {
                "email": text,
                "created": moment,
                "updated": moment,
                "location": location,
                "properties": person_properties,
                "subscriptions": subscriptions,
                "joined_group_at": moment,
            }
        ),
    }
)
event = an_object(
    {
        "id": an_id("e"),
        "attributes": an_object({"timestamp": second, "event_properties": event_properties}),
        "relationships": an_object({"profile": related("p"), "metric": related("m")}),
    }
)
old_person = an_object(
    {"id": an_id("p"), "$email": text, "created": moment, "$latitude": text, "Size": text, "$consent": odd}
)
_old_event = {
    "id": an_id("e"),
    "timestamp": second,
    "statistic_id": an_id("m"),
    "event_properties": event_properties,
}
anonymous_old_event = an_object(_old_event)
old_event = an_object({**_old_event, "person": old_person})
links = st.sampled_from([b"", b',"links":null', b',"links":{}', b',"links":{"next":null}', b',"links":{"next":""}'])
row = {
    "metrics": {"name": text, "created": moment, "updated": moment, "integration": an_object({"category": text})},
    "campaigns": {
        "name": text,
        "send_time": moment,
        "audiences": an_object({"included": an_id("L").map(lambda record: b"[" + record + b"]")}),
    },
    "flows": {"name": text, "status": text, "created": moment},
    "lists": {"name": text, "created": moment},
    "segments": {"name": text, "created": moment},
    "tags": {"name": text},
    "memberships": {"email": text, "joined_group_at": moment},
}
old_row = {
    "metrics": {"id": an_id("m"), "name": text, "created": moment, "integration": an_object({"category": text})},
    "campaigns": {
        "id": an_id("c"),
        "name": text,
        "list_id": an_id("L"),
        "sent_at": moment,
        "lists": an_object({"id": an_id("L"), "created": moment}).map(lambda record: b"[" + record + b"]"),
    },
    "flows": {"id": an_id("f"), "name": text, "created": moment},
    "exclusions": {"email": st.just(b'"a@example.com"'), "reason": text, "timestamp": moment},
}


@FUZZ
@given(some(event), some(person), links)
@example([rb'{"id":"\u0000","attributes":{"timestamp":5}}'], [], b"")
@example([rb'{"id":"e\u0000","attributes":{"timestamp":5}}', b'{"id":"e","attributes":{"timestamp":5}}'], [], b"")
@example([b'{"id":"e","attributes":{"timestamp":5,"event_properties":{"$value":NaN}}}'], [], b"")
def test_each_event_of_the_current_dialect_is_stored_or_rejected(
    events: list[bytes], persons: list[bytes], rest: bytes
) -> None:
    """Events reach the event tables, people reach members, and all other records are rejected."""
    body = page(events, b',"included":[' + b",".join(persons) + b"]" + rest)
    stored, accounted = stored_events("current", body)
    assert accounted == len(events) + len(persons)
    check(stored)


@FUZZ
@given(some(old_event))
def test_each_event_of_the_legacy_dialect_is_stored_or_rejected(events: list[bytes]) -> None:
    """An event whose person cannot be read is stored, and the person is rejected."""
    stored, accounted = stored_events("legacy", page(events))
    assert accounted >= len(events)
    check(stored)


@FUZZ
@given(some(anonymous_old_event))
def test_each_anonymous_event_of_the_legacy_dialect_is_stored_or_rejected(events: list[bytes]) -> None:
    """Without people, every record is an event or a reject."""
    assert stored_events("legacy", page(events))[1] == len(events)


@FUZZ
@given(st.sampled_from(DIALECTS), some(event), some(old_event))
def test_a_window_contains_its_events_only(dialect: str, current: list[bytes], legacy: list[bytes]) -> None:
    """A window leaves out the events outside it and no others."""
    body = page(current if dialect == "current" else legacy)
    start, end = JULY.seconds
    every, within = event_page(dialect, body), event_page(dialect, body, JULY)
    ids = [each for each, at in zip(every.events.id, every.events.at, strict=True) if start <= at < end]
    assert within.events.id == ids
    assert len(lost(within.rejects)) <= len(lost(every.rejects))


@FUZZ
@given(some(person), links)
def test_each_person_of_the_current_dialect_is_stored_or_rejected(persons: list[bytes], rest: bytes) -> None:
    """Each person becomes a member or a reject."""
    read = next(iter(source("current", page(persons, rest)).profiles(FULL_READ)))
    assert len(read.rows) + len(lost(read.rejects)) == len(persons)
    check(stored_people(read))


@FUZZ
@given(mostly(old_person))
def test_a_person_of_the_legacy_dialect_is_stored_or_rejected(record: bytes) -> None:
    """A JSON object becomes a member or a reject. Any other response raises an error."""
    if not record.startswith(b"{"):
        with pytest.raises(BadAnswer):
            list(source("legacy", record).people(["p1"]))
        return
    (read,) = source("legacy", record).people(["p1"])
    assert len(read.rows) + len(lost(read.rejects)) == 1
    check(stored_people(read))


@FUZZ
@given(st.data(), st.sampled_from(sorted(row)), links)
def test_each_row_of_the_current_dialect_is_stored_or_rejected(data: st.DataObject, kind: str, rest: bytes) -> None:
    """Metrics, campaigns, flows, lists, segments, tags and list members: each record becomes a row or a reject."""
    tags = an_object({"tags": an_object({"data": an_object({"id": an_id("t")}).map(lambda tag: b"[" + tag + b"]")})})
    records = data.draw(some(an_object({"id": an_id("x"), "attributes": an_object(row[kind]), "relationships": tags})))
    it = source("current", page(records, rest))
    read = next(iter(it.memberships("L1", FULL_READ) if kind == "memberships" else getattr(it, kind)()))
    assert len(read.rows) + len(lost(read.rejects)) == len(records)
    check(stored_rows(kind, read))


def listed(letter: str) -> st.SearchStrategy[bytes]:
    return an_object({"data": an_object({"id": an_id(letter)}).map(lambda record: b"[" + record + b"]")})


lists = an_id("L").map(lambda record: b"[" + record + b"]")
send_options = an_object({"send_time": moment, "send_times": an_object({"v1": moment}), "send_strategy": text})
part_of_a_campaign = {
    "campaign": (
        "c",
        {"name": text, "archived": st.just(b"true")},
        {"campaign-audiences": listed("a"), "campaign-messages": listed("m")},
    ),
    "campaign-audience": ("a", {"included": lists, "excluded": lists}, {"campaign": related("c")}),
    "campaign-message": (
        "m",
        {"status": text, "send_options": send_options},
        {"campaign": related("c"), "campaign-variations": listed("v")},
    ),
    "campaign-variation": ("v", {"details": an_object({"channel": text, "subject": text})}, {}),
}


def a_part_of_a_campaign(kind: str) -> st.SearchStrategy[bytes]:
    letter, definition, relationships = part_of_a_campaign[kind]
    members = {
        "type": st.just(f'"{kind}"'.encode()),
        "id": an_id(letter),
        "attributes": an_object({"created": moment, "definition": an_object(definition)}),
        "relationships": an_object(relationships),
    }
    return an_object(members)


@settings(FUZZ, max_examples=12)
@given(*(some(a_part_of_a_campaign(kind), 3) for kind in part_of_a_campaign))
def test_each_campaign_of_the_later_revision_is_stored_or_rejected(
    campaigns: list[bytes], audiences: list[bytes], messages: list[bytes], variations: list[bytes]
) -> None:
    """Whatever its audiences, messages and variations are."""
    body = page(campaigns, b',"included":[' + b",".join(audiences) + b"]")
    others = {
        "campaign-messages": page(messages, b',"included":[' + b",".join(variations) + b"]"),
        "campaign-variations": page(variations),
    }
    pages = list(source("current", body, others, "2026-10-15").campaigns())
    read = [each for each in pages if each.rows or each.rejects]
    stored = sum(len(each.rows) + len(lost(each.rejects)) for each in read)
    assert stored >= 2 * len(campaigns), "archived ones are read as well"
    for each in read:
        check(stored_rows("campaigns", each))


@FUZZ
@given(st.data(), st.sampled_from(sorted(old_row)))
def test_each_row_of_the_legacy_dialect_is_stored_or_rejected(data: st.DataObject, kind: str) -> None:
    """Metrics, campaigns, flows and exclusions: each record becomes a row or a reject."""
    records = data.draw(some(an_object(old_row[kind])))
    read = next(iter(getattr(source("legacy", page(records)), kind)()))
    assert len(read.rows) + len(lost(read.rejects)) == len(records)
    check(stored_rows(kind, read))


@FUZZ
@given(some(an_object({"id": an_id("p"), "created": moment})))
def test_each_list_member_of_the_legacy_dialect_is_stored_or_rejected(records: list[bytes]) -> None:
    """This holds for members who are looked up and for people who are suppressed for a list."""
    members, excluded = b"[" + b",".join(records) + b"]", b'{"records":[' + b",".join(records) + b"]}"
    it = source("legacy", members, {"subscribe": b"[]", "exclusions/all": excluded})
    looked_up, suppressed = it.memberships("L1", FULL_READ, ["a@example.com"])
    assert len(looked_up.rows) + len(lost(looked_up.rejects)) == len(records)
    assert len(suppressed.suppressions) + len(lost(suppressed.rejects)) == len(records)
    check(stored_rows("memberships", looked_up))


@FUZZ
@given(some(an_object({"list_id": an_id("L"), "list_name": text})), mostly(moment))
def test_each_list_of_the_legacy_dialect_is_stored_or_rejected(records: list[bytes], created: bytes) -> None:
    """The name and the date of a list come from two responses. An unreadable date rejects the list."""
    it = source("legacy", b'{"created":%b}' % created, {"v2/lists": b"[" + b",".join(records) + b"]"})
    try:
        read = next(iter(it.lists()))
    except BadAnswer:
        assert created not in (b"null", b'"2026-07-01T00:00:00+00:00"')
        return
    assert len(read.rows) + len(lost(read.rejects)) == len(records)
    check(stored_rows("lists", read))


@FUZZ
@given(some(an_object({"id": an_id("p"), "attributes": an_object({"email": text})})))
def test_each_suppressed_person_is_excluded_or_rejected(records: list[bytes]) -> None:
    """People who are listed as suppressed without their suppression are not lost."""
    read = next(iter(source("current", page(records)).exclusions()))
    assert len(read.rows) + len(lost(read.rejects)) == len(records)
    assert all(each.email and each.reason for each in read.rows)


@FUZZ
@given(st.sampled_from(DIALECTS), some(event, 3), some(old_event, 3), st.data())
def test_a_damaged_page_is_read_or_raises_one_error(
    dialect: str, current: list[bytes], legacy: list[bytes], data: st.DataObject
) -> None:
    """A page that is truncated or overwritten anywhere raises BadAnswer and no other error."""
    body = page(current if dialect == "current" else legacy)
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    body = body[:start] + data.draw(st.binary(max_size=6)) + body[end:]
    try:
        stored, _ = stored_events(dialect, body)
    except BadAnswer:
        return
    check(stored)
