"""Keeping to the API's rate limits in advance, instead of running into them. Knows no dialect and no database.

The API counts requests per account and endpoint in windows of a second and of a minute. Whatever reads the account at
the same time shares them, so the state of a pace can be kept where all of it finds it.
"""

import re
import threading
from collections import defaultdict
from collections.abc import Callable
from time import monotonic, sleep, time
from typing import NamedTuple

from pyrate_limiter import Duration, Rate
from pyrate_limiter.abstracts.algorithm import GCRA, Decision
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.state_bucket import InMemoryStateStore

from klaviyo_pg.errors import Throttled

_ALGORITHM = GCRA()
_AT_ONCE = 0.02  # share of a minute's requests that may be sent without a pause; the others are spread evenly
_LOOK = 0.25  # seconds between two looks at a limit that may have turned out not to be one
_TOLD = re.compile(r"(\d+);w=(\d+)")


class Limit(NamedTuple):
    """Requests that an endpoint allows in a second, and in a minute."""

    burst: int
    steady: int


def told(header: str | None) -> Limit | None:
    """What an answer's ratelimit-limit says; None where it says nothing of a second and a minute."""
    windows = {int(seconds): int(requests) for requests, seconds in _TOLD.findall(header or "")}
    return Limit(windows[1], windows[60]) if windows.keys() >= {1, 60} else None


def rate(limit: Limit, share: float) -> Rate:
    """The pace that never uses more than this share of a limit, in whichever minute it is counted.

    A few requests may come at once, as many fewer come evenly: both together fit into any minute, and into any second.
    """
    allowed = max(2, int(limit.steady * share))
    at_once = max(1, min(int(limit.burst * share), int(allowed * _AT_ONCE)))
    return Rate(allowed - at_once, Duration.MINUTE, burst=at_once)


class Pace:
    """How fast the endpoints of one account may be asked. Shared by the threads of a process.

    `store` gives the place for the state of an endpoint, `check` raises an error where waiting has to end. An endpoint
    is taken to have its published limit until its first answer tells another one, or none.
    """

    def __init__(
        self,
        share: float,
        budget: float,
        store: Callable[[str], StateStore] = lambda endpoint: InMemoryStateStore(),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._share, self._budget, self._store, self._check = share, budget, store, check
        self._limits: dict[str, Limit | None] = {}
        self._stores: dict[str, StateStore] = {}
        self._closed: dict[str, float] = {}
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def wait(self, endpoint: str, published: Limit | None) -> None:
        """Wait until a request may be sent. Raises Throttled where that would take longer than the budget."""
        while not self._turns[endpoint].acquire(timeout=_LOOK):  # one thread asks, the others wait behind it
            self._check()
        try:
            while seconds := self._seconds(endpoint, published):
                self._check()
                if seconds > self._budget:
                    raise Throttled(f"The API's limit for {endpoint} is used up for {seconds:.0f} s more.", seconds)
                sleep(min(seconds, _LOOK))
        finally:
            self._turns[endpoint].release()

    def _seconds(self, endpoint: str, published: Limit | None) -> float:
        closed = self._closed.get(endpoint, 0.0) - monotonic()
        if closed > 0:
            return closed
        limit = self._limits.get(endpoint, published)
        if limit is None:
            return 0.0
        if endpoint not in self._stores:
            self._stores[endpoint] = self._store(endpoint)
        decision = self._stores[endpoint].check(_ALGORITHM, [rate(limit, self._share)], int(time() * 1000), 1)
        assert isinstance(decision, Decision)
        return 0.0 if decision.allowed else max(1, decision.retry_after_ms or 0) / 1000

    def learn(self, endpoint: str, header: str | None) -> None:
        """Take the limit from an answer; one that tells none comes from a server that has none."""
        self._limits[endpoint] = told(header)

    def close(self, endpoint: str, seconds: float) -> None:
        """The API wants no more requests for a while, from any thread."""
        self._closed[endpoint] = monotonic() + seconds
