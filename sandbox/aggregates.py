"""Counts, sums and uniques of a metric's events by time and one dimension, as POST metric-aggregates gives them."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sandbox.account import Account
from sandbox.errors import ApiError
from sandbox.filters import RANGE, Condition, Field, parse, span
from sandbox.ids import uuid
from sandbox.timeline import NOBODY, Window

_YEAR = 366 * 86_400
_MEASUREMENTS = ("count", "sum_value", "unique")
_DIMENSIONS = ("$message", "$flow")
_FILTERS = {"datetime": Field(RANGE, "time"), "$message": Field(("equals",)), "$flow": Field(("equals",))}


def _wrong(detail: str, name: str) -> ApiError:
    return ApiError(400, "invalid", detail, {"pointer": f"/data/attributes/{name}"})


def aggregate(account: Account, base: str, body: Any) -> dict[str, Any]:
    """The answer to one request body; ApiError for a body that Klaviyo would refuse."""
    try:
        asked = dict(body["data"]["attributes"])
        metric_id, measurements = asked["metric_id"], list(asked["measurements"])
        conditions = [found for text in asked["filter"] for found in parse(text, _FILTERS)]
    except (KeyError, TypeError, ValueError):
        raise _wrong("metric_id, measurements and filter are required.", "") from None
    if metric_id not in account.metrics:
        raise ApiError(404, "not_found", f"A metric with id {metric_id} does not exist.")
    if not measurements or not all(name in _MEASUREMENTS for name in measurements):
        raise _wrong(f"Measurements must be among {', '.join(_MEASUREMENTS)}.", "measurements")
    if asked.get("sort"):
        raise _wrong("Sorting is not available.", "sort")
    by = list(asked.get("by") or [])
    if not all(name in _DIMENSIONS for name in by):
        raise _wrong(f"This account groups by {' and '.join(_DIMENSIONS)} only.", "by")
    since, until = span(conditions, "datetime")
    if not 0 < until - since <= _YEAR:
        raise _wrong("The range of dates must be bounded, and at most a year.", "filter")
    zone = _zone(asked.get("timezone") or "UTC")
    edges, dates = _steps(since, until, asked.get("interval") or "day", zone)
    window = Window(account.metric_ids.index(metric_id), since, until)
    return {
        "data": {
            "type": "metric-aggregate",
            "id": uuid(metric_id, since, until),
            "attributes": {
                "dates": dates,
                "data": _rows(account, window, edges, zone, conditions, by, measurements),
            },
            "links": {"self": f"{base}/api/metric-aggregates/"},
        },
        "links": {"self": f"{base}/api/metric-aggregates/", "next": None, "prev": None},
    }


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise _wrong(f"Unknown timezone {name}.", "timezone") from None


@lru_cache(maxsize=64)
def _steps(since: int, until: int, interval: str, zone: ZoneInfo) -> tuple[list[int], list[str]]:
    """Where the steps of time begin, as unix seconds and as text. Kept: a reader asks the same of each metric."""
    if interval not in _STARTS:
        raise _wrong(f"Interval must be among {', '.join(_STARTS)}.", "interval")
    start, following = _STARTS[interval]
    at, edges = start(datetime.fromtimestamp(since, zone)), []
    while at.timestamp() < until:
        edges.append(int(at.timestamp()))
        at = following(at)
    return edges, [datetime.fromtimestamp(edge, UTC).isoformat() for edge in edges]


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


_STARTS: dict[str, tuple[Callable[[datetime], datetime], Callable[[datetime], datetime]]] = {
    "hour": (
        lambda at: at.replace(minute=0, second=0),
        lambda at: (at.astimezone(UTC) + timedelta(hours=1)).astimezone(at.tzinfo),
    ),
    "day": (_midnight, lambda at: at + timedelta(days=1)),
    "week": (lambda at: _midnight(at - timedelta(days=at.weekday())), lambda at: at + timedelta(weeks=1)),
    "month": (
        lambda at: _midnight(at.replace(day=1)),
        lambda at: (at.replace(day=1) + timedelta(days=32)).replace(day=1),
    ),
}


def _rows(
    account: Account,
    window: Window,
    edges: list[int],
    zone: ZoneInfo,
    conditions: list[Condition],
    by: list[str],
    measurements: list[str],
) -> list[dict[str, Any]]:
    timeline = account.timeline
    wanted = {condition.field: condition.value for condition in conditions if condition.operator == "equals"}
    counts: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(edges))
    sums: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0] * len(edges))
    people: dict[tuple[str, ...], list[set[int]]] = defaultdict(lambda: [set() for _ in edges])
    for ref in _refs(account, window):
        message, flow = timeline.message_and_flow(ref) if by or wanted else (None, None)
        said = {"$message": message or "", "$flow": flow or ""}
        if any(said[name] != value for name, value in wanted.items()):
            continue
        row, slot = tuple(said[name] for name in by), bisect_right(edges, timeline.time(ref)) - 1
        counts[row][slot] += 1
        if "sum_value" in measurements:
            sums[row][slot] += timeline.value(ref)
        if "unique" in measurements and timeline.person(ref) != NOBODY:
            people[row][slot].add(timeline.person(ref))
    if not any(wanted.values()):
        for slot, add in lies(account, window, edges, zone):
            told = counts[("",) * len(by)]
            told[slot] = max(0, told[slot] + add)
    if not by:
        counts[()]  # without a dimension there is one row, even for no event
    return [
        {
            "dimensions": list(row),
            "measurements": {
                name: {
                    "count": counts[row],
                    "sum_value": sums[row],
                    "unique": [len(found) for found in people[row]],
                }[name]
                for name in measurements
            },
        }
        for row in sorted(counts)
    ]


def lies(account: Account, window: Window, edges: list[int], zone: tzinfo) -> Iterator[tuple[int, int]]:
    """By how much the count of which step of time is to be wrong; a lie about a day is told of its first second."""
    for day, add in account.lies[window.metric].items() if window.metric in account.lies else ():
        at = datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
        if add and window.since <= at < window.until:
            yield bisect_right(edges, at) - 1, add


def _refs(account: Account, window: Window) -> Iterator[int]:
    yield from account.timeline.read(window, account.timeline.count(window))
