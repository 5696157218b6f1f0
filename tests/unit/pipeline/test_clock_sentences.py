"""Three clocks that differ: which one is wrong, and by how much."""

from datetime import UTC, datetime, timedelta

import pytest

from klaviyo_pg.errors import ClocksDiffer
from pipeline.clocks import Clocks, check_reading

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
TOLERANCE = 5 * MINUTE


@pytest.mark.parametrize(
    ("database", "api", "sentence"),
    [
        pytest.param(
            -2 * DAY,
            -2 * DAY,
            "This machine's clock is 2 days fast compared with the database's and the API's.",
            id="machine fast",
        ),
        pytest.param(
            365 * DAY,
            365 * DAY,
            "This machine's clock is 365 days slow compared with the database's and the API's.",
            id="machine, slow compared with",
        ),
        pytest.param(
            -6 * MINUTE,
            -4 * MINUTE,
            "This machine's clock is 4 minutes fast compared with the database's and the API's.",
            id="machine, one within",
        ),
        pytest.param(
            90 * MINUTE,
            MINUTE,
            "The database's clock is 89 minutes fast compared with this machine's and the API's.",
            id="database",
        ),
        pytest.param(
            timedelta(), -3 * DAY, "The API's clock (the Date of its responses) is 3 days slow compared with", id="API"
        ),
        pytest.param(
            3 * DAY,
            -3 * DAY,
            "This machine's clock is 3 days slow compared with the database's and 3 days fast compared with the API's.",
            id="all",
        ),
        pytest.param(
            10 * MINUTE, None, "This machine's clock is 10 minutes slow compared with the database's.", id="no date"
        ),
    ],
)
def test_the_sentence_names_the_clock_that_differs(database: timedelta, api: timedelta | None, sentence: str) -> None:
    clocks = Clocks(NOON, NOON + database, None if api is None else NOON + api)
    with pytest.raises(ClocksDiffer) as differ:
        clocks.check(TOLERANCE)
    assert str(differ.value).startswith(sentence)
    assert "then rerun. To accept such a difference, increase CLOCK_TOLERANCE_SECONDS." in str(differ.value)


def test_small_differences_are_accepted_and_the_earliest_time_counts() -> None:
    """Up to the earliest time, everything has happened on each of the clocks."""
    clocks = Clocks(NOON, NOON - 2 * MINUTE, NOON - 5 * MINUTE)
    clocks.check(TOLERANCE)
    assert clocks.earliest == NOON - 5 * MINUTE
    assert Clocks(NOON, NOON + MINUTE, None).earliest == NOON


@pytest.mark.parametrize(
    ("read_at", "is_accepted"),
    [
        pytest.param(NOON, True, id="just now"),
        pytest.param(NOON - 10 * MINUTE, True, id="since the reading began"),
        pytest.param(NOON - 16 * MINUTE, False, id="before it began"),
        pytest.param(NOON + 6 * MINUTE, False, id="in the future"),
    ],
)
def test_a_clock_that_was_set_while_reading_is_noticed(read_at: datetime, is_accepted: bool) -> None:
    if is_accepted:
        check_reading(read_at, NOON, 10 * MINUTE, TOLERANCE)
    else:
        with pytest.raises(ClocksDiffer, match="This machine's clock was set during the run, by about"):
            check_reading(read_at, NOON, 10 * MINUTE, TOLERANCE)
