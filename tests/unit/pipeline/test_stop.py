"""The stop flag: the first reason counts, signals request a stop, and waiting work ends with the same error."""

import os
import signal
import threading
from types import FrameType

import pytest

from klaviyo_pg.errors import Stopped, Throttled, Unavailable
from pipeline.stop import StopFlag


def test_without_a_request_nothing_happens() -> None:
    stop = StopFlag()
    stop.check()
    assert not stop.is_requested


def test_work_ends_with_an_error_like_the_first_reason() -> None:
    """Each caller gets a new instance, because several threads raise it."""
    stop = StopFlag()
    stop.request(reason := Throttled("Wait a day."))
    stop.request(Stopped())
    assert stop.is_requested
    with pytest.raises(Throttled, match=r"^Wait a day\.$") as caught:
        stop.check()
    assert caught.value is not reason


def test_only_a_long_pause_requests_a_stop() -> None:
    stop = StopFlag()
    stop.request_if_throttled(Unavailable())
    assert not stop.is_requested
    stop.request_if_throttled(Throttled())
    assert stop.is_requested


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_requests_a_stop_and_the_second_has_its_usual_effect(number: signal.Signals) -> None:
    usual: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        usual.append(number)

    before = signal.signal(number, handle)
    try:
        stop = StopFlag()
        with stop.on_signals():
            os.kill(os.getpid(), number)
            assert stop.is_requested and not usual
            os.kill(os.getpid(), number)
            assert usual == [number]
        assert signal.getsignal(number) is handle
    finally:
        signal.signal(number, before)


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = StopFlag()
        with stop.on_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.is_requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_threads_leave_signals_alone() -> None:
    """Python handles signals in the main thread only."""
    before, during = signal.getsignal(signal.SIGTERM), list[object]()

    def run() -> None:
        with StopFlag().on_signals():
            during.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert during == [before]
