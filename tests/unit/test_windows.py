"""Time windows, and how a long one is cut."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.windows import (
    FULL_READ,
    AnyWindow,
    OpenWindow,
    Window,
    divided,
    exact,
    floor,
    history_window,
    open_windows,
    parse,
)

moments = st.datetimes(datetime(2012, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
lengths = st.timedeltas(timedelta(days=1), timedelta(days=4000))
JULY, AUGUST, SEPTEMBER = (datetime(2026, month, 1, tzinfo=UTC) for month in (7, 8, 9))


@given(moments, moments, lengths)
def test_windows_cover_everything_from_the_start_without_gap_or_overlap(
    start: datetime, until: datetime, longest: timedelta
) -> None:
    """Each window begins where the one before it ends, and only the last one has no end."""
    *bounded, last = open_windows(start, until, longest)
    windows = [*bounded, last]
    assert windows[0].start == start.replace(microsecond=0)
    assert isinstance(last, OpenWindow) and last.start is not None
    for window, following in pairwise(windows):
        assert isinstance(window, Window)
        assert window.start < window.end == following.start


@given(moments, moments, lengths)
def test_windows_are_even_and_no_longer_than_requested(start: datetime, until: datetime, longest: timedelta) -> None:
    """There are as few windows as the longest length allows, where the open one ends at `until`."""
    windows = list(open_windows(start, until, longest))
    bounds = [window.start for window in windows if window.start is not None] + [max(start, until)]
    lengths = [end - begin for begin, end in pairwise(bounds)]
    assert max(lengths) <= longest + timedelta(seconds=1)
    assert len(windows) == max(1, -(-(until - start) // longest))


@given(moments, st.timedeltas(timedelta(0), timedelta(days=4000)), lengths)
def test_windows_have_unique_names(start: datetime, age: timedelta, longest: timedelta) -> None:
    """The name of a window is its identity in the ledger."""
    names = [str(window) for window in open_windows(start, start + age, longest)]
    assert len(set(names)) == len(names)


def test_a_bound_without_a_zone_is_in_utc() -> None:
    """Earlier versions wrote windows of profiles like this."""
    assert parse("2026-07-01T00:00..") == OpenWindow(JULY)
    assert parse("2026-07-01T00:00..2026-08-01T00:00") == Window(JULY, AUGUST)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=30)])
def test_a_start_at_or_after_the_present_gives_one_open_window(ahead: timedelta) -> None:
    """There is nothing to cut, but events dated in the future must be read."""
    now = datetime(2026, 7, 1, tzinfo=UTC)
    assert list(open_windows(now + ahead, now, timedelta(days=1))) == [OpenWindow(now + ahead)]


@pytest.mark.parametrize(
    ("window", "seconds", "name"),
    [
        pytest.param(FULL_READ, (-inf, inf), "..", id="everything"),
        pytest.param(OpenWindow(datetime(1970, 1, 2, tzinfo=UTC)), (86400, inf), "1970-01-02T00:00..", id="open"),
        pytest.param(
            Window(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), datetime(1970, 1, 1, 1, tzinfo=UTC)),
            (0, 3600),
            "1970-01-01T00:00..1970-01-01T01:00",
            id="another offset",
        ),
    ],
)
def test_bounds_in_seconds_and_in_the_name(window: AnyWindow, seconds: tuple[float, float], name: str) -> None:
    """A missing bound is infinite, and left out of the name. All times in a name are in UTC."""
    assert window.seconds == seconds
    assert str(window) == name


@pytest.mark.parametrize(
    ("window", "checkpoint", "rest"),
    [
        pytest.param(Window(JULY, SEPTEMBER), None, Window(JULY, SEPTEMBER), id="nothing stored yet"),
        pytest.param(Window(JULY, SEPTEMBER), AUGUST, Window(AUGUST, SEPTEMBER), id="half of it stored"),
        pytest.param(Window(AUGUST, SEPTEMBER), JULY, Window(AUGUST, SEPTEMBER), id="a checkpoint before the window"),
        pytest.param(OpenWindow(JULY), None, OpenWindow(JULY), id="open, nothing stored yet"),
        pytest.param(OpenWindow(JULY), AUGUST, OpenWindow(AUGUST), id="open"),
        pytest.param(OpenWindow(AUGUST), JULY, OpenWindow(AUGUST), id="open, a checkpoint before the window"),
        pytest.param(FULL_READ, AUGUST, OpenWindow(AUGUST), id="a full read"),
    ],
)
def test_a_window_resumes_at_its_checkpoint(window: AnyWindow, checkpoint: datetime | None, rest: AnyWindow) -> None:
    """A resumed window never begins before the window itself."""
    assert window.resumed_at(checkpoint) == rest


@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from([timedelta(hours=1), timedelta(days=1)]))
def test_floor_is_the_last_whole_step(moment: datetime, step: timedelta) -> None:
    """This is the hour or the day as written, also before 1970."""
    whole = moment.replace(minute=0, second=0, microsecond=0)
    assert floor(moment, step) == (whole if step < timedelta(days=1) else whole.replace(hour=0))


@pytest.mark.parametrize(
    "window",
    [
        FULL_READ,
        OpenWindow(datetime(2026, 1, 1, 2, 3, 4, 5, tzinfo=UTC)),
        Window(datetime(2026, 1, 1, 2, 3, 4, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    ],
    ids=str,
)
def test_a_window_is_made_from_its_exact_name(window: AnyWindow) -> None:
    assert parse(exact(window)) == window


@pytest.mark.parametrize("seconds", [1, 2, 7, 100_000])
@pytest.mark.parametrize("end", [None, datetime(2027, 1, 1, tzinfo=UTC)])
def test_the_pieces_of_a_window_cover_it(seconds: int, end: datetime | None) -> None:
    """There are fewer pieces than wanted if the time has fewer seconds."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    window = OpenWindow(start) if end is None else Window(start, end)
    pieces = divided(window, start + timedelta(seconds=seconds), 8)
    assert (pieces[0].start, pieces[-1].end) == (window.start, window.end)
    assert all(one.end == other.start for one, other in pairwise(pieces))
    assert len(pieces) == min(8, seconds)


@pytest.mark.parametrize(
    ("start", "since", "sentence"),
    [
        pytest.param(JULY, SEPTEMBER, "EVENTS_SINCE is 2026-09-01", id="all of it is earlier than what is kept"),
        pytest.param(SEPTEMBER, JULY, "no whole day between 2026-09-01 and 2026-08-01", id="end before start"),
    ],
)
def test_history_without_a_day_is_explained(start: datetime, since: datetime, sentence: str) -> None:
    with pytest.raises(BadSettings, match=sentence):
        history_window(datetime(2026, 10, 1, tzinfo=UTC), start, AUGUST, since)
