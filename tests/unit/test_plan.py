"""What a run has to read, from what is known of earlier ones."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.catalogue import SPECIFIED
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.windows import Window
from tasks.plan import DIMENSIONS, Chunk, Horizon, event_chunks, membership_chunks, profile_chunks, streams

NOW = datetime(2026, 7, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FRESH, LAGGING = NOW - DAY, NOW - 40 * DAY
HORIZON = Horizon(NOW, lookback=7 * DAY, first_sync=30 * DAY)


def plan(
    ids: list[str], watermarks: Mapping[str, datetime], horizon: Horizon = HORIZON, all_at_once: bool = True
) -> list[Chunk]:
    marks = {f"events/{each}": moment for each, moment in watermarks.items()}
    return list(event_chunks(ids, marks, horizon, all_at_once))


@pytest.mark.parametrize(
    ("watermarks", "since", "starts"),
    [
        pytest.param({}, None, {"events": NOW - 30 * DAY}, id="first run"),
        pytest.param({"a": FRESH, "b": FRESH, "c": FRESH}, None, {"events": FRESH - 7 * DAY}, id="lookback"),
        pytest.param(
            {"a": FRESH, "b": LAGGING, "c": FRESH},
            None,
            {"events": FRESH - 7 * DAY, "events/b": LAGGING - 7 * DAY},
            id="one metric lags",
        ),
        pytest.param(
            {"a": FRESH, "c": FRESH}, None, {"events": FRESH - 7 * DAY, "events/b": NOW - 30 * DAY}, id="a new metric"
        ),
        pytest.param({"a": FRESH, "b": LAGGING}, NOW - 3 * DAY, {"events": NOW - 3 * DAY}, id="since"),
        pytest.param({}, NOW + DAY, {"events": NOW + DAY}, id="since tomorrow"),
    ],
)
def test_where_reading_begins(
    watermarks: Mapping[str, datetime], since: datetime | None, starts: Mapping[str, datetime]
) -> None:
    """Metrics that stand at the same time are one stream, the others are one each."""
    chunks = plan(["a", "b", "c"], watermarks, HORIZON._replace(since=since))
    assert {chunk.stream: chunk.start for chunk in chunks} == starts
    for stream, start in starts.items():
        assert next(chunk.window.start for chunk in chunks if chunk.stream == stream) == start


def test_a_metric_that_cannot_be_counted_is_read_from_further_back() -> None:
    """As a stream of its own, beside that of the others."""
    watermarks = {f"events/{each}": FRESH for each in "abc"}
    chunks = list(event_chunks("abc", watermarks, HORIZON, True, {"b": 14 * DAY}))
    assert {chunk.stream: chunk.start for chunk in chunks} == {"events": FRESH - 7 * DAY, "events/b": FRESH - 14 * DAY}
    assert {chunk.stream: chunk.marks for chunk in chunks} == {
        "events": ("events/a", "events/c"),
        "events/b": ("events/b",),
    }


def test_a_dialect_that_reads_metric_by_metric() -> None:
    """Then each metric is a stream, which names it."""
    chunks = plan(["b", "a"], {"a": FRESH}, all_at_once=False)
    assert [(chunk.stream, chunk.subject, chunk.marks) for chunk in chunks] == [
        ("events/a", "a", ("events/a",)),
        ("events/b", "b", ("events/b",)),
    ]


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 4000)),
    st.none() | st.integers(-10, 4000),
    st.booleans(),
)
def test_every_metric_is_read_from_its_start_without_a_gap(
    ages: dict[str, int], since: int | None, all_at_once: bool
) -> None:
    """Each metric is marked by one stream only, whose windows lead from that metric's start to the end of time.

    By none where --since leaves out what has never been read: the watermark must not move over it.
    """
    horizon = HORIZON._replace(since=None if since is None else NOW - since * DAY)
    watermarks = {each: NOW - age * DAY for each, age in ages.items() if age % 5}
    chunks = plan(list(ages), watermarks, horizon, all_at_once)
    assert len({(chunk.stream, chunk.part) for chunk in chunks}) == len(chunks)
    for each in ages:
        marking = [chunk for chunk in chunks if f"events/{each}" in chunk.marks]
        never_read = horizon.as_of - horizon.first_sync
        if since is not None and horizon.since > watermarks.get(each, never_read):  # type: ignore[operator]
            assert not marking
            continue
        assert len({chunk.stream for chunk in marking}) == 1
        assert all(chunk.subject in (None, each) for chunk in marking)
        begin = horizon.start(watermarks.get(each))
        assert {chunk.start for chunk in marking} == {begin}
        windows = [chunk.window for chunk in marking]
        assert windows[0].start == begin and windows[-1].end is None
        assert all(one.end == other.start for one, other in pairwise(windows))
    assert since is not None or all(chunk.marks for chunk in chunks)


@given(st.integers(1, 36500))
def test_windows_of_all_metrics_are_bounded_in_number(days: int) -> None:
    """However much history is read: enough to read side by side, few enough to keep account of."""
    assert len(plan(["a"], {}, HORIZON._replace(first_sync=days * DAY))) <= 17


@pytest.mark.parametrize(
    ("watermark", "start"),
    [
        pytest.param(None, None, id="first"),
        pytest.param(FRESH, FRESH - DAY, id="again"),
    ],
)
def test_profiles_are_read_from_where_they_stand(watermark: datetime | None, start: datetime | None) -> None:
    """All of them at first, then those that changed, with a day of overlap."""
    known = {} if watermark is None else {"profiles": watermark}
    assert list(profile_chunks(known)) == [Chunk("profiles", Window(start, None), None, start, ("profiles",))]


def test_members_are_read_list_by_list() -> None:
    """A list that has not been read yet is read completely."""
    watermarks = {"list_members/L2": FRESH, "membership_sweep/L2": NOW}
    chunks = list(membership_chunks(["L1", "L2"], watermarks, 7 * DAY, NOW, 7 * DAY))
    assert [(chunk.stream, chunk.subject, chunk.window, chunk.marks) for chunk in chunks] == [
        ("list_members/L1", "L1", Window(None, None), ("list_members/L1",)),
        ("list_members/L2", "L2", Window(FRESH - 7 * DAY, None), ("list_members/L2",)),
    ]
    assert {chunk.kind for chunk in chunks} == {"list_members"}


@pytest.mark.parametrize(
    ("swept", "every", "is_due"),
    [
        pytest.param(None, 7 * DAY, True, id="never swept"),
        pytest.param(NOW - DAY, 7 * DAY, False, id="yesterday"),
        pytest.param(NOW - 6 * DAY, 7 * DAY, False, id="six days ago"),
        pytest.param(NOW - 7 * DAY + timedelta(minutes=10), 7 * DAY, True, id="a week ago, some minutes later"),
        pytest.param(None, timedelta(0), False, id="sweeps are off"),
    ],
)
def test_a_list_is_swept_when_it_is_time(swept: datetime | None, every: timedelta, is_due: bool) -> None:
    """All of its members are read then, in a window without bounds."""
    watermarks = {"list_members/L1": FRESH} | ({"membership_sweep/L1": swept} if swept else {})
    [chunk] = membership_chunks(["L1"], watermarks, DAY, NOW, every)
    assert (chunk.window == Window(None, None)) is is_due
    assert chunk.marks == ("list_members/L1",)


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        pytest.param([], {*DIMENSIONS, "events", "profiles", "list_members"}, id="all"),
        pytest.param(["metrics"], {"metrics", "lists"}, id="what is always read"),
        pytest.param(["opens"], {"metrics", "lists", "events"}, id="events"),
        pytest.param(["automations"], {"metrics", "lists", "flows"}, id="flows"),
        pytest.param(["lists"], {"metrics", "lists", "segments"}, id="lists"),
        pytest.param(["campaigns"], {"metrics", "lists", "campaigns", "events"}, id="campaigns of flows, too"),
        pytest.param(["members"], {"metrics", "lists", "events", "profiles"}, id="members"),
        pytest.param(["member_exclusions"], {"metrics", "lists", "exclusions"}, id="exclusions"),
    ],
)
def test_streams_that_fill_the_tables(tables: list[str], expected: set[str]) -> None:
    """Only what the named tables need is read, and the metrics and lists that others are planned from."""
    assert streams(tables) == expected


@pytest.mark.parametrize("table", [table.name for table in SPECIFIED])
def test_every_table_has_a_stream(table: str) -> None:
    """Nothing can be asked for that no stream fills."""
    assert streams([table]) - {"metrics", "lists"} or table in {"metrics", "lists"}


def test_an_unknown_table_is_told() -> None:
    """One sentence that names the tables there are."""
    with pytest.raises(BadSettings, match=r"^There is no table open; there are automations, .*unsubscribes\.$"):
        streams(["opens", "open"])


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        pytest.param(Chunk("metrics"), "metrics", id="everything"),
        pytest.param(Chunk("events/a", Window(NOW, None)), "events/a 2026-07-01T00:00..", id="a window"),
    ],
)
def test_a_chunk_in_words(chunk: Chunk, text: str) -> None:
    """What a log says of a chunk."""
    assert str(chunk) == text
