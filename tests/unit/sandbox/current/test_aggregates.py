"""Metric aggregates equal the counts and sums of the individual events."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sandbox.account import Account
from sandbox.account.properties import as_number
from sandbox.account.timeline import NOBODY, AddedEvent, Window
from sandbox.api.errors import ApiError
from sandbox.current.aggregates import aggregate

SINCE, UNTIL = datetime(2026, 10, 20, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)
RANGE = ["greater-or-equal(datetime,2026-10-20T00:00:00)", "less-than(datetime,2026-11-24T00:00:00)"]


def query(account: Account, metric: str, **changes: Any) -> dict[str, Any]:
    default = {"metric_id": account.metric(metric).id, "measurements": ["count"], "filter": RANGE}
    answer = aggregate(account, "", {"data": {"type": "metric-aggregate", "attributes": default | changes}})
    attributes: dict[str, Any] = answer["data"]["attributes"]
    return attributes


def events(account: Account, metric: str, since: datetime = SINCE, until: datetime = UNTIL) -> list[int]:
    window = Window(account.metric(metric).number, int(since.timestamp()), int(until.timestamp()))
    return account.timeline.read(window, account.timeline.count(window))


def floor(at: datetime, interval: str) -> datetime:
    """Return the start of the hour, day, week or month that contains a time."""
    if interval == "hour":
        return at.replace(minute=0, second=0)
    day = at.replace(hour=0, minute=0, second=0)
    if interval == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if interval == "month" else day


@pytest.mark.parametrize("zone", ["UTC", "Europe/Copenhagen", "America/New_York", "America/St_Johns", "Asia/Kathmandu"])
@pytest.mark.parametrize("interval", ["hour", "day", "week", "month"])
def test_counts_equal_the_events_of_each_interval(account: Account, interval: str, zone: str) -> None:
    """Intervals start at local times of the time zone. The range contains both changes of the clock."""
    expected = Counter(
        floor(datetime.fromtimestamp(account.timeline.time(ref), ZoneInfo(zone)), interval).timestamp()
        for ref in events(account, "Opened Email")
    )
    answer = query(account, "Opened Email", interval=interval, timezone=zone)
    starts = [datetime.fromisoformat(date).timestamp() for date in answer["dates"]]
    assert starts == sorted(set(starts))
    counts = dict(zip(starts, answer["data"][0]["measurements"]["count"], strict=True))
    assert {start: count for start, count in counts.items() if count} == dict(expected)
    assert sum(counts.values()) == len(events(account, "Opened Email")) > 500


def test_local_days_are_returned_in_utc(account: Account) -> None:
    """A day in Copenhagen starts at 22:00 UTC in summer and at 23:00 in winter."""
    dates = query(account, "Opened Email", timezone="Europe/Copenhagen")["dates"]
    assert dates[0] == "2026-10-19T22:00:00+00:00"
    assert dates[-1] == "2026-11-23T23:00:00+00:00"


@pytest.mark.parametrize("metric", ["Placed Order", "Loyalty Points Earned", "Ordered Product"])
def test_sums_add_up_values_and_uniques_count_people(account: Account, metric: str) -> None:
    """A $value that is no number adds nothing to the sum, and each person counts once."""
    values, people = [], set()
    for ref in events(account, metric):
        try:
            values.append(float(json.loads(account.timeline.properties(ref))["$value"]))
        except ValueError:
            continue
        finally:
            people.add(account.timeline.person(ref))
    changes = {"interval": "month", "filter": [*RANGE], "measurements": ["sum_value", "unique", "count"]}
    (row,) = query(account, metric, **changes)["data"]
    assert sum(row["measurements"]["sum_value"]) == pytest.approx(sum(values))
    assert sum(row["measurements"]["count"]) == len(events(account, metric))
    assert max(row["measurements"]["unique"]) <= len(people - {NOBODY}) <= sum(row["measurements"]["unique"])
    assert people - {NOBODY}


@pytest.mark.parametrize(
    ("dimension", "index"), [pytest.param("$message", 0, id="message"), pytest.param("$flow", 1, id="flow")]
)
def test_each_dimension_groups_and_filters(account: Account, dimension: str, index: int) -> None:
    """There is a row for each message or flow and one for events without it. Each value can be filtered for."""
    expected: Counter[str] = Counter(
        account.timeline.message_and_flow(ref)[index] or "" for ref in events(account, "Received Email")
    )
    counts = {
        tuple(row["dimensions"]): sum(row["measurements"]["count"])
        for row in query(account, "Received Email", by=[dimension])["data"]
    }
    assert counts == {(name,): count for name, count in expected.items()}
    name, count = expected.most_common(1)[0]
    (row,) = query(account, "Received Email", filter=[*RANGE, f'equals({dimension},"{name}")'])["data"]
    assert sum(row["measurements"]["count"]) == count


def test_two_dimensions_give_a_row_for_each_pair(account: Account) -> None:
    expected: dict[tuple[str, ...], int] = defaultdict(int)
    for ref in events(account, "Received Email"):
        expected[tuple(name or "" for name in account.timeline.message_and_flow(ref))] += 1
    rows = query(account, "Received Email", by=["$message", "$flow"])["data"]
    assert {tuple(row["dimensions"]): sum(row["measurements"]["count"]) for row in rows} == expected


def test_no_events_give_zeros(account: Account) -> None:
    """Without events there is one row of zeros, or no row if there is a dimension."""
    empty = ["greater-or-equal(datetime,2020-01-01T00:00:00)", "less-than(datetime,2020-01-03T00:00:00)"]
    assert query(account, "Placed Order", filter=empty)["data"] == [
        {"dimensions": [], "measurements": {"count": [0, 0]}}
    ]
    assert query(account, "Placed Order", filter=empty, by=["$flow"])["data"] == []


@pytest.mark.parametrize(("value", "adds"), [(12.5, 12.5), ("7", 7.0), ("x", 0.0), ("inf", 0.0), (None, 0.0)], ids=repr)
def test_added_events_count(make_account: Callable[[], Account], value: object, adds: float) -> None:
    """Counts and sums include events that were added later."""
    account = make_account()
    number = account.metric("Made Up").number
    at = int(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp())
    account.timeline.add(AddedEvent(at, number, 3, b"{}", b'"a"', b"0", None, None, as_number(value)))
    (row,) = query(account, "Made Up", interval="month", measurements=["count", "sum_value", "unique"])["data"]
    assert row["measurements"] == {"count": [0, 1], "sum_value": [0.0, adds], "unique": [0, 1]}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param({"metric_id": "NOPE01"}, 404, id="unknown metric"),
        pytest.param({"measurements": ["average"]}, 400, id="unknown measurement"),
        pytest.param({"measurements": []}, 400, id="no measurement"),
        pytest.param({"measurements": [["count"]]}, 400, id="nested measurement"),
        pytest.param({"interval": "minute"}, 400, id="unknown interval"),
        pytest.param({"timezone": "Mars/Olympus"}, 400, id="unknown time zone"),
        pytest.param({"sort": "count"}, 400, id="sort"),
        pytest.param({"by": ["Colour"]}, 400, id="unknown dimension"),
        pytest.param({"filter": RANGE[:1]}, 400, id="no end"),
        pytest.param({"filter": ["greater-or-equal(datetime,2024-01-01)", RANGE[1]]}, 400, id="more than a year"),
        pytest.param({"filter": None}, 400, id="no filter"),
    ],
)
def test_invalid_requests_are_refused(account: Account, changes: dict[str, Any], status: int) -> None:
    with pytest.raises(ApiError) as refused:
        query(account, "Placed Order", **changes)
    assert refused.value.status == status
