"""The source's counts compared with what is stored: what differs, what is read again, and what is reported."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.postgres.ledgers.reconciliation import Comparison, Key
from klaviyo_pg.states import CountState
from klaviyo_pg.windows import Window
from pipeline.reconcile.check import described
from pipeline.reconcile.compare import (
    EventCounts,
    comparable,
    compare,
    needs_reread,
    newly_differing,
    period,
    rows,
    sentences,
    windows_to_read,
)

MIDNIGHT = datetime(2026, 7, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TODAY = Window(MIDNIGHT, MIDNIGHT + DAY)
NOW = MIDNIGHT + 2 * DAY


def hours(*events: int) -> EventCounts:
    """Return counts of the first hours of the day."""
    return {MIDNIGHT + at * HOUR: number for at, number in enumerate(events)}


def hour(at: int, source: int, warehouse: int, reread_at: datetime | None = None) -> Comparison:
    """Return the comparison of one hour of the day."""
    start = MIDNIGHT + at * HOUR
    state = CountState.DIFFERS if source != warehouse else CountState.COMPLETE
    return Comparison("a", start, start + HOUR, source, warehouse, state, reread_at)


def day(source: int, warehouse: int, state: CountState, reread_at: datetime | None = None) -> Comparison:
    """Return the comparison of the whole day."""
    return Comparison("a", MIDNIGHT, MIDNIGHT + DAY, source, warehouse, state, reread_at)


def by_key(*comparisons: Comparison) -> Mapping[Key, Comparison]:
    """Return comparisons as an earlier check has stored them."""
    return {each.key: each for each in comparisons}


@pytest.mark.parametrize(
    ("as_of", "step", "end"),
    [
        pytest.param(MIDNIGHT + 10.5 * HOUR, HOUR, MIDNIGHT + 9 * HOUR, id="hours"),
        pytest.param(MIDNIGHT + 10 * HOUR, HOUR, MIDNIGHT + 9 * HOUR, id="a whole hour"),
        pytest.param(MIDNIGHT + 10.5 * HOUR, DAY, MIDNIGHT, id="days"),
        pytest.param(MIDNIGHT + HOUR / 2, DAY, MIDNIGHT - DAY, id="days, soon after midnight"),
    ],
)
def test_the_last_hour_is_not_compared(as_of: datetime, step: timedelta, end: datetime) -> None:
    """The period of a check begins at a midnight, and ends with a whole step that ended an hour ago or earlier."""
    assert period(as_of, 30, step) == Window(MIDNIGHT - 30 * DAY, end)


@pytest.mark.parametrize(
    ("loaded", "step", "expected"),
    [
        pytest.param([], HOUR, [], id="nothing is loaded"),
        pytest.param([(-5, 30)], HOUR, [(0, 24)], id="everything"),
        pytest.param([(2.5, 10.5)], HOUR, [(3, 10)], id="whole hours only"),
        pytest.param([(2.5, 10.5)], DAY, [], id="whole days only"),
        pytest.param([(2.5, 5.5), (5.5, 8)], HOUR, [(3, 8)], id="adjacent windows"),
        pytest.param([(6, 8), (2, 7), (12, 13)], HOUR, [(2, 8), (12, 13)], id="overlapping windows and a gap"),
        pytest.param([(2.2, 2.8)], HOUR, [], id="less than an hour"),
        pytest.param([(30, 40)], HOUR, [], id="at another time"),
    ],
)
def test_only_what_is_loaded_is_compared(
    loaded: list[tuple[float, float]], step: timedelta, expected: list[tuple[float, float]]
) -> None:
    """History that was never loaded is no difference."""
    windows = [Window(MIDNIGHT + start * HOUR, MIDNIGHT + end * HOUR) for start, end in loaded]
    assert comparable(windows, TODAY, step) == [
        Window(MIDNIGHT + start * HOUR, MIDNIGHT + end * HOUR) for start, end in expected
    ]


def test_a_complete_day_is_one_row() -> None:
    """It makes no difference what its hours contain."""
    compared = compare("a", [TODAY], HOUR, hours(1, 2, 3), hours(1, 2, 3), {})
    assert compared == ([day(6, 6, CountState.COMPLETE)], [])


def test_a_day_differs_if_an_hour_does() -> None:
    """Even if its sum is right. The hours that differ are compared one by one."""
    [whole], steps = compare("a", [TODAY], HOUR, hours(5, 2, 3), hours(4, 3, 3), {})
    assert (whole.state, whole.difference) == (CountState.DIFFERS, 0)
    assert steps == [hour(0, 5, 4), hour(1, 2, 3)]
    assert [each.difference for each in steps] == [-1, 1]


def test_a_metric_without_counts_is_uncounted() -> None:
    """Each of its days has the number of stored events."""
    compared = compare("a", [Window(MIDNIGHT, MIDNIGHT + 2 * DAY)], HOUR, None, hours(4), {})
    assert [(each.source_events, each.warehouse_events, each.state) for each in compared.days] == [
        (None, 4, CountState.UNCOUNTED),
        (None, 0, CountState.UNCOUNTED),
    ]
    assert compared.steps == []


def test_windows_may_contain_parts_of_days() -> None:
    """Only the part of a day that is loaded is compared, and a gap divides a day."""
    windows = [
        Window(MIDNIGHT - HOUR, MIDNIGHT + 2 * HOUR),
        Window(MIDNIGHT + 20 * HOUR, MIDNIGHT + DAY),
    ]
    days = compare("a", windows, HOUR, {}, {}, {}).days
    assert [(each.window_start, each.window_end) for each in days] == [
        (MIDNIGHT - HOUR, MIDNIGHT),
        (MIDNIGHT, MIDNIGHT + 2 * HOUR),
        (MIDNIGHT + 20 * HOUR, MIDNIGHT + DAY),
    ]


@pytest.mark.parametrize(
    ("now", "before", "daily", "reconcile"),
    [
        pytest.param(hour(0, 5, 5), None, False, False, id="complete"),
        pytest.param(hour(0, 6, 5), None, True, True, id="missing"),
        pytest.param(hour(0, 6, 5), hour(0, 6, 5), True, True, id="missing, not read again yet"),
        pytest.param(hour(0, 6, 5), hour(0, 6, 5, NOW), False, False, id="still missing"),
        pytest.param(hour(0, 7, 5), hour(0, 6, 5, NOW), True, True, id="one more is missing"),
        pytest.param(hour(0, 4, 5), None, False, True, id="lost at the source"),
        pytest.param(hour(0, 4, 5), hour(0, 4, 5), False, True, id="lost, not read again yet"),
        pytest.param(hour(0, 4, 5), hour(0, 4, 5, NOW), False, False, id="still lost"),
        pytest.param(hour(0, 3, 5), hour(0, 4, 5, NOW), False, True, id="another one lost"),
        pytest.param(hour(0, 5, 5), hour(0, 4, 5, NOW), True, True, id="one lost and one late"),
        pytest.param(hour(0, 5, 5), hour(0, 6, 5, NOW), False, False, id="missing ones are no longer counted"),
        pytest.param(
            Comparison("a", MIDNIGHT, NOW, None, 5, CountState.UNCOUNTED), None, False, False, id="not counted"
        ),
    ],
)
def test_differences_are_read_again_once(
    now: Comparison, before: Comparison | None, daily: bool, reconcile: bool
) -> None:
    """Daily runs read again if the source has more events, reconcile whatever differs; neither for the same counts."""
    assert needs_reread(now, before, surplus=False) is daily
    assert needs_reread(now, before, surplus=True) is reconcile


@pytest.mark.parametrize(
    ("steps", "page", "expected"),
    [
        pytest.param([], 10, [], id="none"),
        pytest.param([0, 1, 2], 1, [(0, 3)], id="adjacent"),
        pytest.param([0, 3], 40, [(0, 4)], id="on one page"),
        pytest.param([0, 3], 39, [(0, 1), (3, 4)], id="too many events in between"),
        pytest.param([0, 2, 4], 30, [(0, 3), (4, 5)], id="as many as fit"),
    ],
)
def test_steps_that_fit_on_one_page_are_read_with_one_request(
    steps: list[int], page: int, expected: list[tuple[int, int]]
) -> None:
    windows = windows_to_read((hour(at, 10, 9) for at in steps), hours(*[10] * 24), page)
    assert windows == [Window(MIDNIGHT + start * HOUR, MIDNIGHT + end * HOUR) for start, end in expected]


@given(st.sets(st.integers(0, 23)), st.integers(1, 300), st.lists(st.integers(0, 50), min_size=24, max_size=24))
def test_windows_to_read_contain_every_step_once(steps: set[int], page: int, counts: list[int]) -> None:
    """None begins or ends with another hour, and they are in order and do not touch."""
    source = {at: number for at, number in hours(*counts).items() if number}
    windows = windows_to_read((hour(at, counts[at], 0) for at in sorted(steps)), source, page)
    starts = {MIDNIGHT + at * HOUR for at in steps}
    assert {window.start for window in windows} <= starts
    assert {window.end for window in windows} <= {start + HOUR for start in starts}
    assert all(sum(window.start <= start < window.end for window in windows) == 1 for start in starts)
    assert all(one.end < other.start for one, other in pairwise(windows))


def stored_rows(
    source: EventCounts, stored: EventCounts, before: Iterable[Comparison], reread: Iterable[int] = ()
) -> list[Comparison]:
    """Return the rows that a check of the day stores if it has read these hours again."""
    earlier = by_key(*before)
    compared = compare("a", [TODAY], HOUR, source, stored, earlier)
    return rows(compared, earlier, {hour(at, 0, 0).key for at in reread}, NOW)


def test_the_time_of_a_reread_is_stored_with_its_counts() -> None:
    """An hour loses it when its counts change; the day keeps it."""
    first = stored_rows(hours(5, 3), hours(4, 2), [], reread=[0, 1])
    assert [(row.window_end - row.window_start, row.reread_at) for row in first] == [
        (DAY, NOW),
        (HOUR, NOW),
        (HOUR, NOW),
    ]
    whole, *second = stored_rows(hours(5, 4), hours(4, 2), [row._replace(reread_at=MIDNIGHT) for row in first])
    assert second == [hour(0, 5, 4, MIDNIGHT), hour(1, 4, 2)]
    assert whole.reread_at == MIDNIGHT
    assert stored_rows(hours(5, 4), hours(5, 4), [whole, *second], reread=[0]) == [day(9, 9, CountState.COMPLETE, NOW)]


def test_days_are_steps_in_the_legacy_dialect() -> None:
    """There is one row for a day, with the counts that remained when it was read again."""
    whole = day(5, 4, CountState.DIFFERS)
    compared = compare("a", [TODAY], DAY, hours(5), hours(4), {})
    assert compared == ([whole], [whole])
    [row] = rows(compared, {}, {whole.key}, NOW)
    assert row == whole._replace(reread_at=NOW)
    assert not needs_reread(whole, row, surplus=True)


@pytest.mark.parametrize(
    ("before", "is_new_to_daily", "is_new_to_reconcile"),
    [
        pytest.param([], True, True, id="never reported"),
        pytest.param([hour(0, 5, 4)], False, True, id="reported by a daily run"),
        pytest.param([hour(0, 5, 4, NOW)], False, False, id="read again, too"),
        pytest.param([hour(0, 6, 4, NOW)], True, True, id="with another count"),
    ],
)
def test_a_difference_is_reported_once(
    before: list[Comparison], is_new_to_daily: bool, is_new_to_reconcile: bool
) -> None:
    """It is no news while both counts stay. For reconcile it is news even if a daily run has noticed it."""
    compared = compare("a", [TODAY], HOUR, hours(5), hours(4), by_key(*before))
    for is_new, reread_counts in ((is_new_to_daily, False), (is_new_to_reconcile, True)):
        expected = compared.days if is_new else []
        assert newly_differing(compared, by_key(*before), reread_counts) == expected


def test_a_report_has_both_counts_and_at_most_ten_days() -> None:
    """Other days are added up, and so are those that were reported before."""
    difference = day(1_234, 1_200, CountState.DIFFERS)
    line = "Opened Email, 2026-07-01: the source counts 1,234 events, the warehouse has 1,200."
    one = day(1, 0, CountState.DIFFERS)
    assert sentences([], []) == []
    assert sentences([(difference, "Opened Email")], [one]) == [
        line,
        "1 day differs as in an earlier check: the source counts 1 event, the warehouse has 0.",
    ]
    assert sentences([], [difference] * 2) == [
        "2 days differ as in an earlier check: the source counts 2,468 events, the warehouse has 2,400."
    ]
    assert sentences([(difference, "Opened Email")] * 12, []) == [
        *[line] * 10,
        "2 more days differ: the source counts 2,468 events, the warehouse has 2,400. See the table reconciliation.",
    ]


def test_adjacent_steps_are_read_in_chunks() -> None:
    """Of about so many events, also if an import has added more than one process should read."""
    windows = windows_to_read((hour(at, 10, 0) for at in range(6)), hours(*[10] * 24), 1, chunk=20)
    assert windows == [Window(MIDNIGHT + at * HOUR, MIDNIGHT + (at + 2) * HOUR) for at in (0, 2, 4)]


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ((25, 775, 0, 0), "Compared 775 daily counts of 25 metrics in June: all of them agree"),
        ((1, 31, 1, 0), "Compared 31 daily counts of 1 metric in June: 1 of them differs"),
        ((3, 62, 4, 1), "Compared 62 daily counts of 3 metrics in June: 4 of them differ; 1 metric cannot be counted"),
    ],
)
def test_the_result_of_comparing_counts_is_a_sentence(numbers: tuple[int, int, int, int], sentence: str) -> None:
    assert described("June", *numbers) == sentence
