"""Metric aggregates: counts, sums and uniques of a metric's events by time interval and dimension."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sandbox.account import Account
from sandbox.account.ids import uuid
from sandbox.account.timeline import NOBODY, Window
from sandbox.api.errors import ApiError
from sandbox.current.filters import RANGE, Field, parse, span

_YEAR = 366 * 86_400
_MEASUREMENTS = ("count", "sum_value", "unique")
_DIMENSIONS = ("$message", "$flow")
_FILTERS = {"datetime": Field(RANGE, "time"), "$message": Field(("equals",)), "$flow": Field(("equals",))}
Key = tuple[str, ...]  # the value of each dimension


class _Request(NamedTuple):
    """A validated request. `starts` are the seconds at which its intervals start, `dates` the same as text."""

    window: Window
    starts: Sequence[int]
    dates: Sequence[str]
    zone: ZoneInfo
    equals: Mapping[str, str]
    by: Sequence[str]
    measurements: Sequence[str]

    @property
    def only_counts(self) -> bool:
        return not self.by and not self.equals and set(self.measurements) == {"count"}


def aggregate(account: Account, base: str, body: Any) -> dict[str, Any]:
    """Return the answer to a request body. Raise ApiError for a body that Klaviyo would reject."""
    request, metric_id = _read(account, body)
    window = request.window
    return {
        "data": {
            "type": "metric-aggregate",
            "id": uuid(metric_id, window.since, window.until),
            "attributes": {
                "dates": request.dates,
                "data": _Aggregation(account, request).rows(),
            },
            "links": {"self": f"{base}/api/metric-aggregates/"},
        },
        "links": {"self": f"{base}/api/metric-aggregates/", "next": None, "prev": None},
    }


def _read(account: Account, body: Any) -> tuple[_Request, str]:
    try:
        attributes = dict(body["data"]["attributes"])
        metric_id, measurements = attributes["metric_id"], list(attributes["measurements"])
        conditions = [condition for text in attributes["filter"] for condition in parse(text, _FILTERS)]
    except (KeyError, TypeError, ValueError):
        raise _invalid("metric_id, measurements and filter are required.", "") from None
    if metric_id not in account.metrics:
        raise ApiError(404, "not_found", f"A metric with id {metric_id} does not exist.")
    if not measurements or not all(name in _MEASUREMENTS for name in measurements):
        raise _invalid(f"Measurements must be among {', '.join(_MEASUREMENTS)}.", "measurements")
    if attributes.get("sort"):
        raise _invalid("Sorting is not available.", "sort")
    by = list(attributes.get("by") or [])
    if not all(name in _DIMENSIONS for name in by):
        raise _invalid(f"This account groups by {' and '.join(_DIMENSIONS)} only.", "by")
    since, until = span(conditions, "datetime")
    if not 0 < until - since <= _YEAR:
        raise _invalid("The range of dates must be bounded, and at most a year.", "filter")
    zone = _zone(attributes.get("timezone") or "UTC")
    starts, dates = _intervals(since, until, attributes.get("interval") or "day", zone)
    window = Window(account.metric_ids.index(metric_id), since, until)
    equals = {condition.field: condition.value for condition in conditions if condition.operator == "equals"}
    return _Request(window, starts, dates, zone, equals, by, measurements), metric_id


def _invalid(detail: str, name: str) -> ApiError:
    return ApiError(400, "invalid", detail, {"pointer": f"/data/attributes/{name}"})


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise _invalid(f"Unknown timezone {name}.", "timezone") from None


@lru_cache(maxsize=64)  # readers request the same intervals for every metric
def _intervals(since: int, until: int, interval: str, zone: ZoneInfo) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if interval not in _INTERVALS:
        raise _invalid(f"Interval must be among {', '.join(_INTERVALS)}.", "interval")
    floor, following = _INTERVALS[interval]
    at, starts = floor(datetime.fromtimestamp(since, zone)), []
    while at.timestamp() < until:
        starts.append(int(at.timestamp()))
        at = following(at)
    return tuple(starts), tuple(datetime.fromtimestamp(start, UTC).isoformat() for start in starts)


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


_INTERVALS: dict[str, tuple[Callable[[datetime], datetime], Callable[[datetime], datetime]]] = {
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


class _Aggregation:
    """The measurements of a request, by dimension values and interval."""

    def __init__(self, account: Account, request: _Request) -> None:
        self._timeline, self._request = account.timeline, request
        size = len(request.starts)
        self._counts: dict[Key, list[int]] = defaultdict(lambda: [0] * size)
        self._sums: dict[Key, list[float]] = defaultdict(lambda: [0.0] * size)
        self._people: dict[Key, list[set[int]]] = defaultdict(lambda: [set() for _ in range(size)])
        if request.only_counts and self._timeline.count(request.window) > size:
            self._counts[()] = list(self._counts_of_intervals())
        else:
            for ref in self._timeline.read(request.window, self._timeline.count(request.window)):
                self._add(ref)
        if not any(request.equals.values()):
            self._falsify(account)
        if not request.by:
            self._counts[()]  # without dimensions there is one row even if there are no events

    def _counts_of_intervals(self) -> Iterator[int]:
        """Yield the counts without reading the events."""
        window, starts = self._request.window, self._request.starts
        for start, end in zip(starts, [*starts[1:], window.until], strict=True):
            yield self._timeline.count(Window(window.metric, max(start, window.since), min(end, window.until)))

    def _add(self, ref: int) -> None:
        request, timeline = self._request, self._timeline
        message, flow = timeline.message_and_flow(ref) if request.by or request.equals else (None, None)
        values = {"$message": message or "", "$flow": flow or ""}
        if any(values[name] != value for name, value in request.equals.items()):
            return
        key = tuple(values[name] for name in request.by)
        interval = bisect_right(request.starts, timeline.time(ref)) - 1
        self._counts[key][interval] += 1
        if "sum_value" in request.measurements:
            self._sums[key][interval] += timeline.value(ref)
        if "unique" in request.measurements and timeline.person(ref) != NOBODY:
            self._people[key][interval].add(timeline.person(ref))

    def _falsify(self, account: Account) -> None:
        request = self._request
        for interval, add in account.count_errors(request.window, request.starts, request.zone):
            counts = self._counts[("",) * len(request.by)]
            counts[interval] = max(0, counts[interval] + add)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each combination of dimension values."""
        return [{"dimensions": list(key), "measurements": self._measurements(key)} for key in sorted(self._counts)]

    def _measurements(self, key: Key) -> dict[str, list[Any]]:
        measurements: dict[str, list[Any]] = {
            "count": self._counts[key],
            "sum_value": self._sums[key],
            "unique": [len(people) for people in self._people[key]],
        }
        return {name: measurements[name] for name in self._request.measurements}
