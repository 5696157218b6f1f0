"""Being told to stop: the batch in hand is finished, everything that waits is left for the next run."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from klaviyo_pg.errors import Stopped

_told = threading.Event()


@contextmanager
def on_signals() -> Iterator[None]:
    """SIGTERM and SIGINT ask the work within to stop, once; a second one ends the process as usual."""
    _told.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def tell(number: int, frame: FrameType | None) -> None:
        _told.set()
        for each, handler in usual.items():
            signal.signal(each, handler)

    for number in usual:
        signal.signal(number, tell)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def asked() -> bool:
    """Whether somebody has asked to stop."""
    return _told.is_set()


def check() -> None:
    """Raises Stopped if somebody has asked to stop."""
    if _told.is_set():
        raise Stopped
