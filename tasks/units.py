"""The units of work as Prefect tasks: with retries, caching and names. What they do is in `pipeline`.

Every task takes values and returns a value. A group of chunks of which some failed raises ChunksFailed, so that Prefect
shows and repeats the task; the ledger knows which of its chunks are done.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from random import uniform
from types import MappingProxyType
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Completed
from prefect.tasks import Task

from klaviyo_pg.errors import KlaviyoPgError, UnconfirmedLoss
from klaviyo_pg.postgres.backfill_ledger import BackfillChunk
from klaviyo_pg.settings import Settings
from klaviyo_pg.states import RunState
from klaviyo_pg.waiting import pause
from klaviyo_pg.windows import Window
from pipeline import member_lists, runs
from pipeline.backfill import counting, plan, reading, recheck
from pipeline.backfill.counted import Chunks, PlannedChunks
from pipeline.backfill.plan import Gap, Plan
from pipeline.chunks import Chunk
from pipeline.figures import figures
from pipeline.outage import is_transient
from pipeline.outcome import Outcome, describe, sum_counts
from pipeline.read import read_chunks
from pipeline.reconcile import check
from pipeline.reconcile.compare import EventCounts
from pipeline.runs import Run
from pipeline.session import Session
from pipeline.streams import STREAMS
from tasks.session import task_session
from transforms.events import Metrics

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


@task(name="read", **_RETRIES, **_cached(_read_key, days=1))
def read(run: Run, chunks: Sequence[Chunk]) -> State[dict[str, Any]]:
    """Read chunks of streams into the warehouse; return the counts of rows of each."""
    with task_session(run.settings) as session:
        outcomes = read_chunks(session, run, chunks, _attempt(session))
    return _settled(chunks, outcomes)


@task(name="extract", **_RETRIES, **_UNCACHED)  # the spool knows what it has; a cached result may outlive its files
def extract(run: Run, chunks: Sequence[BackfillChunk], metrics: Metrics) -> State[dict[str, Any]]:
    """Read chunks of history into the spool."""
    with task_session(run.settings) as session:
        outcomes = reading.extract(session, run, chunks, metrics, _attempt(session))
    return _settled(chunks, outcomes)


@task(name="load", **_RETRIES, **_UNCACHED)
def load(run: Run, chunks: Sequence[BackfillChunk], metrics: Metrics) -> State[dict[str, Any]]:
    """Load spooled chunks of history into the warehouse."""
    with task_session(run.settings) as session:
        outcomes = reading.load(session, run, chunks, metrics, _attempt(session))
    return _settled(chunks, outcomes)


@task(name="read history", **_RETRIES, **_UNCACHED)
def read_at_once(run: Run, chunks: Sequence[BackfillChunk], metrics: Metrics) -> State[dict[str, Any]]:
    """Read chunks of history into the warehouse without spooling them."""
    with task_session(run.settings) as session:
        outcomes = reading.read_at_once(session, run, chunks, metrics, _attempt(session))
    return _settled(chunks, outcomes)


@task(name="plan", task_run_name="plan", **_UNCACHED)
def plan_history(run: Run, window: Window, restart: bool) -> Plan:
    """Look up what a backfill has to read and count."""
    with task_session(run.settings) as session:
        return plan.plan(session, run, window, restart)


@task(name="find where metrics begin", task_run_name="find where metrics begin", **_UNCACHED)
def find_beginnings(run: Run, missing: Sequence[Gap], start: datetime | None) -> tuple[Chunks, ...]:
    """Find out which history needs no counting."""
    with task_session(run.settings) as session:
        return counting.find_beginnings(session, run, missing, start)


@task(name="count history", task_run_name="count history", **_UNCACHED)
def count_gaps(run: Run, asked: Sequence[Gap]) -> PlannedChunks:
    """Count history at the source, and cut it into chunks."""
    with task_session(run.settings) as session:
        return counting.count_gaps(session, run, asked)


@task(name="count loaded history", task_run_name="count loaded history", **_UNCACHED)
def recheck_history(run: Run, loaded: Sequence[Chunks]) -> PlannedChunks:
    """Count history again that earlier runs have loaded, and plan what has grown."""
    with task_session(run.settings) as session:
        return recheck.recheck(session, run, loaded)


@task(name="count at the source", task_run_name="count at the source", **_UNCACHED)
def ask_counts(run: Run, windows: Mapping[str, Window]) -> dict[str, EventCounts | KlaviyoPgError]:
    """Ask for the source's counts of metrics."""
    with task_session(run.settings) as session:
        return check.ask_counts(session, run, windows)


@task(name="member_lists", task_run_name="member_lists", **_UNCACHED)
def derive_memberships(run: Run) -> UnconfirmedLoss | None:
    """Bring member_lists up to date."""
    with task_session(run.settings) as session:
        return member_lists.derive(session, run)


@task(name="finish", task_run_name="finish", **_UNCACHED)
def finish(run: Run, state: RunState, sentences: Sequence[str]) -> None:
    """Close the run."""
    with task_session(run.settings) as session:
        runs.finish(session, run, state, sentences)


TASKS: Mapping[Callable[..., Any], Task[..., Any]] = MappingProxyType(
    {
        read_chunks: read,
        reading.extract: extract,
        reading.load: load,
        reading.read_at_once: read_at_once,
        plan.plan: plan_history,
        counting.find_beginnings: find_beginnings,
        counting.count_gaps: count_gaps,
        recheck.recheck: recheck_history,
        check.ask_counts: ask_counts,
        member_lists.derive: derive_memberships,
        runs.finish: finish,
    }
)
"""The Prefect task of each unit."""
CHUNK_UNITS = frozenset[Callable[..., Any]]({read_chunks, reading.extract, reading.load, reading.read_at_once})
"""The units that take chunks and return their outcomes."""
