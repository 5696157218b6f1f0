"""The pace of requests: no minute exceeds the share of the limit, and long loads use nearly all of it."""

from itertools import pairwise

import pytest
from pyrate_limiter.abstracts.algorithm import GCRA

from klaviyo_pg.errors import Stopped, Throttled
from klaviyo_pg.klaviyo.current.records import PREDICTIONS
from klaviyo_pg.klaviyo.current.source import PROFILES
from klaviyo_pg.klaviyo.pace import Limit, Pace, limit_in, rate

PUBLISHED = [Limit(1, 15), Limit(3, 60), Limit(10, 150), Limit(75, 750), Limit(350, 3500)]


def sent(limit: Limit, share: float, seconds: int) -> list[int]:
    """Return the times of requests in milliseconds, if each is sent as early as possible."""
    algorithm, rates = GCRA(), [rate(limit, share)]
    state, now, times = algorithm.initial(rates), 10**12, []
    while now < 10**12 + seconds * 1000:
        state, decision = algorithm.step(rates, state, now, 1)
        if decision.allowed:
            times.append(now)
        else:
            now += max(1, decision.retry_after_ms or 0)
    return times


@pytest.mark.parametrize("limit", PUBLISHED, ids=str)
@pytest.mark.parametrize("share", [0.9, 0.5])
def test_no_minute_and_no_second_exceeds_the_share(limit: Limit, share: float) -> None:
    """This holds wherever the API's minute or second begins."""
    times = sent(limit, share, 200)
    for length, allowed in ((60_000, limit.steady * share), (1_000, max(1.0, limit.burst * share))):
        oldest = 0
        for number, time in enumerate(times):
            while times[oldest] <= time - length:
                oldest += 1
            assert number - oldest + 1 <= max(2, allowed)
    assert all(earlier <= later for earlier, later in pairwise(times))


def test_a_long_load_uses_nearly_all_of_the_share() -> None:
    assert len(sent(Limit(350, 3500), 0.9, 600)) >= 0.95 * 0.9 * 3500 * 10


@pytest.mark.parametrize(
    ("header", "limit"),
    [
        pytest.param("350, 350;w=1, 3500;w=60", Limit(350, 3500), id="the format of Klaviyo"),
        pytest.param("1, 1;w=1, 2;w=60, 225;w=86400", Limit(1, 2), id="with a limit per day"),
        pytest.param(None, None, id="no header"),
        pytest.param("100", None, id="another format"),
        pytest.param("soon;w=x", None, id="nonsense"),
    ],
)
def test_limits_are_read_from_the_header(header: str | None, limit: Limit | None) -> None:
    assert limit_in(header) == limit


class Time:
    """The time of a test, which passes while a pace sleeps."""

    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Return the time of every pace."""
    time = Time()
    monkeypatch.setattr("klaviyo_pg.klaviyo.pace.monotonic", lambda: time.now)
    monkeypatch.setattr("klaviyo_pg.klaviyo.pace.sleep", time.sleep)
    return time


def test_a_server_without_limits_is_not_waited_for(time: Time) -> None:
    """After the first response without a limit, the published limit no longer applies."""
    pace = Pace(0.9, 1)
    pace.wait("accounts", Limit(1, 1))
    pace.learn("accounts", None)
    for _ in range(100):
        pace.wait("accounts", Limit(1, 1))
    assert time.now == 0


def test_requests_that_count_against_two_limits_keep_both(time: Time) -> None:
    """Predictions have a separate limit, and also use up that of profiles."""
    times, pace = list[float](), Pace(0.9, 60)
    while time.now < 180:
        for endpoint in (PREDICTIONS, *[PROFILES] * 5):
            pace.wait(endpoint.name, endpoint.limit, also=endpoint.also)
            times.append(time.now)
    busiest = max(sum(start <= each < start + 60 for each in times) for start in times)
    assert 0.9 * 0.9 * 750 <= busiest <= 0.9 * 750
    assert set(pace.sent) == {"predictions", "profiles"} and sum(pace.sent.values()) == len(times)


def test_a_wait_longer_than_the_budget_raises_throttled() -> None:
    """The API can demand hours once a daily quota is used up. The run ends instead of waiting."""
    pace = Pace(0.9, 10)
    pace.close("events", 7200)
    with pytest.raises(Throttled, match=r"used up for another 7[12]\d\d s") as caught:
        pace.wait("events", Limit(350, 3500))
    assert "RETRY_BUDGET_SECONDS" in str(caught.value) and str(caught.value).endswith("to resume.")


def test_keeping_the_rate_uses_up_no_budget(time: Time) -> None:
    """Of a limit of two requests a minute, each request waits longer than this budget. Only retries are limited."""
    pace, reports = Pace(0.9, 30), Limit(1, 2)
    for _ in range(4):
        pace.wait("reports", reports)
    assert 3 * 30 < time.now < 4 * 60
    with pytest.raises(Throttled, match="used up for another 33 s"):
        pace.wait("reports", reports, budget=30)


def test_a_stop_ends_the_wait_for_the_rate(time: Time) -> None:
    def check() -> None:
        if time.now > 5:
            raise Stopped

    pace, reports = Pace(0.9, 30, check=check), Limit(1, 2)
    pace.wait("reports", reports)
    with pytest.raises(Stopped):
        pace.wait("reports", reports)
    assert time.now < 10
