"""Times that people write."""

import re
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.moments import parse_moment, parse_since


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC), id="date"),
        pytest.param(20260131, datetime(2026, 1, 31, tzinfo=UTC), id="number, as of -p since=20260131"),
        pytest.param(date(2026, 1, 31), datetime(2026, 1, 31, tzinfo=UTC), id="date of Python"),
        pytest.param("2026-01-31T12:00", datetime(2026, 1, 31, 12, tzinfo=UTC), id="time"),
        pytest.param("2026-01-31T12:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC), id="UTC"),
        pytest.param(
            "2026-01-31T12:00+05:00", datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=5))), id="offset"
        ),
    ],
)
def test_since_is_a_date_or_a_time(value: object, moment: datetime | None) -> None:
    """A date or an ISO 8601 time is accepted, and is in UTC unless it has an offset."""
    assert parse_since("since", value) == moment


@pytest.mark.parametrize(
    "value",
    [
        "",
        "tomorrow",
        "1m",
        "7 days from now",
        "9999999d",
        "2026-02-30",
        "31.01.2026",
        "0001-01-01",
        "0001-01-01T00:00+05:00",
        "9999-12-31T23:00",
        2026,
        True,
        ["2026-01-31"],
    ],
)
def test_invalid_since_is_reported(value: object) -> None:
    """The error shows the caller's label, the value, and what to use instead."""
    with pytest.raises(BadSettings, match=rf"^--since {re.escape(str(value))}: use a [^.]*\.$"):
        parse_since("--since", value)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("today", datetime(2026, 3, 31, tzinfo=UTC)),
        ("yesterday", datetime(2026, 3, 30, tzinfo=UTC)),
        ("12h", datetime(2026, 3, 31, 3, tzinfo=UTC)),
        ("1 hour ago", datetime(2026, 3, 31, 14, tzinfo=UTC)),
        ("0d", datetime(2026, 3, 31, tzinfo=UTC)),
        ("7d", datetime(2026, 3, 24, tzinfo=UTC)),
        ("7 days ago", datetime(2026, 3, 24, tzinfo=UTC)),
        ("2W", datetime(2026, 3, 17, tzinfo=UTC)),
        ("1mo", datetime(2026, 2, 28, tzinfo=UTC)),
        ("3 months", datetime(2025, 12, 31, tzinfo=UTC)),
        ("2y", datetime(2024, 3, 31, tzinfo=UTC)),
    ],
)
def test_a_moment_can_be_relative(text: str, moment: datetime) -> None:
    """A relative time is a midnight, so that a rerun on the same day means the same; hours are whole ones."""
    assert parse_moment("--since", text, now=datetime(2026, 3, 31, 15, 42, 7, tzinfo=UTC)) == moment


def test_since_in_the_future_is_refused() -> None:
    """A time in the future is refused: there is nothing to read, and the API would reject the window."""
    with pytest.raises(BadSettings, match=r"^--since 2999-01-01: must not be in the future\.$"):
        parse_since("--since", "2999-01-01")
