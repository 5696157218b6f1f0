"""The source's counts in both dialects, compared with the events that the account holds."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from klaviyo_pg.errors import Refused
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.rows import Beginning
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from sandbox.launcher import Sandbox, running

UNTIL = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = 500  # more than one request for aggregates may span
HISTORY = Window(UNTIL - timedelta(days=DAYS), UNTIL)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account with a long history."""
    with running(members=100, events=5_000, days=DAYS, until=UNTIL) as box:
        yield box


@pytest.fixture(params=["current", "legacy"])
def source(request: pytest.FixtureRequest, box: Sandbox) -> Source:
    """The account in either dialect."""
    return open_source(Settings(klaviyo_base_url=box.url, klaviyo_api_key=box.api_key, klaviyo_dialect=request.param))


def times_by_metric(box: Sandbox) -> dict[str, list[int]]:
    """Return the sorted Unix times of the account's events in HISTORY, by metric."""
    times: dict[str, list[int]] = {metric["id"]: [] for metric in box.state()["metrics"]}
    for event in box.events():
        if event["metric_id"] in times and event["timestamp"] < UNTIL.timestamp():
            times[event["metric_id"]].append(event["timestamp"])
    return {metric: sorted(each) for metric, each in times.items()}


def test_counts_match_the_events(source: Source, box: Sandbox) -> None:
    """A metric's counts are in order, do not overlap, and each is the number of events in its interval."""
    for metric_id, times in times_by_metric(box).items():
        counts = list(source.counts(metric_id, HISTORY))
        assert all(earlier.start < earlier.end <= later.start for earlier, later in pairwise(counts))
        step = int((counts[0].end - counts[0].start).total_seconds())
        counted = {int(count.start.timestamp()): count.events for count in counts if count.events}
        assert counted == Counter(time - time % step for time in times)


def test_a_metric_begins_with_its_first_event(source: Source, box: Sandbox) -> None:
    """A metric's beginning is its first event, with the number of events if one page can hold them."""
    numbers: list[int | None] = []
    for metric_id, times in times_by_metric(box).items():
        beginning = source.beginning(metric_id, HISTORY)
        assert beginning is not None
        assert beginning.first == (datetime.fromtimestamp(times[0], UTC) if times else None)
        assert beginning.events in (None, len(times))
        assert beginning.events is not None or len(times) > source.events_per_page
        numbers.append(beginning.events)
        before = Window(HISTORY.start, beginning.first or UNTIL)
        assert source.beginning(metric_id, before) == Beginning(None, 0)
    assert None in numbers and any(numbers)


def test_counts_of_an_unknown_metric_are_refused(source: Source) -> None:
    """A metric that the account does not have is refused rather than counted as empty."""
    with pytest.raises(Refused):
        list(source.counts("NOPE01", HISTORY))
