"""Paging returns every row exactly once and in order, for any sort and any page size."""

from array import array
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.account import Account
from sandbox.account.ids import EventIds
from sandbox.account.properties import Style
from sandbox.account.timeline import NOBODY, AddedEvent, Timeline, Window
from sandbox.current import allowed, listing
from sandbox.current.listing import Entry, Views
from sandbox.current.query import Collection, decode_cursor, encode_cursor, read_query

METRICS = 3
TIMES = st.integers(0, 12)  # few, so that many events share a second
EVENTS = st.lists(st.tuples(TIMES, st.integers(0, METRICS - 1)), max_size=40)


def make_timeline(events: list[tuple[int, int]]) -> Timeline:
    events = sorted(events, key=lambda event: event[0])
    return Timeline(
        EventIds("test", 1),
        array("I", [time for time, _ in events]),
        array("H", [metric for _, metric in events]),
        array("I", [number % 5 for number in range(len(events))]),
        array("I", [0] * len(events)),
        [Style([{}]) for _ in range(METRICS)],
        [],
    )


def added(time: int, metric: int | None) -> AddedEvent:
    return AddedEvent(time, metric, NOBODY, b"{}", b'"x"', b"0", None, None)


def read_pages(
    timeline: Timeline, window: Window, size: int, descending: bool, between: Iterable[AddedEvent] = ()
) -> list[int]:
    """Return all references of a window, read page by page. One of the events `between` is added after each page."""
    refs: list[int] = []
    position, new_events = None, iter(between)
    while True:
        page = timeline.read(window, size + 1, position, descending)
        refs += page[:size]
        if len(page) <= size:
            return refs
        following = (timeline.time(refs[-1]), refs[-1])
        assert following != position, "a page that leads to itself"
        position = following
        for event in new_events:
            timeline.add(event)
            break


@given(EVENTS, EVENTS, st.integers(1, 7), st.booleans(), st.sampled_from([None, 0, 2]), TIMES, TIMES)
def test_pages_of_events_cover_the_window(
    generated: list[tuple[int, int]],
    later: list[tuple[int, int]],
    size: int,
    descending: bool,
    metric: int | None,
    since: int,
    until: int,
) -> None:
    """Pages contain all generated and added events of the window, in either order."""
    timeline = make_timeline(generated)
    for event in later:
        timeline.add(added(*event))
    window = Window(metric, since, until)
    expected = sorted(
        (
            ref
            for ref in timeline.every()
            if since <= timeline.time(ref) < until and (metric is None or timeline.metric(ref) == metric)
        ),
        key=lambda ref: (timeline.time(ref), ref),
        reverse=descending,
    )
    assert read_pages(timeline, window, size, descending) == expected
    assert timeline.count(window) == len(expected)


@given(EVENTS, EVENTS, EVENTS, st.integers(1, 5), st.booleans())
def test_events_added_while_paging_do_not_affect_others(
    generated: list[tuple[int, int]],
    before: list[tuple[int, int]],
    between: list[tuple[int, int]],
    size: int,
    descending: bool,
) -> None:
    """A reader neither misses nor repeats an event that existed before, whatever is added between its pages."""
    timeline = make_timeline(generated)
    for event in before:
        timeline.add(added(*event))
    existing = set(timeline.every())
    refs = read_pages(timeline, Window(), size, descending, [added(*event) for event in between])
    assert len(set(refs)) == len(refs)
    assert existing <= set(refs)


@given(EVENTS, EVENTS, st.integers(1, 5), st.booleans())
def test_a_condition_keeps_the_order_of_events(
    generated: list[tuple[int, int]], later: list[tuple[int, int]], limit: int, descending: bool
) -> None:
    timeline = make_timeline(generated)
    for event in later:
        timeline.add(added(*event))
    refs = timeline.read(Window(), limit, None, descending, keep=lambda ref: timeline.metric(ref) != 1)
    expected = [ref for ref in timeline.read(Window(), 100, None, descending) if timeline.metric(ref) != 1]
    assert refs == expected[:limit]


def pages(
    views: Views, collection: Collection, make: Callable[[Any], Iterable[Entry]], sort: str, size: int, filters: str
) -> list[list[Any]]:
    """Return the pages of a collection, requested cursor by cursor as a client does."""
    items: list[list[Any]] = []
    cursor: list[tuple[str, str]] = []
    parameters = [("page[size]", str(size)), ("filter", filters), *([("sort", sort)] if sort else [])]
    while True:
        query = read_query(collection, "", "http://x/y", [*parameters, *cursor])
        page = views.page("rows", query, partial(make, query))
        items.append(page.items)
        if page.next is None:
            return items
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
def test_pages_of_rows_cover_the_collection(
    account: Account, kind: str, collection: Collection, filters: str, sort: str, size: int
) -> None:
    """Pages contain each row once, and all pages except the last are full."""
    rows = account.collection(kind).values()
    expected = {row.id for row in rows if not filters or row.channel == "email"}
    shown = pages(Views(account), collection, lambda query: listing.rows(rows, query), sort, size, filters)
    ids = [row.id for page in shown for row in page]
    assert sorted(ids) == sorted(expected)
    assert {len(page) for page in shown[:-1]} <= {size}
    if sort.strip("-") == "name":
        names = [row.name for page in shown for row in page]
        assert names == sorted(names, reverse=sort.startswith("-"))


@pytest.mark.parametrize("sort", sorts(allowed.PROFILES))
@pytest.mark.parametrize("size", [13, 100])
def test_pages_of_profiles_cover_all_people(account: Account, sort: str, size: int) -> None:
    """Pages contain each person once, including people without a value to sort by."""
    shown = pages(Views(account), allowed.PROFILES, lambda query: listing.people(account, query), sort, size, "")
    assert sorted(index for page in shown for index in page) == list(range(len(account.people)))
    if sort.strip("-") in ("created", "updated"):
        times = [getattr(account.people, sort.strip("-"))[index] for page in shown for index in page]
        assert times == sorted(times, reverse=sort.startswith("-"))


@pytest.mark.parametrize("sort", sorts(allowed.LIST_PROFILES))
def test_pages_of_members_cover_the_list(account: Account, sort: str) -> None:
    """Pages contain each member once, in the order of joining."""
    group = max(account.lists.values(), key=lambda row: len(row.joined))
    shown = pages(
        Views(account), allowed.LIST_PROFILES, lambda query: listing.members(account, group, query), sort, 9, ""
    )
    members = [index for page in shown for index in page]
    assert sorted(members) == sorted(group.joined)
    joined = [group.joined[index] for index in members]
    assert joined == sorted(joined, reverse=sort.startswith("-"))


def test_rows_deleted_while_paging_do_not_affect_others(make_account: Callable[[], Account]) -> None:
    """A reader neither misses nor repeats a row when other rows are deleted between its pages."""
    account = make_account()
    views, parameters = Views(account), [("page[size]", "5"), ("sort", "name")]

    def page(*cursor: tuple[str, str]) -> listing.Page:
        query = read_query(allowed.FLOWS, "", "http://x/y", [*parameters, *cursor])
        return views.page("flows", query, lambda: listing.rows(account.flows.values(), query))

    first = page()
    assert first.next is not None
    before = set(account.flows)
    account.delete("flows", first.items[-1].id)
    account.delete("flows", first.items[0].id)
    seen = [row.id for row in first.items]
    following: list[Any] | None = first.next
    while following is not None:
        later = page(("page[cursor]", encode_cursor(following)))
        seen += [row.id for row in later.items]
        following = later.next
    assert sorted(seen) == sorted(before)
