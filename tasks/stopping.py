"""Being told to stop: the batch in hand is finished, everything that waits is left for the next run."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from klaviyo_pg.errors import KlaviyoPgError, Stopped, Throttled

_told = threading.Event()
_reason: list[KlaviyoPgError] = []


@contextmanager
def on_signals() -> Iterator[None]:
    """SIGTERM, SIGINT and a closed terminal ask the work within to stop, once; a second time ends the process as usual.

    Where nobody has said what a closed terminal means, it goes on meaning what it always does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    if not callable(usual[signal.SIGHUP]):
        del usual[signal.SIGHUP]

    def tell(number: int, frame: FrameType | None) -> None:
        ask(Stopped())
        for each, handler in usual.items():
            signal.signal(each, handler)

    for number in usual:
        signal.signal(number, tell)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def begin() -> None:
    """Forget what was asked of an earlier run."""
    _told.clear()
    _reason.clear()


def ask(reason: KlaviyoPgError) -> None:
    """Ask the run to stop; parts that have not begun end with the same kind of error."""
    _reason.append(reason)
    _told.set()


def heed(error: BaseException) -> None:
    """Ask the run to stop where the API wants a long pause, before Prefect has noted how this part of it ended."""
    if isinstance(error, Throttled):
        ask(error)


def asked() -> bool:
    """Whether somebody has asked to stop."""
    return _told.is_set()


def check() -> None:
    """Raises an error like the reason, if somebody has asked to stop."""
    if _told.is_set():
        raise type(_reason[0])(str(_reason[0]))
