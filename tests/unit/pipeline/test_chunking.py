"""History cut into chunks: without a gap, without an overlap, and of similar sizes."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.rows import Count
from klaviyo_pg.states import ChunkState
from klaviyo_pg.windows import Window, history_window
from pipeline.backfill.chunking import cut, gaps, summaries, uncounted_chunks, years
from pipeline.backfill.plan import questions
from pipeline.backfill.reading import label, next_group
from transforms.events import Metrics

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def counts(*events: int) -> list[Count]:
    """Return counts of one hour each."""
    return [Count(START + HOUR * at, START + HOUR * (at + 1), number) for at, number in enumerate(events)]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=400), st.integers(1, 5_000))
def test_chunks_cover_the_window(events: list[int], size: int) -> None:
    """Chunks lead from the window's start to its end without a gap, and expect every event that was counted."""
    window = Window(START, START + HOUR * len(events))
    chunks = list(cut("m", window, counts(*events), size))
    assert (chunks[0].window_start, chunks[-1].window_end) == window
    assert all(one.window_end == other.window_start for one, other in pairwise(chunks))
    assert sum(chunk.expected or 0 for chunk in chunks) == sum(events)
    for chunk in chunks:
        inside = [each.events for each in counts(*events) if chunk.window_start <= each.start < chunk.window_end]
        assert chunk.expected == sum(inside)


@given(st.lists(st.integers(0, 100), min_size=50, max_size=600))
def test_chunks_have_similar_sizes(events: list[int]) -> None:
    """If no single hour is large, the largest chunk is at most twice the smallest, apart from the last one."""
    window = Window(START, START + HOUR * len(events))
    sizes = [chunk.expected or 0 for chunk in cut("m", window, counts(*events), 1_000)]
    if len(sizes) > 1:
        assert max(sizes) <= 2 * min(sizes[:-1])
        assert max(sizes) <= 1_000 * 1.5 + 100  # the last one may take a rest of half a share, and an hour


def test_a_window_without_events_is_done() -> None:
    [chunk] = cut("m", Window(START, START + HOUR), counts(0), 1_000)
    assert (chunk.expected, chunk.state) == (0, ChunkState.DONE)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=8))
def test_gaps_are_what_no_chunk_covers(taken: list[tuple[int, int]]) -> None:
    """Every hour of the window is either in a chunk or in exactly one gap."""
    window = Window(START, START + HOUR * 48)
    chunks = [BackfillChunk("m", START + HOUR * at, START + HOUR * (at + length), 1) for at, length in taken]
    missing = list(gaps(window, chunks))
    for hour in range(48):
        moment = START + HOUR * hour
        is_covered = any(chunk.window_start <= moment < chunk.window_end for chunk in chunks)
        assert [gap.start <= moment < gap.end for gap in missing].count(True) == (0 if is_covered else 1)


def test_uncounted_history_is_cut_evenly() -> None:
    """Without counts the chunks have equal lengths, at most the longest allowed, and expect no number of events."""
    chunks = list(uncounted_chunks("m", Window(START, START + timedelta(days=70)), timedelta(days=30)))
    assert [chunk.expected for chunk in chunks] == [None] * 3
    assert (chunks[0].window_start, chunks[-1].window_end) == (START, START + timedelta(days=70))
    assert all(one.window_end == other.window_start for one, other in pairwise(chunks))


def test_a_summary_adds_up_the_chunks_of_a_metric() -> None:
    """Events that are waiting are those that were counted but are not loaded yet."""
    chunks = [
        BackfillChunk("m", START, START + HOUR, 100, 100, START, ChunkState.DONE),
        BackfillChunk("m", START + HOUR, START + HOUR * 2, 50, 20, START, ChunkState.FAILED, 2.5),
    ]
    [summary] = summaries(chunks)
    assert (summary.expected, summary.loaded, summary.waiting) == (150, 120, 30)
    assert (summary.chunks, summary.done, summary.failed, summary.seconds) == (2, 1, 1, 2.5)


def test_a_summary_keeps_events_apart_that_were_not_counted() -> None:
    """Otherwise they would seem to be a surplus, or hide that counted ones are missing."""
    chunks = [
        BackfillChunk("m", START, START + HOUR, None, 100, None, ChunkState.DONE),
        BackfillChunk("m", START + HOUR, START + HOUR * 2, 50, 20),
    ]
    [summary] = summaries(chunks)
    assert (summary.expected, summary.loaded, summary.loaded_uncounted, summary.waiting) == (50, 20, 100, 30)


def test_a_summary_can_be_limited_to_a_window() -> None:
    chunks = [BackfillChunk("m", START + HOUR * at, START + HOUR * (at + 1), 10) for at in range(3)]
    [summary] = summaries(chunks, Window(START + HOUR, START + HOUR * 2))
    assert (summary.chunks, summary.expected) == (1, 10)


def test_years_are_counted_from_the_end() -> None:
    """They cover the window, none is longer than a request may span, and the newest comes first."""
    window = Window(START, START + timedelta(days=1000))
    parts = list(years(window))
    assert [part.end for part in parts] == [window.end, *(part.start for part in parts[:-1])]
    assert parts[-1].start == window.start
    assert {(part.end - part.start).days for part in parts} == {365, 270}


def test_only_what_has_no_chunk_yet_is_counted() -> None:
    """The newest part is counted first, whatever its metric."""
    end = START + 500 * DAY
    answered = [[BackfillChunk("a", START, START + 300 * DAY, 0)], []]
    assert questions([("a", Window(START, end)), ("b", Window(START, end))], answered) == [
        ("a", Window(START + 300 * DAY, end)),
        ("b", Window(START + 135 * DAY, end)),
        ("b", Window(START, START + 135 * DAY)),
    ]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param(START, None, (0, 10), id="up to the last midnight"),
        pytest.param(START + 5 * HOUR, START + 2 * DAY, (0, 2), id="whole days"),
        pytest.param(START, START + DAY + HOUR, (0, 2), id="the day of the end"),
        pytest.param(START, START + 99 * DAY, (0, 10), id="an end in the future"),
    ],
)
def test_history_is_whole_days(start: datetime, end: datetime | None, expected: tuple[int, int]) -> None:
    first, last = expected
    now = START + 10 * DAY + 5 * HOUR
    assert history_window(now, start, end) == Window(START + first * DAY, START + last * DAY)


@pytest.mark.parametrize("start", [START + 10 * DAY, START + 20 * DAY])
def test_history_without_a_whole_day_is_rejected(start: datetime) -> None:
    with pytest.raises(BadSettings, match="choose an earlier start"):
        history_window(START + 10 * DAY + 5 * HOUR, start, None)


def chunk(metric_id: str, events: int | None, state: ChunkState = ChunkState.PLANNED) -> BackfillChunk:
    """Return a chunk of a day with so many expected events."""
    return BackfillChunk(metric_id, START, START + DAY, events, state=state)


def test_small_chunks_are_read_by_one_unit() -> None:
    """As many as 16 pages contain. Chunks that are done cost nothing, and uncounted ones count as full."""
    planned = [
        chunk("large", 50_000),
        *(chunk(f"small {number}", 3_500) for number in range(5)),
        chunk("done", 50_000, ChunkState.DONE),
        chunk("uncounted", None),
    ]
    ends, begun = [], 0
    while begun < len(planned):
        begun += len(next_group(planned, begun, 1_000))
        ends.append(begun)
    assert ends == [1, 5, 7, 8]


@pytest.mark.parametrize(
    ("metric_ids", "text"),
    [
        pytest.param("a", "Opened Email 2024-01-01T00:00..2024-01-02T00:00", id="one"),
        pytest.param("axyz", "Opened Email 2024-01-01T00:00..2024-01-02T00:00 and 3 more", id="several"),
        pytest.param("x", "x 2024-01-01T00:00..2024-01-02T00:00", id="a metric without a name"),
    ],
)
def test_a_unit_is_labelled_by_its_first_chunk(metric_ids: str, text: str) -> None:
    assert label([chunk(each, 1) for each in metric_ids], Metrics({"a": "Opened Email", "x": None}, {})) == text


def test_a_backfill_leaves_out_days_that_are_not_kept() -> None:
    now = START + 20 * DAY
    assert history_window(now, START, None, START + 5 * DAY) == Window(START + 5 * DAY, START + 20 * DAY)
