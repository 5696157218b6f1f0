"""Rate limits: fixed windows of a second and a minute, on a clock that the test sets."""

from dataclasses import dataclass

import pytest

from sandbox.limits import XL, XS, L, Limit, Limiter, M, S

MINUTE = 1_764_000_000  # a whole minute


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
def test_published_limits(clock: Clock, limit: Limit, burst: int, steady: int) -> None:
    """Each limit lets its burst through in a second, and its steady number in a minute, and no more."""
    limiter = Limiter(clock)
    assert [limiter.take("x", limit) for _ in range(burst + 1)] == [0] * burst + [1]
    passed = burst
    for second in range(1, 60):
        clock.now = MINUTE + second
        passed += sum(limiter.take("x", limit) == 0 for _ in range(burst))
    assert passed == steady


def test_waits_for_the_end_of_the_second(clock: Clock) -> None:
    """A full second is over when the clock's second is, and not before."""
    limiter = Limiter(clock)
    clock.now = MINUTE + 0.9
    assert [limiter.take("x", XS) for _ in range(2)] == [0, 1]
    clock.now = MINUTE + 0.999
    assert limiter.take("x", XS) == 1
    clock.now = MINUTE + 1
    assert limiter.take("x", XS) == 0


def test_waits_for_the_end_of_the_minute(clock: Clock) -> None:
    """A full minute tells how many seconds are left of it, rounded up; then everything is allowed again."""
    limiter = Limiter(clock)
    for second in range(15):
        clock.now = MINUTE + second
        assert limiter.take("x", XS) == 0
    clock.now = MINUTE + 15.25
    assert limiter.take("x", XS) == 45
    clock.now = MINUTE + 60
    assert limiter.take("x", XS) == 0


def test_waiting_as_told_is_enough(clock: Clock) -> None:
    """Whoever waits as long as told is let in at once, at any fraction of a second."""
    limiter = Limiter(clock)
    for step in range(500):
        clock.now += 0.13
        wait = limiter.take("x", S)
        if wait:
            clock.now += wait
            assert limiter.take("x", S) == 0, step


def test_refused_requests_do_not_count(clock: Clock) -> None:
    """Asking too early costs nothing."""
    limiter = Limiter(clock)
    limiter.take("x", XS)
    for _ in range(100):
        assert limiter.take("x", XS) == 1
    clock.now = MINUTE + 1
    assert limiter.take("x", XS) == 0


def test_endpoints_are_counted_apart(clock: Clock) -> None:
    """One endpoint's requests leave the others alone."""
    limiter = Limiter(clock)
    assert [limiter.take(name, XS) for name in ("a", "b", "a")] == [0, 0, 1]


def test_headers(clock: Clock) -> None:
    """The headers tell the limits, and what is left of the second."""
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


def test_another_limit_of_an_endpoint(clock: Clock) -> None:
    """An endpoint may have a limit of its own, which its headers tell; the others keep theirs."""
    limiter = Limiter(clock, {"x": Limit(2, 20)})
    assert [limiter.take("x", XL) for _ in range(3)] == [0, 0, 1]
    assert [limiter.take("y", XS) for _ in range(2)] == [0, 1]
    assert limiter.headers("x", XL)["ratelimit-limit"] == "2, 2;w=1, 20;w=60"
