"""Units of work, run side by side: what runs them, and an inbox for those that have finished. Knows no Prefect.

A unit is a function whose first argument is a session and whose other arguments and result are values, so that it can
run in another thread or process.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pipeline.session import Session

P = ParamSpec("P")
Result = TypeVar("Result")
ResultOfFuture = TypeVar("ResultOfFuture", covariant=True)


class Future(Protocol[ResultOfFuture]):
    """A unit that has been submitted."""

    def result(self) -> ResultOfFuture:
        """Return its result, or raise its error."""
        ...

    def add_done_callback(self, callback: Callable[[Any], None], /) -> None:
        """Call a function, in any thread, once the unit has finished."""
        ...


class Pool(Protocol):
    """Workers that run as many units at once as the pool is large."""

    def submit(
        self, label: str, unit: Callable[Concatenate[Session, P], Result], *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        """Have a unit run. `label` is what people see of it."""
        ...


class Workers(Protocol):
    """Whatever runs units: threads of this process, or Prefect tasks."""

    def call(self, unit: Callable[Concatenate[Session, P], Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Run one unit and return its result."""
        ...

    def pool(self, size: int) -> AbstractContextManager[Pool]:
        """Open a pool. Leaving it waits for its units."""
        ...


class ThreadWorkers:
    """Runs units in threads of this process, all with one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def call(self, unit: Callable[Concatenate[Session, P], Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        return unit(self._session, *args, **kwargs)

    @contextmanager
    def pool(self, size: int) -> Iterator[Pool]:
        with ThreadPoolExecutor(size) as executor:
            yield _ThreadPool(self._session, executor)


class _ThreadPool:
    def __init__(self, session: Session, executor: ThreadPoolExecutor) -> None:
        self._session, self._executor = session, executor

    def submit(
        self, label: str, unit: Callable[Concatenate[Session, P], Result], *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        return self._executor.submit(unit, self._session, *args, **kwargs)


class Inbox:
    """Units in progress, whose results are handled one by one in the thread that submitted them."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Future[Any], Callable[[Any], None], Callable[[Exception], None]]] = {}
        self._finished: SimpleQueue[int] = SimpleQueue()
        self._number = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def follow(
        self, future: Future[Result], then: Callable[[Result], None], failed: Callable[[Exception], None]
    ) -> None:
        """Handle a unit's result with `then`, or its error with `failed`, once it has finished."""
        number = self._number = self._number + 1
        self._waiting[number] = future, then, failed
        future.add_done_callback(lambda _: self._finished.put(number))

    def handle_next(self, timeout: float) -> None:
        """Handle one unit that has finished; wait for it at most `timeout` seconds."""
        with suppress(Empty):
            future, then, failed = self._waiting.pop(self._finished.get(timeout=timeout))
            try:
                result = future.result()
            except Exception as error:
                failed(error)
            else:
                then(result)
