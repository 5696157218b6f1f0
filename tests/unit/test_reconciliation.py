"""What the source counts beside what is stored: compared, read again where that may help, told with both numbers."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg import reconciliation
from klaviyo_pg.reconciliation import COMPLETE, DIFFERS, UNCOUNTED, Compared, Counts, compare, key
from klaviyo_pg.windows import Window

MIDNIGHT = datetime(2026, 7, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TODAY = Window(MIDNIGHT, MIDNIGHT + DAY)
NOW = MIDNIGHT + 2 * DAY


def hours(*events: int) -> Counts:
    """Counts of the first hours of the day."""
    return {MIDNIGHT + at * HOUR: number for at, number in enumerate(events)}


def hour(at: int, source: int, warehouse: int, read_again_at: datetime | None = None) -> Compared:
    """One hour of the day, compared."""
    start = MIDNIGHT + at * HOUR
    return Compared(
        "a", start, start + HOUR, source, warehouse, DIFFERS if source != warehouse else COMPLETE, read_again_at
    )


@pytest.mark.parametrize(
    ("as_of", "step", "end"),
    [
        pytest.param(MIDNIGHT + 10.5 * HOUR, HOUR, MIDNIGHT + 9 * HOUR, id="hours"),
        pytest.param(MIDNIGHT + 10 * HOUR, HOUR, MIDNIGHT + 9 * HOUR, id="a whole hour"),
        pytest.param(MIDNIGHT + 10.5 * HOUR, DAY, MIDNIGHT, id="days"),
        pytest.param(MIDNIGHT + HOUR / 2, DAY, MIDNIGHT - DAY, id="days, soon after midnight"),
    ],
)
def test_the_last_hour_is_not_judged(as_of: datetime, step: timedelta, end: datetime) -> None:
    """What a check judges begins at a midnight and ends at a whole step that is over for an hour."""
    assert reconciliation.period(as_of, 30, step) == Window(MIDNIGHT - 30 * DAY, end)


@pytest.mark.parametrize(
    ("claimed", "step", "expected"),
    [
        pytest.param([], HOUR, [], id="nothing has been read"),
        pytest.param([(-5, 30)], HOUR, [(0, 24)], id="everything"),
        pytest.param([(2.5, 10.5)], HOUR, [(3, 10)], id="whole hours only"),
        pytest.param([(2.5, 10.5)], DAY, [], id="whole days only"),
        pytest.param([(2.5, 5.5), (5.5, 8)], HOUR, [(3, 8)], id="adjoining"),
        pytest.param([(6, 8), (2, 7), (12, 13)], HOUR, [(2, 8), (12, 13)], id="overlapping, and a gap"),
        pytest.param([(2.2, 2.8)], HOUR, [], id="less than an hour"),
        pytest.param([(30, 40)], HOUR, [], id="at another time"),
    ],
)
def test_only_what_has_been_read_is_judged(
    claimed: list[tuple[float, float]], step: timedelta, expected: list[tuple[float, float]]
) -> None:
    """History that was never loaded is no difference."""
    windows = [Window(MIDNIGHT + start * HOUR, MIDNIGHT + end * HOUR) for start, end in claimed]
    assert reconciliation.judged(windows, TODAY, step) == [
        Window(MIDNIGHT + start * HOUR, MIDNIGHT + end * HOUR) for start, end in expected
    ]


def test_a_complete_day_is_one_row() -> None:
    """Whatever its hours hold."""
    checked = compare("a", [TODAY], HOUR, hours(1, 2, 3), hours(1, 2, 3), {})
    assert checked == ([Compared("a", MIDNIGHT, MIDNIGHT + DAY, 6, 6, COMPLETE)], [])


def test_a_day_differs_where_an_hour_does() -> None:
    """Even if its sum is right; the hours are told."""
    [day], steps = compare("a", [TODAY], HOUR, hours(5, 2, 3), hours(4, 3, 3), {})
    assert (day.state, day.difference) == (DIFFERS, 0)
    assert steps == [hour(0, 5, 4), hour(1, 2, 3)]
    assert [each.difference for each in steps] == [-1, 1]


def test_a_metric_that_is_not_counted() -> None:
    """Each of its days says so, and how many events are stored."""
    checked = compare("a", [Window(MIDNIGHT, MIDNIGHT + 2 * DAY)], HOUR, None, hours(4), {})
    assert [(day.source_events, day.warehouse_events, day.state) for day in checked.days] == [
        (None, 4, UNCOUNTED),
        (None, 0, UNCOUNTED),
    ]
    assert checked.steps == []


def test_parts_of_days() -> None:
    """A window that begins or ends within a day judges a part of it; a gap makes two parts."""
    windows = [
        Window(MIDNIGHT - HOUR, MIDNIGHT + 2 * HOUR),
        Window(MIDNIGHT + 20 * HOUR, MIDNIGHT + DAY),
    ]
    days = compare("a", windows, HOUR, {}, {}, {}).days
    assert [(day.window_start, day.window_end) for day in days] == [
        (MIDNIGHT - HOUR, MIDNIGHT),
        (MIDNIGHT, MIDNIGHT + 2 * HOUR),
        (MIDNIGHT + 20 * HOUR, MIDNIGHT + DAY),
    ]


@pytest.mark.parametrize(
    ("now", "before", "daily", "check"),
    [
        pytest.param(hour(0, 5, 5), None, False, False, id="complete"),
        pytest.param(hour(0, 6, 5), None, True, True, id="missing"),
        pytest.param(hour(0, 6, 5), hour(0, 6, 5), True, True, id="missing, and not read since"),
        pytest.param(hour(0, 6, 5), hour(0, 6, 5, NOW), False, False, id="missing still"),
        pytest.param(hour(0, 7, 5), hour(0, 6, 5, NOW), True, True, id="one more is missing"),
        pytest.param(hour(0, 4, 5), None, False, True, id="lost at the source"),
        pytest.param(hour(0, 4, 5), hour(0, 4, 5), False, True, id="lost, and not read since"),
        pytest.param(hour(0, 4, 5), hour(0, 4, 5, NOW), False, False, id="lost still"),
        pytest.param(hour(0, 3, 5), hour(0, 4, 5, NOW), False, True, id="another one lost"),
        pytest.param(hour(0, 5, 5), hour(0, 4, 5, NOW), True, True, id="one lost, one late: as many as are stored"),
        pytest.param(hour(0, 5, 5), hour(0, 6, 5, NOW), False, False, id="what was missing has been taken back"),
        pytest.param(Compared("a", MIDNIGHT, NOW, None, 5, UNCOUNTED), None, False, False, id="not counted"),
    ],
)
def test_what_is_read_again(now: Compared, before: Compared | None, daily: bool, check: bool) -> None:
    """By daily runs what the source has gained, by a check whatever differs; neither for the same two numbers twice."""
    assert reconciliation.is_to_be_read(now, before, surplus=False) is daily
    assert reconciliation.is_to_be_read(now, before, surplus=True) is check


@pytest.mark.parametrize(
    ("steps", "page", "expected"),
    [
        pytest.param([], 10, [], id="none"),
        pytest.param([0, 1, 2], 1, [(0, 3)], id="adjoining"),
        pytest.param([0, 3], 40, [(0, 4)], id="near enough for one page"),
        pytest.param([0, 3], 39, [(0, 1), (3, 4)], id="too much between"),
        pytest.param([0, 2, 4], 30, [(0, 3), (4, 5)], id="as many as fit"),
    ],
)
def test_windows_to_read(steps: list[int], page: int, expected: list[tuple[int, int]]) -> None:
    """Adjoining hours are one window, and so are hours that one request gets anyhow."""
    found = reconciliation.windows_to_read((hour(at, 10, 9) for at in steps), hours(*[10] * 24), page)
    assert found == [Window(MIDNIGHT + start * HOUR, MIDNIGHT + end * HOUR) for start, end in expected]


@given(st.sets(st.integers(0, 23)), st.integers(1, 300), st.lists(st.integers(0, 50), min_size=24, max_size=24))
def test_windows_hold_what_is_to_be_read(steps: set[int], page: int, counts: list[int]) -> None:
    """Every hour lies in one window, none begins or ends with another hour, and they are in order and apart."""
    source = {at: number for at, number in hours(*counts).items() if number}
    windows = reconciliation.windows_to_read((hour(at, counts[at], 0) for at in sorted(steps)), source, page)
    starts = {MIDNIGHT + at * HOUR for at in steps}
    assert {window.start for window in windows} <= starts
    assert {window.end for window in windows} <= {start + HOUR for start in starts}
    assert all(sum(window.start <= start < window.end for window in windows) == 1 for start in starts)  # type: ignore[operator]
    assert all(one.end < other.start for one, other in pairwise(windows))  # type: ignore[operator]


def known(*found: Compared) -> dict[reconciliation.Key, Compared]:
    return {key(each): each for each in found}


def kept(source: Counts, stored: Counts, before: Iterable[Compared], read: Iterable[int] = ()) -> list[Compared]:
    """The rows that a check of the day leaves, of which these hours were read again."""
    left = known(*before)
    checked = compare("a", [TODAY], HOUR, source, stored, left)
    return reconciliation.rows(checked, left, {key(hour(at, 0, 0)) for at in read}, NOW)


def test_what_is_kept_of_a_check() -> None:
    """When an hour was read again stays with its two numbers, and goes when they change; with the day it stays."""
    first = kept(hours(5, 3), hours(4, 2), [], read=[0, 1])
    assert [(row.window_end - row.window_start, row.read_again_at) for row in first] == [
        (DAY, NOW),
        (HOUR, NOW),
        (HOUR, NOW),
    ]
    day, *second = kept(hours(5, 4), hours(4, 2), [row._replace(read_again_at=MIDNIGHT) for row in first])
    assert second == [hour(0, 5, 4, MIDNIGHT), hour(1, 4, 2)]
    assert day.read_again_at == MIDNIGHT
    assert kept(hours(5, 4), hours(5, 4), [day, *second], read=[0]) == [
        Compared("a", MIDNIGHT, MIDNIGHT + DAY, 9, 9, COMPLETE, NOW)
    ]


def test_days_are_their_own_steps_in_the_legacy_dialect() -> None:
    """There is one row for a day, with what was left when it was read."""
    day = Compared("a", MIDNIGHT, MIDNIGHT + DAY, 5, 4, DIFFERS)
    checked = compare("a", [TODAY], DAY, hours(5), hours(4), {})
    assert checked == ([day], [day])
    [row] = reconciliation.rows(checked, {}, {key(day)}, NOW)
    assert row == day._replace(read_again_at=NOW)
    assert not reconciliation.is_to_be_read(day, row, surplus=True)


@pytest.mark.parametrize(
    ("before", "is_new_to_daily", "is_new_to_check"),
    [
        pytest.param([], True, True, id="never told"),
        pytest.param([hour(0, 5, 4)], False, True, id="by a daily run"),
        pytest.param([hour(0, 5, 4, NOW)], False, False, id="and read again"),
        pytest.param([hour(0, 6, 4, NOW)], True, True, id="another number"),
    ],
)
def test_a_difference_is_told_once(before: list[Compared], is_new_to_daily: bool, is_new_to_check: bool) -> None:
    """Not again while both numbers stay; a check tells what a daily run only noticed."""
    checked = compare("a", [TODAY], HOUR, hours(5), hours(4), known(*before))
    for is_new, read_since in ((is_new_to_daily, False), (is_new_to_check, True)):
        expected = (checked.days, 0) if is_new else ([], 1)
        assert reconciliation.differing(checked, known(*before), read_since) == expected


def test_differences_in_words() -> None:
    """Both numbers, ten days at most."""
    day = Compared("a", MIDNIGHT, MIDNIGHT + DAY, 1_234, 1_200, DIFFERS)
    told = "Opened Email, 2026-07-01: the source counts 1,234 events, the warehouse holds 1,200."
    assert reconciliation.sentences([], 0) == []
    assert reconciliation.sentences([(day, "Opened Email")], 1) == [told, "As an earlier check told: 1 day differs."]
    assert reconciliation.sentences([(day, "Opened Email")] * 12, 0) == [
        *[told] * 10,
        "2 days differ more: see the table reconciliation.",
    ]
