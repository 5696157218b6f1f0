"""History cut into chunks: nothing is left out, nothing stands in two, and all are about as large."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.history import HistoryChunk, cut, gaps, summaries, uncounted, years
from klaviyo_pg.klaviyo.rows import Count, EventPage, Events
from klaviyo_pg.windows import Window
from tasks.chunks import by_seconds

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def counts(*events: int) -> list[Count]:
    """Counts of one hour each."""
    return [Count(START + HOUR * at, START + HOUR * (at + 1), many) for at, many in enumerate(events)]


def page(*seconds: int) -> EventPage:
    """A page of events that happened at these times, with their place as the id."""
    columns: list[list[object]] = [[None] * len(seconds) for _ in Events._fields]
    columns[0] = [f"{at}:{place}" for place, at in enumerate(seconds)]
    columns[1] = list(seconds)
    return EventPage(Events(*columns), (), (), START)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=400), st.integers(1, 5_000))
def test_chunks_cover_the_window(events: list[int], size: int) -> None:
    """Chunks follow each other without a gap from the window's start to its end, and hold all that was counted."""
    window = Window(START, START + HOUR * len(events))
    chunks = list(cut("m", window, counts(*events), size))
    assert (chunks[0].window_start, chunks[-1].window_end) == window
    assert all(one.window_end == other.window_start for one, other in pairwise(chunks))
    assert sum(chunk.expected or 0 for chunk in chunks) == sum(events)
    for chunk in chunks:
        inside = [c.events for c in counts(*events) if chunk.window_start <= c.start < chunk.window_end]
        assert chunk.expected == sum(inside)


@given(st.lists(st.integers(0, 100), min_size=50, max_size=600))
def test_chunks_are_alike(events: list[int]) -> None:
    """Where no single hour is large, the largest chunk is at most twice the smallest full one."""
    window = Window(START, START + HOUR * len(events))
    sizes = [chunk.expected or 0 for chunk in cut("m", window, counts(*events), 1_000)]
    if len(sizes) > 1:
        assert max(sizes) <= 2 * min(sizes[:-1])
        assert max(sizes) <= 1_000 * 1.5 + 100  # the last one may take a rest of half a share, and an hour


def test_nothing_is_nothing_to_do() -> None:
    """A window without events is one chunk that is done."""
    [chunk] = cut("m", Window(START, START + HOUR), counts(0), 1_000)
    assert (chunk.expected, chunk.state) == (0, "done")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=8))
def test_gaps_are_what_no_chunk_covers(taken: list[tuple[int, int]]) -> None:
    """Every hour of the window is either in a chunk or in exactly one gap."""
    window = Window(START, START + HOUR * 48)
    known = [HistoryChunk("m", START + HOUR * at, START + HOUR * (at + length), 1) for at, length in taken]
    found = list(gaps(window, known))
    for hour in range(48):
        moment = START + HOUR * hour
        covered = any(chunk.window_start <= moment < chunk.window_end for chunk in known)
        assert [gap.start <= moment < gap.end for gap in found].count(True) == (0 if covered else 1)  # type: ignore[operator]


def test_uncounted_history_is_cut_evenly() -> None:
    """Without counts the chunks have equal length, at most the one given, and no expectation."""
    chunks = list(uncounted("m", Window(START, START + timedelta(days=70)), timedelta(days=30)))
    assert [chunk.expected for chunk in chunks] == [None] * 3
    assert (chunks[0].window_start, chunks[-1].window_end) == (START, START + timedelta(days=70))


def test_summary() -> None:
    """What is left of a chunk that is under way is what was counted less what is loaded."""
    chunks = [
        HistoryChunk("m", START, START + HOUR, 100, 100, START, "done"),
        HistoryChunk("m", START + HOUR, START + HOUR * 2, 50, 20, START, "failed", 2.5),
    ]
    [found] = summaries(chunks)
    assert (found.expected, found.loaded, found.waiting) == (150, 120, 30)
    assert (found.chunks, found.done, found.failed) == (2, 1, 1)


@given(st.lists(st.lists(st.integers(0, 6), max_size=12), max_size=8), st.integers(1, 10))
def test_groups_end_between_seconds(pages: list[list[int]], least: int) -> None:
    """Each event comes once, and none from before the second that a group has reached comes after it."""
    times = sorted(at for each in pages for at in each)
    sizes, sorted_pages = [len(each) for each in pages], []
    for size in sizes:
        sorted_pages.append(page(*times[:size]))
        times = times[size:]
    given_ids: list[str] = []
    reached = datetime.fromtimestamp(0, UTC)
    *groups, (rest, last) = by_seconds(sorted_pages, least)
    assert last is None
    for group, until in [*groups, (rest, datetime.max.replace(tzinfo=UTC))]:
        assert until is not None
        for each in group:
            assert all(reached.timestamp() <= at < until.timestamp() for at in each.events.at)
            given_ids += each.events.id
        reached = until
    assert sorted(given_ids) == sorted(name for each in sorted_pages for name in each.events.id)


@pytest.mark.parametrize("seconds", [(5, 5, 5, 5), (1, 1)])
def test_one_crowded_second_is_not_split(seconds: tuple[int, ...]) -> None:
    """Events of one second stay together, however many they are."""
    groups = list(by_seconds([page(*seconds), page(*seconds)], 2))
    assert len(groups) == 1


def test_years_are_counted_from_the_end() -> None:
    """Together they are the window, none is longer than one question may be, and the newest comes first."""
    window = Window(START, START + timedelta(days=1000))
    parts = list(years(window))
    assert [part.end for part in parts] == [window.end, *(part.start for part in parts[:-1])]
    assert parts[-1].start == window.start
    assert {(part.end - part.start).days for part in parts if part.start and part.end} == {365, 270}
