"""Paging: whatever the order and the size of pages, a walk gives each row once, in order, and misses none."""

from array import array
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import allowed, listing
from sandbox.account import Account
from sandbox.ids import EventIds
from sandbox.listing import Entry, Views
from sandbox.properties import Style
from sandbox.query import Collection, decode_cursor, encode_cursor, read_query
from sandbox.timeline import NOBODY, AddedEvent, Timeline, Window

METRICS = 3
TIMES = st.integers(0, 12)  # so few that many events share a second
EVENTS = st.lists(st.tuples(TIMES, st.integers(0, METRICS - 1)), max_size=40)


def timeline(events: list[tuple[int, int]]) -> Timeline:
    events = sorted(events, key=lambda event: event[0])
    return Timeline(
        EventIds("test", 1),
        array("I", [time for time, _ in events]),
        array("H", [metric for _, metric in events]),
        array("I", [place % 5 for place in range(len(events))]),
        array("I", [0] * len(events)),
        [Style([{}]) for _ in range(METRICS)],
        [],
    )


def added(time: int, metric: int | None) -> AddedEvent:
    return AddedEvent(time, metric, NOBODY, b"{}", b'"x"', b"0", None, None)


def walk(line: Timeline, window: Window, size: int, descending: bool, between: Iterable[AddedEvent] = ()) -> list[int]:
    """All references of a window, page by page; one more event is added after each page."""
    refs: list[int] = []
    mark, late = None, iter(between)
    while True:
        page = line.read(window, size + 1, mark, descending)
        refs += page[:size]
        if len(page) <= size:
            return refs
        following = (line.time(refs[-1]), refs[-1])
        assert following != mark, "a cursor that leads to itself"
        mark = following
        for event in late:
            line.add(event)
            break


@given(EVENTS, EVENTS, st.integers(1, 7), st.booleans(), st.sampled_from([None, 0, 2]), TIMES, TIMES)
def test_events_page_by_page(
    generated: list[tuple[int, int]],
    later: list[tuple[int, int]],
    size: int,
    descending: bool,
    metric: int | None,
    since: int,
    until: int,
) -> None:
    """Pages of events, generated or added, are the window cut into pieces, in either order."""
    line = timeline(generated)
    for event in later:
        line.add(added(*event))
    window = Window(metric, since, until)
    wanted = sorted(
        (
            ref
            for ref in line.every()
            if since <= line.time(ref) < until and (metric is None or line.metric(ref) == metric)
        ),
        key=lambda ref: (line.time(ref), ref),
        reverse=descending,
    )
    assert walk(line, window, size, descending) == wanted
    assert line.count(window) == len(wanted)


@given(EVENTS, EVENTS, EVENTS, st.integers(1, 5), st.booleans())
def test_events_added_in_between(
    generated: list[tuple[int, int]],
    before: list[tuple[int, int]],
    between: list[tuple[int, int]],
    size: int,
    descending: bool,
) -> None:
    """Events that come while a reader pages never make it miss or repeat one that was there before."""
    line = timeline(generated)
    for event in before:
        line.add(added(*event))
    there = set(line.every())
    refs = walk(line, Window(), size, descending, [added(*event) for event in between])
    assert len(set(refs)) == len(refs)
    assert there <= set(refs)


@given(EVENTS, EVENTS, st.integers(1, 5), st.booleans())
def test_events_kept_by_a_condition(
    generated: list[tuple[int, int]], later: list[tuple[int, int]], limit: int, descending: bool
) -> None:
    """A condition beyond metric and time leaves the order as it is."""
    line = timeline(generated)
    for event in later:
        line.add(added(*event))
    found = line.read(Window(), limit, None, descending, keep=lambda ref: line.metric(ref) != 1)
    wanted = [ref for ref in line.read(Window(), 100, None, descending) if line.metric(ref) != 1]
    assert found == wanted[:limit]


def pages(
    views: Views, collection: Collection, make: Callable[[Any], Iterable[Entry]], sort: str, size: int, filters: str
) -> list[list[Any]]:
    """The pages of a collection, asked for as a client would, cursor by cursor."""
    found: list[list[Any]] = []
    cursor: list[tuple[str, str]] = []
    asked = [("page[size]", str(size)), ("filter", filters), *([("sort", sort)] if sort else [])]
    while True:
        query = read_query(collection, "", "http://x/y", [*asked, *cursor])
        page = views.page("rows", query, lambda query=query: make(query))
        found.append(page.items)
        if page.next is None:
            return found
        assert decode_cursor(encode_cursor(page.next)) == page.next
        cursor = [("page[cursor]", encode_cursor(page.next))]


def sorts(collection: Collection) -> list[str]:
    return ["", *collection.sorts, *(f"-{name}" for name in collection.sorts)]


@pytest.mark.parametrize(
    ("kind", "collection", "filters", "sort"),
    [
        pytest.param(kind, collection, filters, sort, id=f"{kind} by {sort or 'default'}")
        for kind, collection, filters in (
            ("campaigns", allowed.CAMPAIGNS, "equals(messages.channel,'email')"),
            ("flows", allowed.FLOWS, ""),
            ("lists", allowed.LISTS, ""),
            ("segments", allowed.SEGMENTS, ""),
        )
        for sort in sorts(collection)
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10])
def test_rows(account: Account, kind: str, collection: Collection, filters: str, sort: str, size: int) -> None:
    """Pages of rows hold each row once, and all but the last are full."""
    rows = account.collection(kind).values()
    wanted = {row.id for row in rows if not filters or row.channel == "email"}
    found = pages(Views(account), collection, lambda query: listing.rows(rows, query), sort, size, filters)
    ids = [row.id for page in found for row in page]
    assert sorted(ids) == sorted(wanted)
    assert {len(page) for page in found[:-1]} <= {size}
    if sort.strip("-") == "name":
        names = [row.name for page in found for row in page]
        assert names == sorted(names, reverse=sort.startswith("-"))


@pytest.mark.parametrize("sort", sorts(allowed.PROFILES))
@pytest.mark.parametrize("size", [13, 100])
def test_people(account: Account, sort: str, size: int) -> None:
    """Pages of profiles hold each person once, those without the sorted value too."""
    found = pages(Views(account), allowed.PROFILES, lambda query: listing.people(account, query), sort, size, "")
    assert sorted(index for page in found for index in page) == list(range(len(account.people)))
    if sort.strip("-") in ("created", "updated"):
        times = [getattr(account.people, sort.strip("-"))[index] for page in found for index in page]
        assert times == sorted(times, reverse=sort.startswith("-"))


@pytest.mark.parametrize("sort", sorts(allowed.LIST_PROFILES))
def test_members(account: Account, sort: str) -> None:
    """Pages of members hold each member once, in the order of joining."""
    group = max(account.lists.values(), key=lambda row: len(row.joined))
    found = pages(
        Views(account), allowed.LIST_PROFILES, lambda query: listing.members(account, group, query), sort, 9, ""
    )
    members = [index for page in found for index in page]
    assert sorted(members) == sorted(group.joined)
    joined = [group.joined[index] for index in members]
    assert joined == sorted(joined, reverse=sort.startswith("-"))


def test_row_deleted_in_between(fresh: Callable[[], Account]) -> None:
    """A row that goes while a reader pages does not make it miss or repeat another one."""
    account = fresh()
    views, asked = Views(account), [("page[size]", "5"), ("sort", "name")]

    def page(*cursor: tuple[str, str]) -> listing.Page:
        query = read_query(allowed.FLOWS, "", "http://x/y", [*asked, *cursor])
        return views.page("flows", query, lambda: listing.rows(account.flows.values(), query))

    first = page()
    assert first.next is not None
    before = set(account.flows)
    account.delete("flows", first.items[-1].id)
    account.delete("flows", first.items[0].id)
    seen, following = [row.id for row in first.items], first.next
    while following is not None:
        later = page(("page[cursor]", encode_cursor(following)))
        seen += [row.id for row in later.items]
        following = later.next
    assert sorted(seen) == sorted(before)
