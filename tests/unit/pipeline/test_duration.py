"""The forecast of a backfill's duration: what limits each step, and what cannot be known."""

import pytest

from pipeline.commands.duration import START_SECONDS, Facts, Step, expected_duration, total

LARGE = Facts(
    events=1_000_000,
    event_requests=1_000,
    counting_seconds=20,
    answer_seconds=2.0,
    readers=4,
    definitions=10,
    people=50_000,
)


def step(facts: Facts, name: str) -> Step:
    """Return a step of the forecast."""
    return next(each for each in expected_duration(facts) if each.name == name)


@pytest.mark.parametrize(
    ("facts", "seconds", "limit"),
    [
        pytest.param(LARGE, 603, "the API's answers", id="slow answers"),
        pytest.param(LARGE._replace(answer_seconds=0.1), 128, "this machine", id="fast answers"),
        pytest.param(LARGE._replace(events_limit=60), 1_000, "the API", id="a low limit"),
    ],
)
def test_events_take_as_long_as_what_limits_them(facts: Facts, seconds: float, limit: str) -> None:
    found = step(facts, "events")
    assert found.seconds == pytest.approx(seconds)
    assert found.reason == f"1,000,000 events in 1,000 requests, limited by {limit}"


def test_a_loaded_history_takes_the_start_and_the_counting() -> None:
    done = LARGE._replace(events=0, event_requests=0, people=0, definitions=2)
    seconds, is_known = total(expected_duration(done))
    assert is_known and seconds == START_SECONDS + 20 + 2 * 2 + 1
    assert step(done, "events").reason == "all of them are loaded"


def test_people_take_as_long_as_their_limit_allows() -> None:
    found = step(LARGE._replace(answer_seconds=0.1, people_limit=50), "people")
    assert found.seconds == pytest.approx(600) and found.reason.endswith("limited by the API")


def test_people_who_cannot_be_counted_make_the_sum_a_lower_bound() -> None:
    assert total(expected_duration(LARGE._replace(people=None))) == (
        total(expected_duration(LARGE._replace(people=0)))[0],
        False,
    )


@pytest.mark.parametrize(
    ("events", "requests", "reason"),
    [
        pytest.param(1_000_000, 1_003, "at least 1,000,000 events in 1,003 requests", id="some"),
        pytest.param(0, 3, "at least 0 events in 3 requests", id="all"),
    ],
)
def test_events_that_cannot_be_counted_make_the_sum_a_lower_bound(events: int, requests: int, reason: str) -> None:
    facts = LARGE._replace(events=events, event_requests=requests, are_all_counted=False)
    found = step(facts, "events")
    assert found.is_least and found.reason.startswith(reason)
    assert not total(expected_duration(facts))[1]
