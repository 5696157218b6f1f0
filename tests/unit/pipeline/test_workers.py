"""Workers and their inbox: units run side by side, and their results are handled in one thread, one by one."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from klaviyo_pg.settings import Settings
from pipeline.session import Session
from pipeline.workers import Inbox, ThreadWorkers

PATIENCE = 60.0  # seconds after which a wait counts as failed


@pytest.fixture
def session() -> Session:
    """Return a session that opens no connection."""
    return Session(Settings(klaviyo_api_key="pk_none"))


def unit(session: Session, first: int, second: int = 1) -> tuple[Session, int]:
    return session, first - second


def fail(session: Session, message: str) -> None:
    raise ValueError(message)


def never(value: object) -> None:
    raise AssertionError(value)


def test_a_unit_gets_the_session_and_its_arguments(session: Session) -> None:
    workers = ThreadWorkers(session)
    assert workers.call(unit, 5, second=2) == (session, 3)
    with workers.pool(2) as pool:
        assert pool.submit("label", unit, 5).result() == (session, 4)


def test_an_error_of_a_unit_is_raised_with_its_result(session: Session) -> None:
    workers = ThreadWorkers(session)
    with pytest.raises(ValueError, match="odd"):
        workers.call(fail, "odd")
    with workers.pool(1) as pool:
        future = pool.submit("label", fail, "odd")
    with pytest.raises(ValueError, match="odd"):
        future.result()


def test_a_pool_runs_as_many_units_at_once_as_it_is_large(session: Session) -> None:
    """Each unit waits here for another one, which a smaller pool would never begin."""
    barrier = threading.Barrier(3)

    def meet(session: Session) -> int:
        return barrier.wait(PATIENCE)

    with ThreadWorkers(session).pool(3) as pool:
        futures = [pool.submit("label", meet) for _ in range(3)]
    assert sorted(future.result() for future in futures) == [0, 1, 2]


def test_leaving_a_pool_waits_for_its_units(session: Session) -> None:
    begin, finished = threading.Event(), list[str]()

    def wait(session: Session) -> None:
        begin.wait(PATIENCE)
        finished.append("unit")

    with ThreadWorkers(session).pool(1) as pool:
        pool.submit("label", wait)
        begin.set()
    assert finished == ["unit"]


def handled(inbox: Inbox) -> Iterator[int]:
    """Handle everything that has finished; yield how many units are left after each."""
    while len(inbox):
        inbox.handle_next(PATIENCE)
        yield len(inbox)


def test_results_are_handled_as_they_finish() -> None:
    inbox, results = Inbox(), list[int]()
    futures: list[Future[int]] = [Future() for _ in range(3)]
    for future in futures:
        inbox.follow(future, results.append, never)
    for number in (2, 0, 1):
        futures[number].set_result(number)
    assert list(handled(inbox)) == [2, 1, 0]
    assert results == [2, 0, 1]


def test_errors_are_handled_apart_from_results() -> None:
    inbox, errors = Inbox(), list[Exception]()
    future: Future[Any] = Future()
    inbox.follow(future, never, errors.append)
    future.set_exception(error := ValueError("odd"))
    inbox.handle_next(PATIENCE)
    assert errors == [error]
    assert len(inbox) == 0


def test_a_unit_that_has_already_finished_is_handled() -> None:
    inbox, results = Inbox(), list[str]()
    future: Future[str] = Future()
    future.set_result("early")
    inbox.follow(future, results.append, never)
    inbox.handle_next(PATIENCE)
    assert results == ["early"]


def test_waiting_for_an_inbox_is_limited() -> None:
    """A caller can do something else in between, such as renew its claims."""
    inbox = Inbox()
    inbox.follow(Future(), never, never)
    inbox.handle_next(0.01)
    assert len(inbox) == 1


def test_handlers_may_follow_other_units() -> None:
    """Loading follows extraction in that way."""
    inbox, results = Inbox(), list[str]()
    first: Future[str] = Future()
    second: Future[str] = Future()
    inbox.follow(first, lambda _: inbox.follow(second, results.append, never), never)
    first.set_result("extracted")
    inbox.handle_next(PATIENCE)
    assert len(inbox) == 1
    second.set_result("loaded")
    inbox.handle_next(PATIENCE)
    assert results == ["loaded"]


def test_results_are_handled_in_the_thread_that_asks(session: Session) -> None:
    inbox, threads = Inbox(), list[int]()
    with ThreadWorkers(session).pool(2) as pool:
        for number in range(4):
            inbox.follow(pool.submit("label", unit, number), lambda _: threads.append(threading.get_ident()), never)
        list(handled(inbox))
    assert set(threads) == {threading.get_ident()}
