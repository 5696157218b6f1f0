"""Keeping to rate limits: never more than the share in any minute, nearly all of it over many."""

from itertools import pairwise

import pytest
from pyrate_limiter.abstracts.algorithm import GCRA

from klaviyo_pg.errors import Throttled
from klaviyo_pg.klaviyo.limits import Limit, Pace, rate, told

PUBLISHED = [Limit(1, 15), Limit(3, 60), Limit(10, 150), Limit(75, 750), Limit(350, 3500)]


def sent(limit: Limit, share: float, seconds: int) -> list[int]:
    """When requests go out, in milliseconds, if as many are waiting as there may be."""
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
def test_no_minute_and_no_second_holds_more_than_the_share(limit: Limit, share: float) -> None:
    """Wherever a window of the API begins."""
    times = sent(limit, share, 200)
    for length, allowed in ((60_000, limit.steady * share), (1_000, max(1.0, limit.burst * share))):
        behind = 0
        for number, time in enumerate(times):
            while times[behind] <= time - length:
                behind += 1
            assert number - behind + 1 <= max(2, allowed)
    assert all(one <= other for one, other in pairwise(times))


def test_nearly_all_of_the_share_is_used() -> None:
    """Over a long load, at the endpoint where it matters."""
    assert len(sent(Limit(350, 3500), 0.9, 600)) >= 0.95 * 0.9 * 3500 * 10


@pytest.mark.parametrize(
    ("header", "limit"),
    [
        pytest.param("350, 350;w=1, 3500;w=60", Limit(350, 3500), id="as Klaviyo tells"),
        pytest.param("1, 1;w=1, 2;w=60, 225;w=86400", Limit(1, 2), id="with a day"),
        pytest.param(None, None, id="none"),
        pytest.param("100", None, id="of another kind"),
        pytest.param("soon;w=x", None, id="nonsense"),
    ],
)
def test_what_an_answer_tells(header: str | None, limit: Limit | None) -> None:
    """The header of every answer that is no 429."""
    assert told(header) == limit


def test_a_server_without_limits_is_not_waited_for() -> None:
    """After the first answer that tells none."""
    pace = Pace(0.9, 1)
    pace.wait("accounts", Limit(1, 1))
    pace.learn("accounts", None)
    for _ in range(100):
        pace.wait("accounts", Limit(1, 1))


def test_a_pause_longer_than_the_budget_ends_the_run() -> None:
    """A daily quota can ask for hours."""
    pace = Pace(0.9, 10)
    pace.close("events", 7200)
    with pytest.raises(Throttled, match="used up for 7200 s more"):
        pace.wait("events", Limit(350, 3500))
