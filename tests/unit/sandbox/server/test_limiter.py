"""Rate limiting in fixed windows of a second and a minute, with a clock that the test sets."""

from dataclasses import dataclass

import pytest

from sandbox.api.limits import XL, XS, L, Limit, M, S
from sandbox.server.limiter import Limiter

MINUTE = 1_764_000_000  # the start of a minute


@dataclass
class Clock:
    now: float = MINUTE

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("limit", "burst", "steady"),
    [
        pytest.param(XS, 1, 15, id="XS"),
        pytest.param(S, 3, 60, id="S"),
        pytest.param(M, 10, 150, id="M"),
        pytest.param(L, 75, 750, id="L"),
        pytest.param(XL, 350, 3500, id="XL"),
    ],
)
def test_each_limit_allows_its_burst_and_its_steady_rate(clock: Clock, limit: Limit, burst: int, steady: int) -> None:
    """A limit allows exactly `burst` requests in a second and `steady` requests in a minute."""
    limiter = Limiter(clock)
    assert [limiter.take("x", limit) for _ in range(burst + 1)] == [0] * burst + [1]
    passed = burst
    for second in range(1, 60):
        clock.now = MINUTE + second
        passed += sum(limiter.take("x", limit) == 0 for _ in range(burst))
    assert passed == steady


def test_a_limit_of_a_day_ends_with_the_day_of_the_clock(clock: Clock) -> None:
    """The wait is that of the window that is full for the longest time, and the headers name each window."""
    limiter = Limiter(clock, {"x": Limit(5, 10, 3)})
    assert [limiter.take("x", XS) for _ in range(4)] == [0, 0, 0, 86_400 - MINUTE % 86_400]
    assert limiter.headers("x", XS)["ratelimit-limit"] == "5, 5;w=1, 10;w=60, 3;w=86400"
    clock.now += 86_400
    assert limiter.take("x", XS) == 0


def test_a_full_second_ends_with_the_second_of_the_clock(clock: Clock) -> None:
    limiter = Limiter(clock)
    clock.now = MINUTE + 0.9
    assert [limiter.take("x", XS) for _ in range(2)] == [0, 1]
    clock.now = MINUTE + 0.999
    assert limiter.take("x", XS) == 1
    clock.now = MINUTE + 1
    assert limiter.take("x", XS) == 0


def test_a_full_minute_returns_the_seconds_until_it_ends(clock: Clock) -> None:
    """The wait is rounded up, and requests are allowed again once the minute is over."""
    limiter = Limiter(clock)
    for second in range(15):
        clock.now = MINUTE + second
        assert limiter.take("x", XS) == 0
    clock.now = MINUTE + 15.25
    assert limiter.take("x", XS) == 45
    clock.now = MINUTE + 60
    assert limiter.take("x", XS) == 0


def test_the_returned_wait_is_long_enough(clock: Clock) -> None:
    """A request after the returned wait is allowed, at any fraction of a second."""
    limiter = Limiter(clock)
    for step in range(500):
        clock.now += 0.13
        wait = limiter.take("x", S)
        if wait:
            clock.now += wait
            assert limiter.take("x", S) == 0, step


def test_refused_requests_do_not_count(clock: Clock) -> None:
    limiter = Limiter(clock)
    limiter.take("x", XS)
    for _ in range(100):
        assert limiter.take("x", XS) == 1
    clock.now = MINUTE + 1
    assert limiter.take("x", XS) == 0


def test_endpoints_are_counted_separately(clock: Clock) -> None:
    limiter = Limiter(clock)
    assert [limiter.take(name, XS) for name in ("a", "b", "a")] == [0, 0, 1]


def test_headers_show_the_limits_and_the_remaining_requests(clock: Clock) -> None:
    limiter = Limiter(clock)
    for _ in range(3):
        limiter.take("x", M)
    assert limiter.headers("x", M) == {
        "ratelimit-limit": "10, 10;w=1, 150;w=60",
        "ratelimit-remaining": "7",
        "ratelimit-reset": "0",
    }
    clock.now = MINUTE + 1
    assert limiter.headers("x", M)["ratelimit-remaining"] == "10"


def test_an_override_replaces_the_limit_of_one_endpoint(clock: Clock) -> None:
    """The headers show the replaced limit, and other endpoints keep their limits."""
    limiter = Limiter(clock, {"x": Limit(2, 20)})
    assert [limiter.take("x", XL) for _ in range(3)] == [0, 0, 1]
    assert [limiter.take("y", XS) for _ in range(2)] == [0, 1]
    assert limiter.headers("x", XL)["ratelimit-limit"] == "2, 2;w=1, 20;w=60"
