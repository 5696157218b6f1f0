"""Plans of daily runs: which windows of which streams are read, given what earlier runs have read."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.postgres.excluded import Extent
from klaviyo_pg.windows import FULL_READ, OpenWindow, Window
from pipeline.chunks import Chunk, key_of
from pipeline.daily.sweeps import ListSweeps, membership_chunks
from pipeline.plan import Horizon, dimension_chunks, event_chunks, exclusion_chunks, profile_chunks

NOW = datetime(2026, 7, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FRESH, LAGGING = NOW - DAY, NOW - 40 * DAY
HORIZON = Horizon(NOW, overlap=7 * DAY, first_sync=30 * DAY)


def plan(
    ids: list[str], watermarks: Mapping[str | None, datetime], horizon: Horizon = HORIZON, all_at_once: bool = True
) -> list[Chunk]:
    """Return the chunks of events for watermarks by metric; None is the read of all metrics at once."""
    marks = {key_of("events", each): moment for each, moment in watermarks.items()}
    return list(event_chunks(ids, marks, horizon, all_at_once))


@pytest.mark.parametrize(
    ("watermarks", "since", "starts"),
    [
        pytest.param({}, None, {"events": NOW - 30 * DAY}, id="first run"),
        pytest.param(dict.fromkeys([None, *"abc"], FRESH), None, {"events": FRESH - 7 * DAY}, id="overlap"),
        pytest.param(
            {None: FRESH, "a": FRESH, "b": LAGGING, "c": FRESH},
            None,
            {"events": FRESH - 7 * DAY, "events/b": LAGGING - 7 * DAY},
            id="one metric lags",
        ),
        pytest.param(
            {None: FRESH, "a": FRESH, "c": FRESH},
            None,
            {"events": FRESH - 7 * DAY, "events/b": NOW - 30 * DAY},
            id="a new metric",
        ),
        pytest.param(
            {None: FRESH, "a": LAGGING, "b": LAGGING, "c": FRESH},
            None,
            {"events": LAGGING - 7 * DAY},
            id="most metrics lag",
        ),
        pytest.param(
            {None: LAGGING, "a": FRESH, "b": FRESH, "c": LAGGING},
            None,
            {"events": LAGGING - 7 * DAY},
            id="metrics that are not listed lag",
        ),
        pytest.param(dict.fromkeys("abc", FRESH), None, {"events": NOW - 30 * DAY}, id="never read at once"),
        pytest.param({"a": FRESH, "b": LAGGING}, NOW - 3 * DAY, {"events": NOW - 3 * DAY}, id="since"),
        pytest.param({}, NOW + DAY, {"events": NOW + DAY}, id="since tomorrow"),
    ],
)
def test_events_are_read_from_the_watermark_on(
    watermarks: Mapping[str | None, datetime], since: datetime | None, starts: Mapping[str, datetime]
) -> None:
    """Metrics are read at once, except for each that begins before most others."""
    chunks = plan(["a", "b", "c"], watermarks, HORIZON._replace(since=since))
    assert {chunk.key: chunk.start for chunk in chunks} == starts
    for key, start in starts.items():
        assert next(chunk.window.start for chunk in chunks if chunk.key == key) == start


@pytest.mark.parametrize(
    ("watermark", "since", "kept_since", "start", "is_marked"),
    [
        pytest.param(None, None, NOW - 5 * DAY, NOW - 5 * DAY, True, id="first run"),
        pytest.param(None, None, LAGGING, NOW - 30 * DAY, True, id="first run, all of it kept"),
        pytest.param(FRESH, None, NOW - 5 * DAY, NOW - 5 * DAY, True, id="overlap"),
        pytest.param(LAGGING, None, NOW - 5 * DAY, LAGGING, True, id="a watermark before what is kept leaves no gap"),
        pytest.param(FRESH, NOW - 90 * DAY, NOW - 5 * DAY, NOW - 5 * DAY, True, id="since before what is kept"),
        pytest.param(LAGGING, NOW - 3 * DAY, NOW - 5 * DAY, NOW - 3 * DAY, False, id="since after a gap"),
    ],
)
def test_events_that_are_not_kept_are_not_read(
    watermark: datetime | None, since: datetime | None, kept_since: datetime, start: datetime, is_marked: bool
) -> None:
    """A watermark never stops because of them."""
    watermarks = {} if watermark is None else {None: watermark, "a": watermark}
    chunks = plan(["a"], watermarks, HORIZON._replace(since=since, kept_since=kept_since))
    assert (chunks[0].start, chunks[0].marks) == (start, (None, "a") if is_marked else ())


def test_a_metric_with_a_longer_overlap_is_read_alone() -> None:
    """Metrics that cannot be counted have one; the others share the common overlap."""
    watermarks = {key_of("events", each): FRESH for each in (None, *"abc")}
    chunks = list(event_chunks("abc", watermarks, HORIZON, True, {"b": 14 * DAY}))
    assert {chunk.key: chunk.start for chunk in chunks} == {"events": FRESH - 7 * DAY, "events/b": FRESH - 14 * DAY}
    assert {chunk.key: chunk.marks for chunk in chunks} == {"events": (None, "a", "c"), "events/b": ("b",)}


def test_a_dialect_may_read_metric_by_metric() -> None:
    """Each chunk then names its metric."""
    chunks = plan(["b", "a"], {"a": FRESH}, all_at_once=False)
    assert [(chunk.key, chunk.subject, chunk.marks) for chunk in chunks] == [
        ("events/a", "a", ("a",)),
        ("events/b", "b", ("b",)),
    ]


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 4000)),
    st.integers(0, 4000),
    st.none() | st.integers(-10, 4000),
    st.booleans(),
)
def test_every_metric_is_read_from_its_start_without_a_gap(
    ages: dict[str, int], age_of_all: int, since: int | None, all_at_once: bool
) -> None:
    """The chunks that advance a metric's watermark lead from its start on or before, and the last one has no end. So
    do those of the read of all metrics at once.

    There are none if `since` leaves out what has never been read: the watermark must not pass over it.
    """
    horizon = HORIZON._replace(since=None if since is None else NOW - since * DAY)
    subjects: dict[str | None, int] = dict(ages.items())
    if all_at_once and ages:
        subjects[None] = age_of_all
    watermarks = {each: NOW - age * DAY for each, age in subjects.items() if age % 5}
    starts = {each: horizon.start(watermarks.get(each)) for each in subjects}
    chunks = plan(list(ages), watermarks, horizon, all_at_once)
    assert len({(chunk.key, chunk.part) for chunk in chunks}) == len(chunks)
    for each in subjects:
        marking = [chunk for chunk in chunks if each in chunk.marks]
        never_read = horizon.as_of - horizon.first_sync
        if horizon.since is not None and horizon.since > watermarks.get(each, never_read):
            assert not marking
            continue
        assert len({chunk.key for chunk in marking}) == 1
        assert all(chunk.subject in (None, each) for chunk in marking)
        [begin] = {chunk.start for chunk in marking}
        assert begin is not None
        assert begin in ({starts[each]} if marking[0].subject else starts.values())
        windows = [chunk.window for chunk in marking]
        assert windows[0].start == begin <= starts[each] and windows[-1].end is None
        assert all(one.end == other.start for one, other in pairwise(windows))
    assert since is not None or all(chunk.marks for chunk in chunks)


@given(st.integers(1, 36500))
def test_the_number_of_windows_is_limited(days: int) -> None:
    """However many days the first run reads."""
    assert len(plan(["a"], {}, HORIZON._replace(first_sync=days * DAY))) <= 17


@pytest.mark.parametrize(
    ("watermark", "start"),
    [
        pytest.param(None, None, id="first run"),
        pytest.param(FRESH, FRESH - DAY, id="later run"),
    ],
)
def test_profiles_are_read_from_their_watermark_on(watermark: datetime | None, start: datetime | None) -> None:
    """The first run reads all of them, later ones those that changed, with an overlap of a day."""
    watermarks = {} if watermark is None else {"profiles": watermark}
    whole = Chunk("profiles", OpenWindow(start), None, start, (None,), is_divisible=True)
    assert list(profile_chunks(watermarks)) == [whole]


def test_members_are_read_list_by_list() -> None:
    """A list that has not been read yet is read completely."""
    watermarks = {"list_members/L2": FRESH, "membership_sweep/L2": NOW}
    chunks = list(membership_chunks(["L1", "L2"], watermarks, 7 * DAY, NOW, ListSweeps(7 * DAY, 100)))
    assert [(chunk.key, chunk.window, chunk.marks) for chunk in chunks] == [
        ("list_members/L1", FULL_READ, ("L1",)),
        ("list_members/L2", OpenWindow(FRESH - 7 * DAY), ("L2",)),
    ]
    assert {chunk.stream for chunk in chunks} == {"list_members"}


@pytest.mark.parametrize(
    ("swept", "every", "is_due"),
    [
        pytest.param(None, 7 * DAY, True, id="never swept"),
        pytest.param(NOW - DAY, 7 * DAY, False, id="yesterday"),
        pytest.param(NOW - 6 * DAY, 7 * DAY, False, id="six days ago"),
        pytest.param(NOW - 7 * DAY + timedelta(minutes=10), 7 * DAY, True, id="almost a week ago"),
        pytest.param(None, timedelta(0), False, id="sweeps are off"),
    ],
)
def test_a_list_is_swept_when_a_sweep_is_due(swept: datetime | None, every: timedelta, is_due: bool) -> None:
    """A sweep reads all members of the list."""
    watermarks = {"list_members/L1": FRESH} | ({"membership_sweep/L1": swept} if swept else {})
    [chunk] = membership_chunks(["L1"], watermarks, DAY, NOW, ListSweeps(every, 100))
    assert (chunk.window == FULL_READ) is is_due
    assert chunk.marks == ("L1",)


def test_lists_that_were_first_read_on_one_day_are_swept_on_different_days() -> None:
    """Each run sweeps the share that the time since the last one is of the interval, and none waits twice as long."""
    lists = [f"L{number:02}" for number in range(70)]
    watermarks = {f"{kind}/{each}": NOW for kind in ("list_members", "membership_sweep") for each in lists}
    swept: dict[int, list[str]] = {}
    for day in range(1, 29):
        as_of = NOW + day * DAY
        chunks = list(membership_chunks(lists, watermarks, DAY, as_of, ListSweeps(7 * DAY, 1_000)))
        swept[day] = [str(chunk.subject) for chunk in chunks if chunk.window == FULL_READ]
        watermarks |= {f"list_members/{each}": as_of for each in lists}
        watermarks |= {f"membership_sweep/{each}": as_of for each in swept[day]}
    assert {day: len(each) for day, each in swept.items()} == {day: 10 if day >= 7 else 0 for day in range(1, 29)}
    assert sorted(each for day in range(7, 14) for each in swept[day]) == lists


def days_of_sweeps(lists: Sequence[str], sweeps: ListSweeps) -> dict[str, list[int]]:
    """Return the days on which daily runs sweep each list, after all of them were swept on day 0."""
    watermarks = {f"{kind}/{each}": NOW for kind in ("list_members", "membership_sweep") for each in lists}
    swept: dict[str, list[int]] = {each: [] for each in lists}
    for day in range(1, 100):
        as_of = NOW + day * DAY
        for chunk in membership_chunks(lists, watermarks, DAY, as_of, sweeps):
            watermarks[chunk.key] = as_of
            if chunk.window == FULL_READ:
                watermarks[f"membership_sweep/{chunk.subject}"] = as_of
                swept[str(chunk.subject)].append(day)
    return swept


@pytest.mark.parametrize("number", [1, 5, 8, 10, 13, 14, 20])
def test_each_list_is_swept_once_an_interval(number: int) -> None:
    """However many lists there are, with daily runs and enough budget. The first round takes up to twice as long."""
    swept = days_of_sweeps([f"L{each:02}" for each in range(number)], ListSweeps(7 * DAY, 1_000))
    assert max(days[0] for days in swept.values()) < 14
    assert {after - day for days in swept.values() for day, after in pairwise(days)} == {7}


@pytest.mark.parametrize(
    ("addresses", "swept_on"),
    [
        pytest.param(100, [7, 14, 21, 28], id="within the budget"),
        pytest.param(10_000, [11, 22], id="the budget of twelve days"),
    ],
)
def test_lists_that_share_addresses_are_swept_on_one_day(addresses: int, swept_on: list[int]) -> None:
    """On different days, each address would be asked for on each of them. On average the budget holds.

    A list that was first read later joins the others.
    """
    lists = [f"L{number:02}" for number in range(10)]
    watermarks = {f"{kind}/{each}": NOW for kind in ("list_members", "membership_sweep") for each in lists}
    watermarks["membership_sweep/L03"] = NOW + 2 * DAY
    sweeps = ListSweeps(7 * DAY, 1_000, dict.fromkeys(lists, 2 * addresses), addresses=addresses)
    swept: dict[int, list[str]] = {}
    for day in range(1, 29):
        as_of = NOW + day * DAY
        chunks = list(membership_chunks(lists, watermarks, DAY, as_of, sweeps))
        watermarks |= {f"list_members/{each}": as_of for each in lists}
        if swept_today := [str(chunk.subject) for chunk in chunks if chunk.window == FULL_READ]:
            swept[day] = swept_today
            watermarks |= {f"membership_sweep/{each}": as_of for each in swept_today}
    assert swept == dict.fromkeys(swept_on, lists)


@pytest.mark.parametrize(
    ("lists", "pages", "addresses", "days", "kept"),
    [
        pytest.param(10, 70, 0, 10, 10, id="no two lists in a run"),
        pytest.param(10, 50, 0, 7, 7, id="within the budget"),
        pytest.param(5, 900, 0, 7, 7, id="at least one list in a run"),
        pytest.param(20, 90, 0, 14, 15, id="overdue"),
        pytest.param(2, 100, 800, 10, 10, id="addresses"),
        pytest.param(2, 100, 400, 7, 7, id="addresses within the budget"),
    ],
)
def test_the_interval_that_the_budget_allows_is_known(
    lists: int, pages: int, addresses: int, days: int, kept: int
) -> None:
    """Runs keep to it, or to the day after, when lists are overdue."""
    ids = [f"L{number:02}" for number in range(lists)]
    sweeps = ListSweeps(7 * DAY, 100, dict.fromkeys(ids, pages * 100 - 1), addresses=addresses)
    assert sweeps.interval(ids) == days * DAY
    swept = days_of_sweeps(ids, sweeps)
    assert max(after - day for each in swept.values() for day, after in pairwise(each[1:])) == kept


@pytest.mark.parametrize("pages", [1, 900])
def test_one_list_is_swept_several_times_a_day(pages: int) -> None:
    """A run always sweeps the first list, so the budget does not change the interval."""
    assert ListSweeps(DAY / 4, 100, {"L1": pages * 100 - 1}).interval(["L1"]) == DAY / 4


@pytest.mark.parametrize(
    ("days", "requests", "expected"),
    [
        pytest.param(7, 2_000, ["A", "B", "C"], id="weekly runs"),
        pytest.param(7, 1_002, ["A", "B"], id="within the budget"),
        pytest.param(7, 1, ["A"], id="at least one"),
        pytest.param(15, 1, ["A", "B", "C"], id="overdue"),
    ],
)
def test_sweeps_of_lists_keep_to_a_budget(days: int, requests: int, expected: list[str]) -> None:
    watermarks = {f"{kind}/{each}": NOW for kind in ("list_members", "membership_sweep") for each in "ABC"}
    sweeps = ListSweeps(7 * DAY, requests, {"A": 99, "B": 100_000, "C": 900})
    chunks = membership_chunks("ABC", watermarks, DAY, NOW + days * DAY, sweeps)
    assert [chunk.subject for chunk in chunks if chunk.window == FULL_READ] == expected


def test_an_interrupted_run_sweeps_the_lists_that_it_has_planned_to_sweep() -> None:
    """Those that it has swept already are read on from there, and the others are not swept in addition."""
    lists = [f"L{number:02}" for number in range(7)]
    before = {f"{kind}/{each}": NOW for kind in ("list_members", "membership_sweep") for each in lists}
    as_of, sweeps = NOW + 7 * DAY, ListSweeps(7 * DAY, 3)

    def swept(watermarks: Mapping[str, datetime], begun: Mapping[str, list[str]]) -> list[str]:
        chunks = membership_chunks(lists, watermarks, DAY, as_of, sweeps, begun)
        return [str(chunk.subject) for chunk in chunks if chunk.window == FULL_READ]

    planned = membership_chunks(lists, before, DAY, as_of, sweeps)
    begun = {chunk.key: [chunk.part] for chunk in planned}
    assert swept(before, {}) == ["L00", "L01", "L02"]
    read = {f"list_members/{each}": as_of for each in lists if each != "L01"}
    assert swept(before | read | {"membership_sweep/L00": as_of}, begun) == ["L01", "L02"]


REASONS = ("BOUNCE", "UNSUBSCRIBE")


@pytest.mark.parametrize(
    ("reasons", "stored", "windows"),
    [
        pytest.param((None,), Extent(10_000, NOW - 800 * DAY), ["exclusions .."], id="all at once"),
        pytest.param(REASONS, Extent(9_999, NOW), [f"exclusions/{each} .." for each in REASONS], id="a few"),
        pytest.param(
            ("BOUNCE",),
            Extent(10_000, NOW - 800 * DAY),
            [
                f"exclusions/BOUNCE {each}"
                for each in (
                    "2000-01-01T00:00..2025-01-01T00:00",
                    "2025-01-01T00:00..2026-01-01T00:00",
                    "2026-01-01T00:00..",
                )
            ],
            id="many",
        ),
    ],
)
def test_exclusions_are_read_by_reason_and_by_year(
    reasons: tuple[str | None, ...], stored: Extent, windows: list[str]
) -> None:
    assert [f"{chunk.key} {chunk.part}" for chunk in exclusion_chunks(reasons, stored, NOW)] == windows


def test_dimensions_are_read_in_full_and_in_order() -> None:
    """Metrics and lists come first, because the plan of the others depends on them."""
    chunks = dimension_chunks(frozenset({"flows", "lists", "metrics", "events"}))
    assert chunks == [Chunk(name, FULL_READ, marks=(None,)) for name in ("metrics", "lists", "flows")]


@pytest.mark.parametrize(
    ("chunk", "key"),
    [
        pytest.param(Chunk("metrics"), "metrics", id="full read"),
        pytest.param(Chunk("events", OpenWindow(NOW), "a"), "events/a", id="open window"),
        pytest.param(
            Chunk("events", Window(NOW, NOW + DAY), "a", reread="120000"), "events/a/reread 120000", id="reread"
        ),
    ],
)
def test_a_chunk_has_a_name_in_the_ledger(chunk: Chunk, key: str) -> None:
    assert chunk.key == key
