"""Groups of chunks that one unit reads: which chunks are read after one has failed, and what becomes of each."""

from collections.abc import Callable, Mapping
from typing import Any

import psycopg
import pytest

from klaviyo_pg.errors import BadAnswer, DatabaseUnusable, MissingScope, Stopped, Throttled, TooMuch, Unavailable
from pipeline.outage import Outage, is_transient
from pipeline.outcome import Outcome
from pipeline.read import read_each

AWAY = Unavailable("Away.")


def reading(
    errors: Mapping[str, Exception], read: list[str] | None = None, done: frozenset[str] = frozenset()
) -> Callable[[str], Outcome[str]]:
    """Return a reader of chunks of which some fail, and some are already done."""

    def read_one(chunk: str) -> Outcome[str]:
        if chunk in errors:
            raise errors[chunk]
        if read is not None and chunk not in done:
            read.append(chunk)
        return Outcome(chunk, was_done=chunk in done)

    return read_one


def failed(outcomes: tuple[Outcome[str], ...]) -> dict[str, Exception]:
    """Return the errors of the chunks that failed."""
    return {outcome.chunk: outcome.error for outcome in outcomes if outcome.error is not None}


def test_a_failing_chunk_does_not_stop_the_others() -> None:
    """Each chunk has one outcome, in the order in which they were read."""
    errors = {"b": BadAnswer("Odd."), "c": AWAY}
    outcomes = read_each("abcd", reading(errors))
    assert [outcome.chunk for outcome in outcomes] == ["a", "b", "c", "d"]
    assert failed(outcomes) == errors


@pytest.mark.parametrize("error", [DatabaseUnusable("No room."), Throttled("A day."), Stopped()])
def test_an_error_that_concerns_all_chunks_ends_the_group(error: Exception) -> None:
    """Chunks that were not tried have no outcome."""
    read: list[str] = []
    outcomes = read_each("abcd", reading({"b": error}, read))
    assert read == ["a"]
    assert failed(outcomes) == {"b": error}
    assert len(outcomes) == 2


def test_two_failures_of_the_api_in_a_row_end_the_group() -> None:
    """Waiting for the API once more for each of the others would take long and change nothing."""
    outcomes = read_each("abcd", reading(dict.fromkeys("bcd", AWAY)))
    assert failed(outcomes) == {"b": AWAY, "c": AWAY}


@pytest.mark.parametrize(
    "between",
    [
        pytest.param({}, id="an answer"),
        pytest.param({"b": BadAnswer("Odd.")}, id="another error"),
        pytest.param({"b": TooMuch("Too large.")}, id="an answer that is too large"),
    ],
)
def test_failures_that_are_not_in_a_row_do_not_end_the_group(between: dict[str, Exception]) -> None:
    errors: dict[str, Exception] = {"a": AWAY, "c": AWAY, **between}
    assert [outcome.chunk for outcome in read_each("abcd", reading(errors))] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("attempt", "order"),
    [
        pytest.param(1, "abcde", id="first"),
        pytest.param(2, "cdeab", id="second"),
        pytest.param(3, "eabcd", id="third"),
        pytest.param(4, "bcdea", id="fourth"),
    ],
)
def test_later_attempts_begin_further_on(attempt: int, order: str) -> None:
    """Chunks that always fail cannot keep the others waiting."""
    outcomes = read_each("abcde", reading({}), attempt)
    assert "".join(outcome.chunk for outcome in outcomes) == order


def test_every_chunk_is_read_although_some_always_fail() -> None:
    """The ledger knows which chunks are done, so that nothing is read twice."""
    read: list[str] = []
    errors = dict.fromkeys("abc", AWAY)
    for attempt in (1, 2, 3):
        outcomes = read_each("abcdef", reading(errors, read, frozenset(read)), attempt)
    assert sorted(read) == ["d", "e", "f"]
    assert failed(outcomes).keys() <= errors.keys()


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_group_without_chunks_has_no_outcomes(attempt: int) -> None:
    assert read_each([], reading({}), attempt) == ()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(Unavailable(), True, id="no answer"),
        pytest.param(TooMuch(), True, id="too large"),
        pytest.param(psycopg.OperationalError(), True, id="database"),
        pytest.param(Throttled(), False, id="a long pause"),
        pytest.param(BadAnswer(), False, id="a wrong answer"),
        pytest.param(DatabaseUnusable(), False, id="something to fix"),
        pytest.param(MissingScope("x"), False, id="a missing scope"),
        pytest.param(None, False, id="no error"),
    ],
)
def test_only_errors_that_may_disappear_are_transient(error: Any, expected: bool) -> None:
    assert is_transient(error) is expected


def test_an_outage_does_not_end_by_itself() -> None:
    """Threads whose requests were on their way may still get an answer."""
    outage = Outage(2)
    outage.failed(AWAY)
    assert outage.error is None
    outage.failed(last := Unavailable("Still away."))
    outage.succeeded()
    assert outage.error is last
