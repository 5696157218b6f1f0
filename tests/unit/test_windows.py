"""Stretches of time, and how a long one is cut."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.windows import Window, floor, open_windows

moments = st.datetimes(datetime(2012, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
lengths = st.timedeltas(timedelta(days=1), timedelta(days=4000))


@given(moments, moments, lengths)
def test_windows_cover_everything_from_the_start_without_gap_or_overlap(
    start: datetime, until: datetime, longest: timedelta
) -> None:
    """Half-open, each beginning where the one before ends, in order, the last without an end."""
    windows = list(open_windows(start, until, longest))
    assert windows[0].start == start.replace(microsecond=0)
    assert windows[-1].end is None
    for one, next_one in pairwise(windows):
        assert one.end == next_one.start
        assert one.start is not None and one.end is not None and one.start < one.end


@given(moments, moments, lengths)
def test_windows_are_even_and_no_longer_than_asked(start: datetime, until: datetime, longest: timedelta) -> None:
    """As few windows as the longest length allows, the open one up to `until` included."""
    windows = list(open_windows(start, until, longest))
    edges = [window.start for window in windows if window.start is not None] + [max(start, until)]
    lengths = [end - begin for begin, end in pairwise(edges)]
    assert max(lengths) <= longest + timedelta(seconds=1)
    assert len(windows) == max(1, -(-(until - start) // longest))


@given(moments, st.timedeltas(timedelta(0), timedelta(days=4000)), lengths)
def test_windows_have_names_of_their_own(start: datetime, age: timedelta, longest: timedelta) -> None:
    """A window's name is its identity in the ledger."""
    names = [str(window) for window in open_windows(start, start + age, longest)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=30)])
def test_a_start_at_or_after_the_present_gives_one_open_window(ahead: timedelta) -> None:
    """There is nothing to cut, but events of the future are to be read."""
    now = datetime(2026, 7, 1, tzinfo=UTC)
    assert list(open_windows(now + ahead, now, timedelta(days=1))) == [Window(now + ahead, None)]


@pytest.mark.parametrize(
    ("window", "seconds", "name"),
    [
        pytest.param(Window(None, None), (-inf, inf), "..", id="everything"),
        pytest.param(Window(datetime(1970, 1, 2, tzinfo=UTC), None), (86400, inf), "1970-01-02T00:00..", id="open"),
        pytest.param(
            Window(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), datetime(1970, 1, 1, 1, tzinfo=UTC)),
            (0, 3600),
            "1970-01-01T00:00..1970-01-01T01:00",
            id="another offset",
        ),
    ],
)
def test_bounds_in_seconds_and_in_words(window: Window, seconds: tuple[float, float], name: str) -> None:
    """A missing bound is an infinity, and no word; all others are in UTC."""
    assert window.seconds == seconds
    assert str(window) == name


@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from([timedelta(hours=1), timedelta(days=1)]))
def test_floor_is_the_last_whole_step(moment: datetime, step: timedelta) -> None:
    """As the hour or the day is written, in the years before 1970, too."""
    whole = moment.replace(minute=0, second=0, microsecond=0)
    assert floor(moment, step) == (whole if step < timedelta(days=1) else whole.replace(hour=0))
