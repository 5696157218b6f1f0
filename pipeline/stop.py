"""Stopping a run: requests and pauses end at once. A batch that is being stored is finished; the rest is left.

The next run reads again what was read but not stored.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from klaviyo_pg.errors import KlaviyoPgError, Stopped, Throttled


class StopFlag:
    """A request to stop, shared by the threads of a session. The first reason counts."""

    def __init__(self) -> None:
        self._reason: KlaviyoPgError | None = None

    def request(self, reason: KlaviyoPgError) -> None:
        """Ask the run to stop. Work that has not begun ends with an error like `reason`."""
        self._reason = self._reason or reason

    def request_if_throttled(self, error: BaseException) -> None:
        """Ask the run to stop if the API requires a pause that is longer than a run waits."""
        if isinstance(error, Throttled):
            self.request(error)

    @property
    def is_requested(self) -> bool:
        """True if the run has been asked to stop."""
        return self._reason is not None

    def check(self) -> None:
        """Raise an error like the reason if the run has been asked to stop."""
        if self._reason is not None:
            raise type(self._reason)(str(self._reason))

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let the first SIGTERM, SIGINT or SIGHUP request a stop; a second one has its usual effect.

        SIGHUP is left alone where nothing handles it (for example under nohup). In a thread other than the main one
        signals cannot be handled, and this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        if not callable(usual[signal.SIGHUP]):
            del usual[signal.SIGHUP]

        def restore() -> None:
            for number, handler in usual.items():
                signal.signal(number, handler)

        def handle(number: int, frame: FrameType | None) -> None:
            self.request(Stopped())
            restore()

        for number in usual:
            signal.signal(number, handle)
        try:
            yield
        finally:
            restore()
