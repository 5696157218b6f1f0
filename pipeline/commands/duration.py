"""The forecast of a backfill's duration, from start to end, by step. Sends no request and knows no terminal."""

from collections.abc import Sequence
from typing import NamedTuple

START_SECONDS = 10.0
"""The time before a run begins, most of it for Prefect's server and imports: 8 to 11 s on two cores."""
_END_SECONDS = 1.0  # to publish the coverage and to close the run
_EVENT_SECONDS = 103e-6  # of processors: 62 µs of the loader and 41 µs of Postgres, see docs/performance.md
_PERSON_SECONDS = 1.5e-3  # likewise, for a new person with 20 properties
_PEOPLE_PER_REQUEST = 100
_MOST_READERS = 16  # that share incomplete people


class Facts(NamedTuple):
    """The facts that a forecast rests on.

    `events` and `event_requests` are what is left to read; if not `are_all_counted`, there can be more.
    `counting_seconds` is how long counting took, and `answer_seconds` how long a request takes. `definitions` are the
    full reads that the warehouse lacks, and `people` the profiles that it lacks; None if they cannot be estimated.
    `readers` send requests at the same time, of which `events_limit` and `people_limit` are allowed in a minute.
    """

    events: int
    event_requests: int
    counting_seconds: float
    answer_seconds: float
    readers: int
    events_limit: int | None = None
    people_limit: int | None = None
    definitions: int = 0
    people: int | None = 0
    are_all_counted: bool = True


class Step(NamedTuple):
    """A step of a run, with the seconds that it takes, None if they are not known, and what they rest on.

    It takes longer if it `is_least`.
    """

    name: str
    seconds: float | None
    reason: str
    is_least: bool = False


def expected_duration(facts: Facts) -> Sequence[Step]:
    """Return the steps of a backfill with their durations, from the start of the command to its end."""
    return (
        Step("start", START_SECONDS, "Prefect's server, the database and the first request"),
        Step("metrics and lists", facts.definitions * facts.answer_seconds, f"{facts.definitions:,} full reads"),
        Step("counts", facts.counting_seconds, "as long as they took now"),
        Step("events", *_events(facts), is_least=not facts.are_all_counted),
        Step("people", *_people(facts)),
        Step("end", _END_SECONDS, "the coverage, and the result"),
    )


def total(steps: Sequence[Step]) -> tuple[float, bool]:
    """Return the seconds of all steps, and whether all of them are known; if not, they are a lower bound."""
    is_known = all(step.seconds is not None and not step.is_least for step in steps)
    return sum(step.seconds or 0.0 for step in steps), is_known


def _events(facts: Facts) -> tuple[float, str]:
    if not facts.event_requests:
        return 0.0, "all of them are loaded"
    least = "" if facts.are_all_counted else "at least "
    what = f"{least}{facts.events:,} events in {facts.event_requests:,} requests"
    return _slowest(what, facts.event_requests, facts, facts.readers, facts.events_limit, facts.events * _EVENT_SECONDS)


def _people(facts: Facts) -> tuple[float | None, str]:
    if facts.people is None:
        return None, "how many there are is not known"
    if not facts.people:
        return 0.0, "none is missing"
    requests = -(-facts.people // _PEOPLE_PER_REQUEST)
    what = f"at most {facts.people:,} people in {requests:,} requests"
    readers = min(facts.readers, _MOST_READERS)
    return _slowest(what, requests, facts, readers, facts.people_limit, facts.people * _PERSON_SECONDS)


def _slowest(
    what: str, requests: int, facts: Facts, readers: int, limit: int | None, processor: float
) -> tuple[float, str]:
    """Return the time of a step: what the API allows, or else the wait for its answers and the processor's time.

    Those two add up, because the processor that loads has to read the answers as well.
    """
    waiting = requests * facts.answer_seconds / readers
    allowed = 0.0 if limit is None else requests / limit * 60
    if allowed >= waiting + processor:
        return allowed, f"{what}, limited by the API"
    slower = "the API's answers" if waiting > processor else "this machine"
    return waiting + processor, f"{what}, limited by {slower}"
