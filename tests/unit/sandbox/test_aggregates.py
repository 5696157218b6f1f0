"""Aggregates say what the events say when they are counted one by one."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sandbox.account import Account
from sandbox.aggregates import aggregate
from sandbox.errors import ApiError
from sandbox.properties import as_number
from sandbox.timeline import NOBODY, AddedEvent, Window

SINCE, UNTIL = datetime(2026, 10, 20, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)
RANGE = ["greater-or-equal(datetime,2026-10-20T00:00:00)", "less-than(datetime,2026-11-24T00:00:00)"]


def ask(account: Account, metric: str, **asked: Any) -> dict[str, Any]:
    usual = {"metric_id": account.metric(metric).id, "measurements": ["count"], "filter": RANGE}
    answer = aggregate(account, "", {"data": {"type": "metric-aggregate", "attributes": usual | asked}})
    attributes: dict[str, Any] = answer["data"]["attributes"]
    return attributes


def events(account: Account, metric: str, since: datetime = SINCE, until: datetime = UNTIL) -> list[int]:
    window = Window(account.metric(metric).number, int(since.timestamp()), int(until.timestamp()))
    return account.timeline.read(window, account.timeline.count(window))


def floor(at: datetime, interval: str) -> datetime:
    """The start of the hour, day, week or month that a moment of a time zone lies in."""
    if interval == "hour":
        return at.replace(minute=0, second=0)
    day = at.replace(hour=0, minute=0, second=0)
    if interval == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if interval == "month" else day


@pytest.mark.parametrize("zone", ["UTC", "Europe/Copenhagen", "America/New_York", "America/St_Johns", "Asia/Kathmandu"])
@pytest.mark.parametrize("interval", ["hour", "day", "week", "month"])
def test_counts(account: Account, interval: str, zone: str) -> None:
    """Each bucket counts the events whose time falls into it in that time zone; both clock changes lie in the range."""
    counted = Counter(
        floor(datetime.fromtimestamp(account.timeline.time(ref), ZoneInfo(zone)), interval).timestamp()
        for ref in events(account, "Opened Email")
    )
    said = ask(account, "Opened Email", interval=interval, timezone=zone)
    edges = [datetime.fromisoformat(date).timestamp() for date in said["dates"]]
    assert edges == sorted(set(edges))
    counts = dict(zip(edges, said["data"][0]["measurements"]["count"], strict=True))
    assert {edge: count for edge, count in counts.items() if count} == dict(counted)
    assert sum(counts.values()) == len(events(account, "Opened Email")) > 500


def test_days_of_a_time_zone_are_told_in_utc(account: Account) -> None:
    """A day in Copenhagen starts at 22:00 UTC in summer and at 23:00 in winter."""
    dates = ask(account, "Opened Email", timezone="Europe/Copenhagen")["dates"]
    assert dates[0] == "2026-10-19T22:00:00+00:00"
    assert dates[-1] == "2026-11-23T23:00:00+00:00"


@pytest.mark.parametrize("metric", ["Placed Order", "Loyalty Points Earned", "Ordered Product"])
def test_sums_and_uniques(account: Account, metric: str) -> None:
    """Sums are those of $value where it is a number, and each person counts once."""
    values, people = [], set()
    for ref in events(account, metric):
        try:
            values.append(float(json.loads(account.timeline.properties(ref))["$value"]))
        except ValueError:
            continue
        finally:
            people.add(account.timeline.person(ref))
    whole = {"interval": "month", "filter": [*RANGE], "measurements": ["sum_value", "unique", "count"]}
    (row,) = ask(account, metric, **whole)["data"]
    assert sum(row["measurements"]["sum_value"]) == pytest.approx(sum(values))
    assert sum(row["measurements"]["count"]) == len(events(account, metric))
    assert max(row["measurements"]["unique"]) <= len(people - {NOBODY}) <= sum(row["measurements"]["unique"])
    assert people - {NOBODY}


@pytest.mark.parametrize(
    ("dimension", "index"), [pytest.param("$message", 0, id="message"), pytest.param("$flow", 1, id="flow")]
)
def test_dimensions(account: Account, dimension: str, index: int) -> None:
    """By message or flow, there is one row for each, an empty one for events without, and each can be filtered for."""
    counted: Counter[str] = Counter(
        account.timeline.message_and_flow(ref)[index] or "" for ref in events(account, "Received Email")
    )
    said = {
        tuple(row["dimensions"]): sum(row["measurements"]["count"])
        for row in ask(account, "Received Email", by=[dimension])["data"]
    }
    assert said == {(name,): count for name, count in counted.items()}
    name, count = counted.most_common(1)[0]
    (row,) = ask(account, "Received Email", filter=[*RANGE, f'equals({dimension},"{name}")'])["data"]
    assert sum(row["measurements"]["count"]) == count


def test_both_dimensions(account: Account) -> None:
    """Two dimensions give a row for each pair."""
    counted: dict[tuple[str, ...], int] = defaultdict(int)
    for ref in events(account, "Received Email"):
        counted[tuple(name or "" for name in account.timeline.message_and_flow(ref))] += 1
    rows = ask(account, "Received Email", by=["$message", "$flow"])["data"]
    assert {tuple(row["dimensions"]): sum(row["measurements"]["count"]) for row in rows} == counted


def test_nothing_happened(account: Account) -> None:
    """Without events there is one row of noughts, and with a dimension there is none."""
    empty = ["greater-or-equal(datetime,2020-01-01T00:00:00)", "less-than(datetime,2020-01-03T00:00:00)"]
    assert ask(account, "Placed Order", filter=empty)["data"] == [{"dimensions": [], "measurements": {"count": [0, 0]}}]
    assert ask(account, "Placed Order", filter=empty, by=["$flow"])["data"] == []


@pytest.mark.parametrize(("value", "adds"), [(12.5, 12.5), ("7", 7.0), ("x", 0.0), ("inf", 0.0), (None, 0.0)], ids=repr)
def test_added_events_count(fresh: Callable[[], Account], value: object, adds: float) -> None:
    """An event that is added later is counted, and its value summed."""
    account = fresh()
    number = account.metric("Made Up").number
    at = int(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp())
    account.timeline.add(AddedEvent(at, number, 3, b"{}", b'"a"', b"0", None, None, as_number(value)))
    (row,) = ask(account, "Made Up", interval="month", measurements=["count", "sum_value", "unique"])["data"]
    assert row["measurements"] == {"count": [0, 1], "sum_value": [0.0, adds], "unique": [0, 1]}


@pytest.mark.parametrize(
    ("asked", "status"),
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
def test_refused(account: Account, asked: dict[str, Any], status: int) -> None:
    """What Klaviyo would not answer is refused."""
    with pytest.raises(ApiError) as refused:
        ask(account, "Placed Order", **asked)
    assert refused.value.status == status
