"""The units of the pipeline as Prefect tasks: which results they keep, and which failures they repeat."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import Any

import psycopg
import pytest
from prefect.cache_policies import NO_CACHE

from klaviyo_pg.errors import BadAnswer, Stopped, Throttled, Unavailable
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from pipeline.backfill import counting, reading
from pipeline.chunks import Chunk
from pipeline.outcome import Outcome
from pipeline.read import read_chunks
from pipeline.runs import Run
from tasks.units import CHUNK_TASKS, TASKS, ChunksFailed


@pytest.mark.parametrize("unit", [reading.extract, reading.load, reading.read_at_once, counting.count_gaps])
def test_history_is_not_cached_by_prefect(unit: Callable[..., Any]) -> None:
    """The ledger and the spool know what is done. A cached result could outlive the files in the spool."""
    assert TASKS[unit].cache_policy is NO_CACHE
    assert TASKS[unit].persist_result is False


@pytest.mark.parametrize("unit", CHUNK_TASKS, ids=lambda unit: unit.__name__)
def test_tasks_of_chunks_take_a_run_and_its_chunks(unit: Callable[..., Any]) -> None:
    """The key of a cached result, and the outcomes of a failed task, depend on these names."""
    assert list(signature(CHUNK_TASKS[unit].fn).parameters)[:2] == ["run", "chunks"]


def key_of(run: Run, *chunks: Chunk) -> str | None:
    """Return the key under which Prefect keeps the result of reading chunks."""
    policy = TASKS[read_chunks].cache_policy
    assert policy is not None
    return policy.compute_key(None, {"run": run, "chunks": chunks}, {})  # type: ignore[arg-type]


def test_a_resumed_run_uses_cached_results_only_for_windows_that_have_ended() -> None:
    """The ledger decides which of the others are read again, and a cached result must not prevent that."""
    run = Run("1", "one", None, datetime(2026, 7, 1, tzinfo=UTC), Settings())
    resumed = replace(run, resumed_at=datetime(2026, 7, 1, 12, tzinfo=UTC))
    ended = Chunk("events", Window(run.as_of - timedelta(days=2), run.as_of - timedelta(days=1)))
    still_open = Chunk("campaigns")
    assert key_of(run, ended) == key_of(resumed, ended)
    assert key_of(run, still_open) != key_of(resumed, still_open)
    assert key_of(resumed, still_open) == key_of(resumed, still_open)


def test_a_resumed_run_uses_no_cached_results_of_parts_of_one_full_read() -> None:
    """The ledger can forget what was read of past years, too, so that everything is read again."""
    run = Run("1", "one", None, datetime(2026, 7, 1, tzinfo=UTC), Settings())
    resumed = replace(run, resumed_at=datetime(2026, 7, 1, 12, tzinfo=UTC))
    year = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
    past = Chunk("exclusions", year, "UNSUBSCRIBED")
    assert key_of(run, past) != key_of(resumed, past)


@pytest.mark.parametrize(
    ("errors", "is_transient"),
    [
        pytest.param([Unavailable()], True, id="no answer"),
        pytest.param([BadAnswer(), psycopg.OperationalError()], True, id="one of several"),
        pytest.param([BadAnswer()], False, id="a wrong answer"),
        pytest.param([Throttled()], False, id="a long pause"),
        pytest.param([Stopped()], False, id="a stop"),
    ],
)
def test_a_group_is_repeated_if_an_error_may_disappear(errors: list[Exception], is_transient: bool) -> None:
    outcomes = (Outcome("done"), *(Outcome(str(number), error=error) for number, error in enumerate(errors)))
    failed = ChunksFailed(outcomes)
    assert failed.is_transient is is_transient
    assert failed.outcomes == outcomes


def test_the_message_of_a_failed_group_has_each_error_once() -> None:
    outcomes = tuple(Outcome(each, error=BadAnswer("Odd.")) for each in "ab")
    assert str(ChunksFailed((*outcomes, Outcome("c", error=Unavailable("Away."))))) == "Odd. Away."
