"""Histories of ten people as values: how hypothesis draws them, and how one that shows a defect is made shorter."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from hypothesis import strategies as st

from tests.happenings import HAPPENINGS

PEOPLE, LISTS = 10, 5
ERASE = "erase"
"""The step that erases a person from the warehouse. All other steps are happenings."""


class Step(NamedTuple):
    """Something that happens `after` seconds: to a person, a list and another person, each by number; `variant` of it.

    Numbers count those who exist at that time, modulo how many there are, so that each step is possible.
    """

    after: int
    action: str
    person: int
    list: int
    other: int
    variant: bool


class Period(NamedTuple):
    """Steps, and the run that follows `after` seconds later: daily, sweep or backfill."""

    steps: tuple[Step, ...]
    after: int
    run: str


class History(NamedTuple):
    """Periods, and the value of DELETED_PROFILES."""

    periods: tuple[Period, ...]
    deleted_profiles: str


_DAY = 86_400
_PAUSES = st.one_of(
    st.sampled_from([0, 1, 4, 6]), st.integers(0, 3_600), st.integers(0, _DAY), st.integers(0, 12 * _DAY)
)
_OFTEN = ("subscribe", "subscribe", "unsubscribe", "opt_out", "opt_in", "leave", "suppress_for_list", "lift_for_list")
_ACTIONS = (*HAPPENINGS, ERASE, "merge", "open_email", *_OFTEN, *_OFTEN)
_STEPS = st.builds(
    Step,
    _PAUSES,
    st.sampled_from(_ACTIONS),
    st.sampled_from((0, 0, 0, 1, 1, 2, *range(PEOPLE))),
    st.integers(0, LISTS - 1),
    st.integers(0, PEOPLE - 1),
    st.booleans(),
)
_PERIODS = st.builds(
    Period,
    st.lists(_STEPS, max_size=25).map(tuple),
    _PAUSES,
    st.sampled_from(("daily", "daily", "sweep", "sweep", "backfill")),
)


def histories(most_runs: int) -> st.SearchStrategy[History]:
    """Return a strategy for histories of up to so many runs."""
    periods = st.lists(_PERIODS, min_size=1, max_size=most_runs).map(tuple)
    return st.builds(History, periods, st.sampled_from(("mark", "mark", "erase")))


def shrunk(history: History, fails: Callable[[History], bool], most_attempts: int) -> History:
    """Return a shorter history that fails too, found by leaving out periods, runs, steps and pauses."""
    attempts = most_attempts
    is_shorter = True
    while is_shorter:
        is_shorter = False
        for candidate in _shorter(history):
            attempts -= 1
            if attempts < 0:
                return history
            if fails(candidate):
                history, is_shorter = candidate, True
                break
    return history


def _shorter(history: History) -> Iterator[History]:
    """Yield shorter histories, much shorter ones first."""
    periods = history.periods
    for number in range(len(periods)):
        yield history._replace(periods=periods[:number] + periods[number + 1 :])
    for number in range(len(periods) - 1):
        joined = Period(periods[number].steps + periods[number + 1].steps, *periods[number + 1][1:])
        yield history._replace(periods=(*periods[:number], joined, *periods[number + 2 :]))
    for size in (8, 4, 2, 1):
        for number, period in enumerate(periods):
            for at in range(0, len(period.steps), size):
                shorter = period._replace(steps=period.steps[:at] + period.steps[at + size :])
                if len(period.steps) >= size:
                    yield history._replace(periods=(*periods[:number], shorter, *periods[number + 1 :]))
