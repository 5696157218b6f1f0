"""v1/metric/{id}/export: its numbers are those of the events."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest


def events(asked: Any, name: str, days: int = 31) -> tuple[str, list[dict[str, Any]], dict[str, str]]:
    """The path of a metric's export, its events within so many days, and the dates that bound these."""
    path = f"v1/metric/{asked.box.account.metric(name).id}"
    end = asked.box.account.options.until
    start = end - timedelta(days=days)
    found = [
        event
        for event in asked.walk(f"{path}/timeline", str(int(start.timestamp()) - 1))
        if event["timestamp"] < end.timestamp()
    ]
    assert len(found) > 5
    return f"{path}/export", found, {"start_date": f"{start:%Y-%m-%d}", "end_date": f"{end:%Y-%m-%d}"}


def numbers(answer: dict[str, Any], segment: str = "Everyone") -> dict[str, float]:
    """The number of each date of a segment."""
    (found,) = (result for result in answer["results"] if result["segment"] == segment)
    assert all(len(row["values"]) == 1 for row in found["data"])
    return {row["date"][:10]: row["values"][0] for row in found["data"]}


def day(event: dict[str, Any]) -> str:
    return str(event["datetime"][:10])


def week(event: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(event["timestamp"], UTC)
    return f"{at - timedelta(days=at.weekday()):%Y-%m-%d}"


def month(event: dict[str, Any]) -> str:
    return f"{event['datetime'][:7]}-01"


@pytest.mark.parametrize(("unit", "step"), [("day", day), ("week", week), ("month", month)])
@pytest.mark.parametrize("name", ["Received Email", "Placed Order"])
def test_counts(shared: Any, name: str, unit: str, step: Any) -> None:
    """Each step counts its events; the first starts where the span does."""
    path, found, span = events(shared, name)
    counted = numbers(shared.get(path, **span, unit=unit))
    wanted = Counter(max(step(event), span["start_date"]) for event in found)
    assert {date: count for date, count in counted.items() if count} == wanted
    assert list(counted) == sorted(counted)
    if unit == "day":
        assert len(counted) == 31


def test_days_add_up(shared: Any) -> None:
    """Spans side by side count every event once: the end of a span is not within it."""
    path, found, _ = events(shared, "Active on Site")
    until, total = shared.box.account.options.until, 0.0
    for back in range(31):
        start, end = (f"{until - timedelta(days=number):%Y-%m-%d}" for number in (back + 1, back))
        total += sum(numbers(shared.get(path, start_date=start, end_date=end)).values())
    assert total == len(found)


def test_unix_seconds_as_dates(shared: Any) -> None:
    """A span may be given in unix seconds."""
    path, found, _ = events(shared, "Opened Email")
    start, end = found[3]["timestamp"], found[-3]["timestamp"]
    counted = numbers(shared.get(path, start_date=start, end_date=end))
    assert sum(counted.values()) == sum(start <= event["timestamp"] < end for event in found)


def test_uniques(shared: Any) -> None:
    """Unique counts the persons of each step, and nobody is no person."""
    path, found, span = events(shared, "Active on Site")
    persons = defaultdict(set)
    for event in found:
        persons[week(event)].add(event["person"] and event["person"]["id"])
    counted = numbers(shared.get(path, **span, measurement="unique", unit="week"))
    wanted = [len(known - {None}) for _, known in sorted(persons.items())]
    assert list(counted.values()) == wanted
    assert sum(wanted) < len(found)


@pytest.mark.parametrize(("name", "measurement", "field"), [
    ("Placed Order", "value", "$value"),
    ("Placed Order", '["sum", "$value"]', "$value"),
    ("Viewed Product", '["sum", "Price"]', "Price"),
])  # fmt: skip
def test_sums(shared: Any, name: str, measurement: str, field: str) -> None:
    """Value sums $value, and sum any property."""
    path, found, span = events(shared, name)
    counted = numbers(shared.get(path, **span, measurement=measurement))
    assert sum(counted.values()) == pytest.approx(sum(event["event_properties"][field] for event in found))


@pytest.mark.parametrize("by", ["$message", "Inbox Provider", "$flow"])
def test_by_property(shared: Any, by: str) -> None:
    """Segments are the values of a property, most events first, with "" for events that do not have it."""
    path, found, span = events(shared, "Received Email")
    wanted = Counter(event["event_properties"].get(by, "") for event in found)
    answer = shared.get(path, **span, by=by, count=1000)
    assert {
        result["segment"]: sum(numbers(answer, result["segment"]).values()) for result in answer["results"]
    } == wanted
    totals = [wanted[result["segment"]] for result in answer["results"]]
    assert totals == sorted(totals, reverse=True)
    fewer = shared.get(path, **span, by=by, count=2)
    assert fewer["results"] == answer["results"][:2]
    assert len(shared.get(path, **span, by=by)["results"]) == min(25, len(wanted))


@pytest.mark.parametrize(("field", "property_name"), [("$flow", "$flow"), ("$attributed_flow", "$flow")])
def test_where(shared: Any, field: str, property_name: str) -> None:
    """One condition leaves only the events that meet it."""
    path, found, span = events(shared, "Received Email")
    value = next(event["event_properties"]["$flow"] for event in found if "$flow" in event["event_properties"])
    answer = shared.get(path, **span, where=f'[["{field}", "=", "{value}"]]')
    wanted = [event for event in found if event["event_properties"].get(property_name) == value]
    assert 0 < sum(numbers(answer).values()) == len(wanted) < len(found)
    assert answer["where"] == [[field, "=", value]]


def test_shape(shared: Any) -> None:
    """The answer repeats what was asked for; without dates it tells of the 31 days up to the end of today."""
    metric = shared.box.account.metric("Placed Order")
    answer = shared.get(f"v1/metric/{metric.id}/export")
    (row,) = (row for row in shared.pages("v1/metrics") if row["id"] == metric.id)
    assert answer["metric"] == row
    assert (answer["unit"], answer["measurement"], answer["by"], answer["where"]) == ("day", "count", None, None)
    end = datetime.fromtimestamp(shared.box.now(), UTC).date() + timedelta(days=1)
    assert answer["end_date"] == f"{end} 00:00:00"
    assert answer["start_date"] == f"{end - timedelta(days=31)} 00:00:00"
    assert answer["results"][0]["data"][0]["date"] == answer["start_date"]


def test_no_events(own: Any) -> None:
    """A metric without events counts nothing on every day."""
    metric = own.box.account.metric("New")
    counted = numbers(own.get(f"v1/metric/{metric.id}/export", start_date="2026-11-01", end_date="2026-11-04"))
    assert counted == {"2026-11-01": 0, "2026-11-02": 0, "2026-11-03": 0}


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        pytest.param({"start_date": "2026-10-01", "end_date": "2026-11-01"}, 200, id="31 days"),
        pytest.param({"start_date": "2026-10-01", "end_date": "2026-11-02"}, 400, id="32 days"),
        pytest.param({"start_date": "2026-11-01"}, 400, id="start only"),
        pytest.param({"end_date": "2026-11-01"}, 400, id="end only"),
        pytest.param({"start_date": "2026-11-02", "end_date": "2026-11-01"}, 400, id="backwards"),
        pytest.param({"start_date": "2026-11-01", "end_date": "2026-11-01"}, 400, id="nothing between"),
        pytest.param({"start_date": "November", "end_date": "December"}, 400, id="no dates"),
        pytest.param({"unit": "hour"}, 400, id="unknown unit"),
        pytest.param({"measurement": "sum"}, 400, id="unknown measurement"),
        pytest.param({"measurement": '["sum"]'}, 400, id="sum of nothing"),
        pytest.param({"where": '[["$flow", ">", "A"]]'}, 400, id="other operator"),
        pytest.param({"where": '[["$flow", "=", "A"], ["$flow", "=", "B"]]'}, 400, id="two conditions"),
        pytest.param({"where": "flow"}, 400, id="where is no JSON"),
        pytest.param({"where": '[["$flow", "=", "A"]]', "by": "$flow"}, 400, id="where and by"),
        pytest.param({"count": "1001"}, 400, id="too many segments"),
    ],
)
def test_limits_of_what_can_be_asked(shared: Any, parameters: dict[str, str], status: int) -> None:
    """Dates come in pairs and at most 31 days apart; words and conditions are the known ones."""
    assert shared.status(f"v1/metric/{shared.box.account.metric('Placed Order').id}/export", **parameters) == status


def test_unknown_metric(shared: Any) -> None:
    """There is no export of a metric that does not exist."""
    assert shared.status("v1/metric/NOPE00/export") == 404
