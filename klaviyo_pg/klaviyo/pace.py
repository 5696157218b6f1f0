"""Pacing of requests so that the API's rate limits are kept rather than hit. Knows no dialect and no database.

The API counts requests per account and endpoint, in windows of a second and of a minute. All readers of an account
share these limits, so the state of a pace can be kept in a store that they all reach.
"""

import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic, sleep
from typing import NamedTuple

from pyrate_limiter import Duration, Rate
from pyrate_limiter.abstracts.algorithm import GCRA, Decision
from pyrate_limiter.abstracts.store import StateStore
from pyrate_limiter.buckets.state_bucket import InMemoryStateStore

from klaviyo_pg.errors import Throttled
from klaviyo_pg.waiting import CHECK_INTERVAL

_ALGORITHM = GCRA()
_BURST_SHARE = 0.02  # of a minute's requests may be sent without a pause; the others are spread evenly
_FEW = 5  # requests in a minute
_WINDOW = re.compile(r"(\d+);w=(\d+)")


class Limit(NamedTuple):
    """The requests that an endpoint allows in a second (`burst`) and in a minute (`steady`)."""

    burst: int
    steady: int


def limit_in(header: str | None) -> Limit | None:
    """Read a `ratelimit-limit` header. Return None unless it has a limit for a second and one for a minute."""
    windows = {int(seconds): int(requests) for requests, seconds in _WINDOW.findall(header or "")}
    return Limit(windows[1], windows[60]) if windows.keys() >= {1, 60} else None


def rate(limit: Limit, share: float) -> Rate:
    """Return the rate that never uses more than this share of a limit, wherever the API's minute begins.

    A few requests may be sent at once, and the evenly spread rest is reduced by as many, so that the sum fits any
    minute and any second. Of a limit of very few requests, which this would halve, all are evenly spread.
    """
    if limit.steady <= _FEW:
        return Rate(max(1, int(limit.steady * share * 10)), 10 * Duration.MINUTE, burst=1)
    allowed = max(2, int(limit.steady * share))
    burst = max(1, min(int(limit.burst * share), int(allowed * _BURST_SHARE)))
    return Rate(allowed - burst, Duration.MINUTE, burst=burst)


class _Wait(NamedTuple):
    """A wait in seconds, and the longest one that is accepted."""

    seconds: float
    longest: float


class Pace:
    """The pace of requests to the endpoints of one account. Safe to share between threads.

    `share` is the share of the limits to use, `budget` the longest wait in seconds. `store` returns the store for the
    state of an endpoint. `check` is called during waits and raises an error to end them. An endpoint's published limit
    applies until its first response contains another one, or none.
    """

    def __init__(
        self,
        share: float,
        budget: float,
        store: Callable[[str], StateStore] = lambda endpoint: InMemoryStateStore(),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._share, self._budget, self._store, self.check = share, budget, store, check
        self._limits: dict[str, Limit | None] = {}
        self._published: dict[str, Limit | None] = {}
        self._sent: Counter[str] = Counter()
        self._stores: dict[str, StateStore] = {}
        self._closed_until: dict[str, float] = {}
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def wait(
        self,
        endpoint: str,
        published: Limit | None,
        budget: float | None = None,
        also: tuple[str, Limit] | None = None,
    ) -> None:
        """Wait until a request may be sent. Raises Throttled if the API demands a pause that exceeds the budget.

        `budget` is the rest of it for a retry, which waits no longer than that to keep the rate either. `also` is
        another limit that the request counts against, by name. Raises the error of the check.
        """
        self._pass(endpoint, published, budget)
        if also is not None:
            self._pass(*also, budget)
        self._sent[endpoint] += 1

    def _pass(self, endpoint: str, published: Limit | None, budget: float | None) -> None:
        self._published[endpoint] = published
        self.check()
        while not self._turns[endpoint].acquire(timeout=CHECK_INTERVAL):  # one thread polls, the others queue up
            self.check()
        try:
            while wait := self._next_wait(endpoint, published, budget):
                if wait.seconds > wait.longest:
                    raise _throttled(endpoint, wait.seconds)
                sleep(min(wait.seconds, CHECK_INTERVAL))
                self.check()
        finally:
            self._turns[endpoint].release()

    @property
    def sent(self) -> Mapping[str, int]:
        """The number of requests that were allowed so far, by endpoint."""
        return dict(self._sent)

    def requests_per_minute(self, endpoint: str) -> int | None:
        """Return how many requests to an endpoint are sent in a minute at most; None if there is no limit."""
        limit = self._limits.get(endpoint, self._published.get(endpoint))
        return None if limit is None else max(2, int(limit.steady * self._share))

    def learn(self, endpoint: str, header: str | None) -> None:
        """Take the limit from a response's `ratelimit-limit` header. A server that sends none has no limit."""
        self._limits[endpoint] = limit_in(header)

    def close(self, endpoint: str, seconds: float) -> None:
        """Let no thread send a request to an endpoint for a while, as the API demanded."""
        self._closed_until[endpoint] = monotonic() + seconds

    def _next_wait(self, endpoint: str, published: Limit | None, budget: float | None) -> _Wait | None:
        """Return the wait for the end of a pause that the API demanded, or else the one that keeps the rate."""
        closed = self._closed_until.get(endpoint, 0.0) - monotonic()
        if closed > 0:
            return _Wait(closed, self._budget if budget is None else min(budget, self._budget))
        paced = self._seconds_at_rate(endpoint, published)
        return _Wait(paced, inf if budget is None else budget) if paced else None

    def _seconds_at_rate(self, endpoint: str, published: Limit | None) -> float:
        limit = self._limits.get(endpoint, published)
        if limit is None:
            return 0.0
        if endpoint not in self._stores:
            self._stores[endpoint] = self._store(endpoint)
        decision = self._stores[endpoint].check(_ALGORITHM, [rate(limit, self._share)], int(monotonic() * 1000), 1)
        assert isinstance(decision, Decision)
        return 0.0 if decision.allowed else max(1, decision.retry_after_ms or 0) / 1000


def _throttled(endpoint: str, seconds: float) -> Throttled:
    return Throttled(
        f"The API's rate limit for {endpoint} is used up for another {seconds:.0f} s, longer than "
        "RETRY_BUDGET_SECONDS allows to wait. Rerun later with the same arguments to resume.",
        seconds,
    )
