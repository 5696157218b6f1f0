"""The state of the server: the account, and everything about the server that changes while it runs."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time

from sandbox.account import Account
from sandbox.api.keys import ALL_SCOPES, API_KEY
from sandbox.current import allowed, revisions
from sandbox.faults.chaos import Chaos
from sandbox.faults.kinds import Fault
from sandbox.server.limiter import Limiter
from sandbox.server.traffic import Traffic


@dataclass
class ServerState:
    """An account, the settings of the server in front of it, and its counters."""

    account: Account
    limiter: Limiter | None = None
    latency: float = 0.0  # seconds
    max_events: int = allowed.EVENTS.max_page_size  # on one page, however many a request asks for
    largest_page: int = allowed.EVENTS.max_page_size  # rows; larger pages are refused
    oldest_revision: str = revisions.OLDEST  # of the current dialect; earlier ones are retired
    clock: Callable[[], float] = time
    keys: dict[str, frozenset[str]] = field(default_factory=lambda: {API_KEY: frozenset({ALL_SCOPES})})
    legacy: str = "on"  # one of LEGACY_MODES
    chaos: Chaos = field(default_factory=Chaos)
    faults: list[Fault] = field(default_factory=list)
    faults_met: Counter[str] = field(default_factory=Counter)  # by kind
    requests: Counter[str] = field(default_factory=Counter)  # by endpoint
    answers: Counter[str] = field(default_factory=Counter)  # by endpoint and status
    traffic: Traffic = field(default_factory=Traffic)

    def now(self) -> float:
        """Return the present: the end of the account's time or the clock, whichever is later."""
        return max(self.account.options.end, self.clock())

    def next_fault(self, endpoint: str, query: str = "") -> Fault | None:
        """Return the fault of the next request to this endpoint. Requested faults take precedence over random ones."""
        drawn = self.chaos.draw(endpoint)
        for fault in self.faults:
            if fault.endpoint != endpoint or fault.query not in query or fault.times <= 0:
                continue
            if fault.after > 0:
                fault.after -= 1
                return None
            fault.times -= 1
            return fault
        return drawn
