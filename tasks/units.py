"""The units of work as Prefect tasks: with retries, caching and names. What they do is in `pipeline`.

Every task takes values and returns a value. A group of chunks of which some failed raises ChunksFailed, so that Prefect
shows and repeats the task; the ledger knows which of its chunks are done.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import wraps
from hashlib import sha256
from inspect import Signature, signature
from random import uniform
from types import MappingProxyType
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Completed
from prefect.tasks import Task

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.settings import Settings
from klaviyo_pg.waiting import pause
from pipeline import member_lists, runs
from pipeline.backfill import counting, plan, reading, recheck
from pipeline.figures import figures
from pipeline.outage import is_transient
from pipeline.outcome import Outcome, describe, sum_counts
from pipeline.read import read_chunks
from pipeline.reconcile import check
from pipeline.runs import Run
from pipeline.session import Session
from pipeline.streams import STREAMS
from tasks.session import task_session

_PAUSES = (0.0, 5.0, 30.0)  # seconds before each attempt, up to half as long again
_FORMAT = 2  # of a task's result; another format makes stored results worthless

Outcomes = tuple[Outcome[Any], ...]


class ChunksFailed(KlaviyoPgError):
    """Some chunks of a task failed."""

    def __init__(self, outcomes: Outcomes) -> None:
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        super().__init__(" ".join(dict.fromkeys(map(describe, errors))))
        self.outcomes = outcomes
        self.is_transient = any(map(is_transient, errors))


def _deserves_retry(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return error.is_transient if isinstance(error, ChunksFailed) else is_transient(error)


_RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": 0,  # the next attempt begins with the pause, which a stop can end there
    "retry_condition_fn": _deserves_retry,
}
"""For tasks whose chunks can be read again. The HTTP client and the store bridge shorter disturbances themselves."""
_SUPPLIED = frozenset({"session", "attempt"})  # arguments of units that their tasks supply
_UNCACHED: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


def _cached(key: Callable[[TaskRunContext, Mapping[str, Any]], str], days: int) -> dict[str, Any]:
    return {
        "cache_policy": CacheKeyFnPolicy(cache_key_fn=key),
        "cache_expiration": timedelta(days=days),
        "result_serializer": "json",
    }


def _read_key(context: TaskRunContext, parameters: Mapping[str, Any]) -> str:
    """Identify the chunks of a run. A run that is resumed keeps its id, so that what it has read is not read again.

    Chunks that end in the present, and parts of one full read, can be: the ledger decides which of them have to be.
    """
    run, chunks = parameters["run"], parameters["chunks"]
    can_be_read_again = any(chunk.is_open or STREAMS[chunk.stream].is_read_in_parts for chunk in chunks)
    resumed = f" {run.resumed_at}" if can_be_read_again else ""
    return f"klaviyo-pg-{_FORMAT}-{run.id}-{_digest(f'{chunk.key} {chunk.part}{resumed}' for chunk in chunks)}"


def _digest(texts: Any) -> str:
    return sha256("\n".join(texts).encode()).hexdigest()[:32]


def _settled(chunks: Sequence[Any], outcomes: Outcomes) -> State[dict[str, Any]]:
    """Return the counts of rows of each chunk, in order, with what Prefect shows of them.

    Raises ChunksFailed if any chunk failed.
    """
    if any(outcome.error is not None for outcome in outcomes):
        raise ChunksFailed(outcomes)
    counts = {outcome.chunk: outcome.counts for outcome in outcomes}
    return Completed(message=figures(sum_counts(counts.values())), data={"counts": [counts[chunk] for chunk in chunks]})


def _attempt(session: Session) -> int:
    """Return the number of this attempt, after the pause that precedes it. Raises Stopped if the run is stopped."""
    context = TaskRunContext.get()
    attempt = context.task_run.run_count or 1 if context else 1
    pause(_PAUSES[min(attempt, len(_PAUSES)) - 1] * uniform(1.0, 1.5), session.stop.check)
    return attempt


@task(name="prepare", task_run_name="prepare", **_UNCACHED)
def prepare(settings: Settings, flow: str, selection: Mapping[str, object], is_limited: bool) -> Run:
    """Check the API key and the database, and open the run."""
    with task_session(settings) as session:
        return runs.begin(session, flow, selection, get_run_logger(), is_limited)


@task(name="join", task_run_name="join", **_UNCACHED)
def join(settings: Settings, run_id: str, flow: str, claim: str, answer_seconds: float) -> Run:
    """Join a run that another process has begun."""
    with task_session(settings) as session:
        return runs.join(session, run_id, flow, claim, answer_seconds)


def _task(unit: Callable[..., Any], name: str) -> Task[..., Any]:
    """Return the task of a unit. It takes the arguments of the unit but the session."""

    def call(run: Run, *arguments: Any) -> Any:
        with task_session(run.settings) as session:
            return unit(session, run, *arguments)

    return Task(_named_after(unit, call), name=name, task_run_name=name, **_UNCACHED)


def _chunk_task(unit: Callable[..., Any], name: str, caching: Mapping[str, Any] = _UNCACHED) -> Task[..., Any]:
    """Return the task of a unit that takes chunks and returns their outcomes. It returns what `_settled` does."""

    def call(run: Run, chunks: Sequence[Any], *arguments: Any) -> State[dict[str, Any]]:
        with task_session(run.settings) as session:
            outcomes = unit(session, run, chunks, *arguments, attempt=_attempt(session))
        return _settled(chunks, outcomes)

    return Task(_named_after(unit, call), name=name, **_RETRIES, **caching)


def _named_after(unit: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with the name and the arguments of a unit, without those that its task supplies."""
    arguments = [each for each in signature(unit).parameters.values() if each.name not in _SUPPLIED]
    named = wraps(unit)(call)
    named.__signature__ = Signature(arguments)  # type: ignore[attr-defined]
    return named


CHUNK_TASKS: Mapping[Callable[..., Any], Task[..., Any]] = MappingProxyType(
    {
        read_chunks: _chunk_task(read_chunks, "read", _cached(_read_key, days=1)),
        # the spool knows what it has, and a cached result may outlive its files
        reading.extract: _chunk_task(reading.extract, "extract"),
        reading.load: _chunk_task(reading.load, "load"),
        reading.read_at_once: _chunk_task(reading.read_at_once, "read history"),
    }
)
"""The task of each unit that takes chunks and returns their outcomes."""
TASKS: Mapping[Callable[..., Any], Task[..., Any]] = MappingProxyType(
    {
        **CHUNK_TASKS,
        plan.plan: _task(plan.plan, "plan"),
        counting.find_beginnings: _task(counting.find_beginnings, "find where metrics begin"),
        counting.count_gaps: _task(counting.count_gaps, "count history"),
        recheck.recheck: _task(recheck.recheck, "count loaded history"),
        check.ask_counts: _task(check.ask_counts, "count at the source"),
        member_lists.derive: _task(member_lists.derive, "member_lists"),
        runs.finish: _task(runs.finish, "finish"),
    }
)
"""The task of each unit."""
