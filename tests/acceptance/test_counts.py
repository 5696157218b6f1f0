"""What the source counts, in both dialects, beside the events that it serves."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from klaviyo_pg.errors import Refused
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.klaviyo.rows import Beginning
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from sandbox.launcher import Sandbox, running

UNTIL = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = 500  # more than one question for aggregates covers
HISTORY = Window(UNTIL - timedelta(days=DAYS), UNTIL)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account with a long history."""
    with running(members=100, events=5_000, days=DAYS, until=UNTIL) as box:
        yield box


@pytest.fixture(params=["current", "legacy"])
def source(request: pytest.FixtureRequest, box: Sandbox) -> Source:
    """The account in either dialect."""
    return open_source(
        Settings(klaviyo_base_url=box.url, klaviyo_api_key=box.api_key, klaviyo_dialect=request.param)  # type: ignore[arg-type]
    )


def test_counts_are_those_of_the_events(source: Source, box: Sandbox) -> None:
    """For each metric the counts are in order, do not overlap, and each is the number of events in its stretch."""
    truth = box.events()
    for metric in box.state()["metrics"]:
        counts = list(source.counts(metric["id"], HISTORY))
        assert all(one.start < one.end <= other.start for one, other in pairwise(counts))
        times = [event["timestamp"] for event in truth if event["metric_id"] == metric["id"]]
        edges = {int(count.start.timestamp()): count.events for count in counts}
        length = int((counts[0].end - counts[0].start).total_seconds())
        found = Counter(time - time % length for time in times if time < UNTIL.timestamp())
        assert found == Counter({start: events for start, events in edges.items() if events})


def test_beginnings_are_those_of_the_events(source: Source, box: Sandbox) -> None:
    """A metric begins with its first event in the window; how many there are is known where one page holds them."""
    truth = box.events()
    by_number: list[int | None] = []
    for metric in box.state()["metrics"]:
        within = [event["timestamp"] for event in truth if event["metric_id"] == metric["id"]]
        times = sorted(time for time in within if time < UNTIL.timestamp())
        found = source.beginning(metric["id"], HISTORY)
        assert found is not None
        assert found.first == (datetime.fromtimestamp(times[0], UTC) if times else None)
        assert found.events in (None, len(times))
        assert found.events is not None or len(times) > source.events_in_request
        by_number.append(found.events)
        before = Window(HISTORY.start, found.first or UNTIL)
        assert source.beginning(metric["id"], before) == Beginning(None, 0)
    assert None in by_number and any(by_number)


def test_a_metric_that_is_not_counted(source: Source) -> None:
    """A metric that the source does not know is refused, not counted as empty."""
    with pytest.raises(Refused):
        list(source.counts("NOPE01", HISTORY))
