"""Workers that run the pipeline's units as Prefect tasks, in threads."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from pipeline.outcome import Outcome
from pipeline.session import Session
from pipeline.workers import Future, Pool
from tasks.units import CHUNK_TASKS, TASKS, ChunksFailed, Outcomes

P = ParamSpec("P")
Result = TypeVar("Result")


class PrefectWorkers:
    """Runs units as Prefect tasks."""

    def call(self, unit: Callable[Concatenate[Session, P], Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        return cast(Result, TASKS[unit](*args, **kwargs))

    @contextmanager
    def pool(self, size: int) -> Iterator[Pool]:
        with ThreadPoolTaskRunner[Any](max_workers=size) as runner:
            yield _PrefectPool(runner)


class _PrefectPool:
    def __init__(self, runner: ThreadPoolTaskRunner[Any]) -> None:
        self._runner = runner

    def submit(
        self, label: str, unit: Callable[Concatenate[Session, P], Result], *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        task = TASKS[unit].with_options(task_run_name=label.replace("{", "(").replace("}", ")"))
        arguments = signature(task.fn).bind(*args, **kwargs).arguments
        future = self._runner.submit(task, arguments)
        return cast(Future[Result], _Group(future, arguments["chunks"]) if unit in CHUNK_TASKS else future)


class _Group:
    """A task that reads a group of chunks. Its result is their outcomes, whether or not some have failed."""

    def __init__(self, future: PrefectFuture[Any], chunks: Sequence[Any]) -> None:
        self._future, self._chunks = future, chunks

    def result(self) -> Outcomes:
        """Return the outcomes. Raises the error of a task that failed as a whole."""
        try:
            counts = self._future.result()["counts"]
        except ChunksFailed as error:
            return error.outcomes
        return tuple(Outcome(chunk, each) for chunk, each in zip(self._chunks, counts, strict=True))

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call a function once the task has finished."""
        self._future.add_done_callback(callback)
