"""The effects of errors on a run: its state, its exit code and its sentences."""

import pickle
from collections.abc import Sequence

import psycopg
import pytest

from klaviyo_pg.errors import (
    BadAnswer,
    BadKey,
    BadSettings,
    Busy,
    DatabaseAway,
    DatabaseUnusable,
    Garbled,
    Incomplete,
    KlaviyoPgError,
    MissingScope,
    NotFound,
    Refused,
    Stopped,
    Throttled,
    TooMuch,
    Unavailable,
    UserError,
    WrongDialect,
)
from klaviyo_pg.postgres.connect import translated
from klaviyo_pg.states import RunState
from pipeline.outcome import Effect, Outcome, RunFailed, RunReport, Tally, describe, effect_of, sum_counts

SCOPE = MissingScope("events:read")
UNEXPECTED = ValueError("first line\nsecond line")
FAIL, POSTPONE, OMIT = Effect.FAIL, Effect.POSTPONE, Effect.OMIT


@pytest.mark.parametrize(
    ("error", "usually", "tolerant", "exit_code"),
    [
        pytest.param(SCOPE, OMIT, OMIT, 3, id="MissingScope"),
        pytest.param(Throttled(), POSTPONE, POSTPONE, 4, id="Throttled"),
        pytest.param(Stopped(), FAIL, FAIL, 130, id="Stopped"),
        *(
            pytest.param(kind(), FAIL, FAIL, 2, id=kind.__name__)
            for kind in (UserError, BadSettings, BadKey, Busy, WrongDialect, DatabaseUnusable, DatabaseAway)
        ),
        *(pytest.param(kind(), OMIT, OMIT, 3, id=kind.__name__) for kind in (Refused, NotFound)),
        *(
            pytest.param(kind(), FAIL, OMIT, 1, id=kind.__name__)
            for kind in (BadAnswer, Garbled, Unavailable, TooMuch, KlaviyoPgError)
        ),
        pytest.param(UNEXPECTED, FAIL, OMIT, 1, id="an unexpected error"),
    ],
)
def test_each_error_has_an_effect_and_an_exit_code(
    error: Exception, usually: Effect, tolerant: Effect, exit_code: int
) -> None:
    """A run that tolerates failures is partial instead of failed, with the exit code of a partial run."""
    assert effect_of(error, tolerates_failures=False) is usually
    assert effect_of(error, tolerates_failures=True) is tolerant
    states = {FAIL: RunState.FAILED, POSTPONE: RunState.TO_BE_CONTINUED, OMIT: RunState.PARTIAL}
    for tolerates, effect in ((False, usually), (True, tolerant)):
        tally = Tally(tolerates)
        tally.add_error(error)
        assert tally.state is (RunState.STOPPED if isinstance(error, Stopped) else states[effect])
        assert tally.exit_code == (MissingScope.exit_code if effect is OMIT else exit_code)
        assert tally.sentences == [describe(error)]


@pytest.mark.parametrize(
    ("errors", "state", "exit_code"),
    [
        pytest.param([], RunState.COMPLETE, 0, id="none"),
        pytest.param([SCOPE, Throttled()], RunState.TO_BE_CONTINUED, 4, id="a pause outweighs an omission"),
        pytest.param([Throttled(), BadAnswer(), SCOPE], RunState.FAILED, 1, id="a failure outweighs both"),
        pytest.param([Stopped(), BadKey()], RunState.FAILED, 2, id="the lowest exit code of the failures"),
        pytest.param([Stopped()], RunState.STOPPED, 130, id="a stop"),
        pytest.param([Stopped(), Throttled()], RunState.STOPPED, 130, id="a stop outweighs a pause"),
        pytest.param([UNEXPECTED, BadKey()], RunState.FAILED, 1, id="an unexpected error"),
    ],
)
def test_the_worst_error_decides(errors: Sequence[Exception], state: RunState, exit_code: int) -> None:
    tally = Tally()
    for error in errors:
        tally.add_error(error)
    assert (tally.state, tally.exit_code) == (state, exit_code)
    assert tally.must_stop is (state in (RunState.FAILED, RunState.STOPPED, RunState.TO_BE_CONTINUED))
    assert tally.is_postponed is any(isinstance(error, Throttled) for error in errors)


@pytest.mark.parametrize(
    ("error", "state", "exit_code"),
    [
        pytest.param(Throttled("Later."), RunState.TO_BE_CONTINUED, 4, id="Throttled"),
        pytest.param(SCOPE, RunState.FAILED, 3, id="MissingScope"),
        pytest.param(BadAnswer(), RunState.FAILED, 1, id="BadAnswer"),
    ],
)
def test_an_error_that_ends_the_run_fails_it(error: Exception, state: RunState, exit_code: int) -> None:
    """Even if the run tolerates failures of chunks. Only a long pause postpones it."""
    tally = Tally(tolerates_failures=True)
    assert not tally.was_ended
    tally.end_with(error)
    assert tally.was_ended
    assert (tally.state, tally.exit_code) == (state, exit_code)


def test_each_error_is_one_sentence_and_the_worst_comes_first() -> None:
    """Notes come last, and are no failure."""
    tally = Tally()
    for error in (SCOPE, Throttled("Later."), BadAnswer("Odd."), BadAnswer("Odd."), SCOPE):
        tally.add_error(error)
    tally.add_notes("A note.")
    assert tally.sentences == ["Odd.", "Later.", str(SCOPE), "A note."]
    assert tally.missing_scopes == {"events:read"}
    assert tally.omitted == 2
    noted = Tally()
    noted.add_notes("A note.")
    assert (noted.state, noted.exit_code, noted.sentences) == (RunState.COMPLETE, 0, ["A note."])


def test_a_sentence_says_what_the_api_refused() -> None:
    """Streams that are missing for the same reason share a sentence, and subjects are listed."""
    tally = Tally()
    odd = Refused("GET /api/metrics: the API returned 400: Odd.")
    tally.add_error(odd, "metrics")
    tally.add_error(odd, "events")
    for number in range(7):
        tally.add_error(NotFound(f"GET /api/lists/L{number}: gone"), "list_members", f"L{number}")
    tally.add_error(Incomplete(["sms", "archived sms"], "GET /api/campaigns: the API returned 400: No."), "campaigns")
    assert tally.sentences == [
        "The campaigns were read without sms, archived sms: GET /api/campaigns: the API returned 400: No.",
        "The metrics and events could not be read: GET /api/metrics: the API returned 400: Odd.",
        "The list members of L0, L1, L2, L3, L4 and 2 others could not be read: GET /api/lists/L0: gone",
    ]
    assert (tally.state, tally.exit_code) == (RunState.PARTIAL, 3)
    assert tally.refusals("events") == [odd]


def test_an_incomplete_collection_can_travel_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(Incomplete(["sms"], "Odd.")))
    assert (str(copy), copy.parts, copy.reason) == ("Read without sms: Odd.", ("sms",), "Odd.")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(BadAnswer("Odd."), "Odd.", id="one of this project"),
        pytest.param(UNEXPECTED, "ValueError: first line", id="unexpected"),
        pytest.param(ValueError(" "), "ValueError", id="without a message"),
    ],
)
def test_an_error_is_described_in_one_line(error: Exception, text: str) -> None:
    assert describe(error) == text


def test_counts_are_added_up_by_table() -> None:
    parts = [{"opens": {"rows_read": 2, "inserted": 1}}, {"opens": {"rows_read": 3}, "lists": {"rows_read": 1}}, {}]
    total = sum_counts(parts)
    assert total == {"opens": {"rows_read": 5, "inserted": 1}, "lists": {"rows_read": 1}}
    assert Outcome("chunk", total).rows_read == 6
    assert Outcome("chunk").rows_read == 0


def test_a_failed_run_can_travel_between_processes() -> None:
    """Prefect pickles the exception of a run that failed."""
    failed = RunFailed(RunReport("id", "shop", RunState.FAILED, ("Odd.", "Away."), 1))
    copy = pickle.loads(pickle.dumps(failed))
    assert (str(copy), copy.exit_code, copy.report) == ("Odd. Away.", 1, failed.report)


@pytest.mark.parametrize(
    ("errors", "state", "exit_code"),
    [
        pytest.param([], RunState.COMPLETE_WITH_DIFFERENCES, 0, id="none"),
        pytest.param([SCOPE], RunState.PARTIAL, 3, id="something was left out"),
        pytest.param([Throttled()], RunState.TO_BE_CONTINUED, 4, id="a pause"),
        pytest.param([BadAnswer()], RunState.FAILED, 1, id="a failure"),
    ],
)
def test_differences_mark_a_run_that_is_otherwise_complete(
    errors: Sequence[Exception], state: RunState, exit_code: int
) -> None:
    """Errors outweigh them."""
    tally = Tally()
    for error in errors:
        tally.add_error(error)
    tally.add_differences([])
    assert (tally.state, tally.exit_code) == (state, exit_code)


def test_a_missing_scope_is_reported_once() -> None:
    """A request that needs it and another one says nothing about the other one."""
    tally = Tally()
    for scope in ("lists:read and profiles:read", "lists:read", "events:read and metrics:read"):
        tally.add_error(MissingScope(scope))
    assert tally.sentences == [str(MissingScope(each)) for each in ("lists:read", "events:read and metrics:read")]


@pytest.mark.parametrize(("kind", "number"), [(psycopg.errors.DiskFull, 1), (psycopg.errors.UndefinedTable, 2)])
def test_a_problem_of_the_database_is_reported_once(kind: type[psycopg.Error], number: int) -> None:
    """Though each session says it in other words. Errors of which nothing is known are all reported."""
    tally = Tally()
    for detail in ("could not extend file 1", "could not extend file 2"):
        with pytest.raises((DatabaseUnusable, kind)) as error, translated():
            raise kind(detail)
        tally.add_error(pickle.loads(pickle.dumps(error.value)))  # as from another process
    assert len(tally.sentences) == number
    assert "could not extend file 1" in tally.sentences[0]
