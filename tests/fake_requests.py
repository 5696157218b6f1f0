"""The requests that an account in memory has received, and faults on request. Knows nothing of the account's data."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from klaviyo_pg.windows import AnyWindow


class Request(NamedTuple):
    """A request that the account received: the kind of read, its subject, its window, and the number of the page."""

    kind: str
    subject: str | None
    window: AnyWindow
    page: int


@dataclass
class Fault:
    """Something that happens when a page is requested: an action that raises an error or changes something else.

    It applies to reads of one kind, and only to those of `subject` and to the page with the number `page` where these
    are not None; `times` limits how often it happens.
    """

    kind: str
    action: Callable[[], object]
    subject: str | None
    page: int | None
    times: int | None

    def applies_to(self, request: Request) -> bool:
        """Return whether the fault applies to a request."""
        is_meant = request.kind == self.kind and self.subject in (None, request.subject)
        return is_meant and self.page in (None, request.page) and self.times != 0


@dataclass
class Requests:
    """The requests of an account, and the faults that happen when it receives one."""

    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def fail(
        self,
        kind: str,
        error: Exception,
        subject: str | None = None,
        page: int | None = None,
        times: int | None = None,
    ) -> None:
        """Answer requests with an error until `recover` is called, or only so many times."""

        def action() -> None:
            raise error

        self.before(kind, action, subject, page, times)

    def before(
        self,
        kind: str,
        action: Callable[[], object],
        subject: str | None = None,
        page: int | None = None,
        times: int | None = 1,
    ) -> None:
        """Call a function before a page is served."""
        self._faults.append(Fault(kind, action, subject, page, times))

    def recover(self) -> None:
        """Remove all faults, and forget the requests so far."""
        self.recover_faults()
        self.requests.clear()

    def recover_faults(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def sent(self, kind: str, subject: str | None = None) -> list[Request]:
        """Return the requests of a kind, in order; of one subject where it is not None."""
        return [each for each in self.requests if each.kind == kind and subject in (None, each.subject)]

    def receive(self, request: Request) -> None:
        """Record a request, and let the faults happen that apply to it."""
        with self._lock:
            self.requests.append(request)
            faults = [fault for fault in self._faults if fault.applies_to(request)]
            for fault in faults:
                fault.times = None if fault.times is None else fault.times - 1
        for fault in faults:
            fault.action()
