"""The numbers of v1/metric/{id}/export equal those of the events."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest


def events(server: Any, name: str, days: int = 31) -> tuple[str, list[dict[str, Any]], dict[str, str]]:
    """Return the path of a metric's export, its events in the last `days` days, and the dates of that span."""
    path = f"v1/metric/{server.account.metric(name).id}"
    end = server.account.options.until
    start = end - timedelta(days=days)
    within = [
        event
        for event in server.timeline(f"{path}/timeline", str(int(start.timestamp()) - 1))
        if event["timestamp"] < end.timestamp()
    ]
    assert len(within) > 5
    return f"{path}/export", within, {"start_date": f"{start:%Y-%m-%d}", "end_date": f"{end:%Y-%m-%d}"}


def numbers(answer: dict[str, Any], segment: str = "Everyone") -> dict[str, float]:
    """Return the number of each date of a segment."""
    (result,) = (result for result in answer["results"] if result["segment"] == segment)
    assert all(len(row["values"]) == 1 for row in result["data"])
    return {row["date"][:10]: row["values"][0] for row in result["data"]}


def day(event: dict[str, Any]) -> str:
    return str(event["datetime"][:10])


def week(event: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(event["timestamp"], UTC)
    return f"{at - timedelta(days=at.weekday()):%Y-%m-%d}"


def month(event: dict[str, Any]) -> str:
    return f"{event['datetime'][:7]}-01"


@pytest.mark.parametrize(("unit", "start"), [("day", day), ("week", week), ("month", month)])
@pytest.mark.parametrize("name", ["Received Email", "Placed Order"])
def test_counts_equal_the_events_of_each_interval(shared: Any, name: str, unit: str, start: Any) -> None:
    """The first interval starts at the start of the span."""
    path, within, span = events(shared, name)
    counts = numbers(shared.get(path, **span, unit=unit))
    expected = Counter(max(start(event), span["start_date"]) for event in within)
    assert {date: count for date, count in counts.items() if count} == expected
    assert list(counts) == sorted(counts)
    if unit == "day":
        assert len(counts) == 31


def test_adjacent_spans_count_every_event_once(shared: Any) -> None:
    """The end date is exclusive."""
    path, within, _ = events(shared, "Active on Site")
    until, total = shared.account.options.until, 0.0
    for back in range(31):
        start, end = (f"{until - timedelta(days=number):%Y-%m-%d}" for number in (back + 1, back))
        total += sum(numbers(shared.get(path, start_date=start, end_date=end)).values())
    assert total == len(within)


def test_dates_can_be_unix_seconds(shared: Any) -> None:
    path, within, _ = events(shared, "Opened Email")
    start, end = within[3]["timestamp"], within[-3]["timestamp"]
    counts = numbers(shared.get(path, start_date=start, end_date=end))
    assert sum(counts.values()) == sum(start <= event["timestamp"] < end for event in within)


def test_unique_counts_the_persons_of_each_interval(shared: Any) -> None:
    """Events without a person are not counted."""
    path, within, span = events(shared, "Active on Site")
    persons = defaultdict(set)
    for event in within:
        persons[week(event)].add(event["person"] and event["person"]["id"])
    counts = numbers(shared.get(path, **span, measurement="unique", unit="week"))
    expected = [len(ids - {None}) for _, ids in sorted(persons.items())]
    assert list(counts.values()) == expected
    assert sum(expected) < len(within)


@pytest.mark.parametrize(("name", "measurement", "field"), [
    ("Placed Order", "value", "$value"),
    ("Placed Order", '["sum", "$value"]', "$value"),
    ("Viewed Product", '["sum", "Price"]', "Price"),
])  # fmt: skip
def test_value_and_sum_add_up_a_property(shared: Any, name: str, measurement: str, field: str) -> None:
    path, within, span = events(shared, name)
    sums = numbers(shared.get(path, **span, measurement=measurement))
    assert sum(sums.values()) == pytest.approx(sum(event["event_properties"][field] for event in within))


@pytest.mark.parametrize("by", ["$message", "Inbox Provider", "$flow"])
def test_segments_are_the_values_of_a_property(shared: Any, by: str) -> None:
    """The segment with the most events comes first. Events without the property are in the segment ""."""
    path, within, span = events(shared, "Received Email")
    expected = Counter(event["event_properties"].get(by, "") for event in within)
    answer = shared.get(path, **span, by=by, count=1000)
    assert {
        result["segment"]: sum(numbers(answer, result["segment"]).values()) for result in answer["results"]
    } == expected
    totals = [expected[result["segment"]] for result in answer["results"]]
    assert totals == sorted(totals, reverse=True)
    fewer = shared.get(path, **span, by=by, count=2)
    assert fewer["results"] == answer["results"][:2]
    assert len(shared.get(path, **span, by=by)["results"]) == min(25, len(expected))


@pytest.mark.parametrize(("field", "property_name"), [("$flow", "$flow"), ("$attributed_flow", "$flow")])
def test_where_selects_the_events_that_meet_the_condition(shared: Any, field: str, property_name: str) -> None:
    path, within, span = events(shared, "Received Email")
    value = next(event["event_properties"]["$flow"] for event in within if "$flow" in event["event_properties"])
    answer = shared.get(path, **span, where=f'[["{field}", "=", "{value}"]]')
    expected = [event for event in within if event["event_properties"].get(property_name) == value]
    assert 0 < sum(numbers(answer).values()) == len(expected) < len(within)
    assert answer["where"] == [[field, "=", value]]


def test_the_answer_repeats_the_request(shared: Any) -> None:
    """Without dates, the span is the last 31 days including today."""
    metric = shared.account.metric("Placed Order")
    answer = shared.get(f"v1/metric/{metric.id}/export")
    (row,) = (row for row in shared.pages("v1/metrics") if row["id"] == metric.id)
    assert answer["metric"] == row
    assert (answer["unit"], answer["measurement"], answer["by"], answer["where"]) == ("day", "count", None, None)
    end = datetime.fromtimestamp(shared.state.now(), UTC).date() + timedelta(days=1)
    assert answer["end_date"] == f"{end} 00:00:00"
    assert answer["start_date"] == f"{end - timedelta(days=31)} 00:00:00"
    assert answer["results"][0]["data"][0]["date"] == answer["start_date"]


def test_a_metric_without_events_counts_zero(own: Any) -> None:
    metric = own.account.metric("New")
    counts = numbers(own.get(f"v1/metric/{metric.id}/export", start_date="2026-11-01", end_date="2026-11-04"))
    assert counts == {"2026-11-01": 0, "2026-11-02": 0, "2026-11-03": 0}


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        pytest.param({"start_date": "2026-10-01", "end_date": "2026-11-01"}, 200, id="31 days"),
        pytest.param({"start_date": "2026-10-01", "end_date": "2026-11-02"}, 400, id="32 days"),
        pytest.param({"start_date": "2026-11-01"}, 400, id="start only"),
        pytest.param({"end_date": "2026-11-01"}, 400, id="end only"),
        pytest.param({"start_date": "2026-11-02", "end_date": "2026-11-01"}, 400, id="backwards"),
        pytest.param({"start_date": "2026-11-01", "end_date": "2026-11-01"}, 400, id="empty span"),
        pytest.param({"start_date": "November", "end_date": "December"}, 400, id="invalid dates"),
        pytest.param({"unit": "hour"}, 400, id="unknown unit"),
        pytest.param({"measurement": "sum"}, 400, id="unknown measurement"),
        pytest.param({"measurement": '["sum"]'}, 400, id="sum without property"),
        pytest.param({"where": '[["$flow", ">", "A"]]'}, 400, id="other operator"),
        pytest.param({"where": '[["$flow", "=", "A"], ["$flow", "=", "B"]]'}, 400, id="two conditions"),
        pytest.param({"where": "flow"}, 400, id="where is not JSON"),
        pytest.param({"where": '[["$flow", "=", "A"]]', "by": "$flow"}, 400, id="where and by"),
        pytest.param({"count": "1001"}, 400, id="too many segments"),
    ],
)
def test_invalid_parameters_are_refused(shared: Any, parameters: dict[str, str], status: int) -> None:
    """The dates must be a pair at most 31 days apart, and all other parameters must be valid."""
    assert shared.status(f"v1/metric/{shared.account.metric('Placed Order').id}/export", **parameters) == status


def test_an_unknown_metric_is_not_found(shared: Any) -> None:
    assert shared.status("v1/metric/NOPE00/export") == 404
