"""The export of v1: counts, uniques and sums of a metric's events by time interval and property."""

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from starlette.requests import Request

from sandbox.account import Account
from sandbox.account.properties import as_number
from sandbox.account.timeline import NOBODY, Timeline, Window
from sandbox.api.endpoint import Context
from sandbox.encoding import dump
from sandbox.legacy import rows
from sandbox.legacy.dialect import Parameters, invalid, not_found, query

_MAX_SPAN = timedelta(days=31)
_EVERYONE = "Everyone"
_SEGMENTS, _MAX_SEGMENTS = 25, 1000
_ALIASES = {"$attributed_flow": "$flow", "$attributed_message": "$message"}
Refs = list[int]


class _Request(NamedTuple):
    """A validated request: the half-open span in UTC, and the measurement."""

    start: datetime
    end: datetime
    unit: str
    measurement: str | list[str]
    where: tuple[str, str] | None
    by: str | None
    max_segments: int

    def window(self, metric: int) -> Window:
        return Window(metric, int(self.start.timestamp()), int(self.end.timestamp()))


class Export:
    """The endpoint v1/metric/{id}/export."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def answer(self, context: Context, request: Request) -> bytes:
        metric = self._account.metrics.get(request.path_params["id"])
        if metric is None:
            raise not_found("metric", request.path_params["id"])
        export = _read(query(request), context.now())
        return dump(
            {
                "metric": rows.metric(metric),
                "start_date": rows.naive_time(export.start),
                "end_date": rows.naive_time(export.end),
                "unit": export.unit,
                "measurement": export.measurement,
                "by": export.by,
                "where": export.where and [[export.where[0], "=", export.where[1]]],
                "results": self._results(metric.number, export),
            }
        )

    def _results(self, metric: int, export: _Request) -> list[dict[str, Any]]:
        dates = _interval_starts(export)
        starts = [int(date.timestamp()) for date in dates]
        segments = self._segments(metric, export, starts)
        errors = self._count_errors(metric, export, starts)
        largest = sorted(segments, key=lambda name: (-sum(map(len, segments[name])), name))[: export.max_segments]
        measure = self._measure(export.measurement)
        return [
            {
                "segment": name,
                "data": [
                    {"date": rows.naive_time(date), "values": [_falsified(measure(refs), errors[name, interval])]}
                    for interval, (date, refs) in enumerate(zip(dates, segments[name], strict=True))
                ],
            }
            for name in largest
        ]

    def _count_errors(self, metric: int, export: _Request, starts: list[int]) -> Counter[tuple[str, int]]:
        """Return the amounts of false counts. They affect everyone, or the events without the property."""
        errors = Counter[tuple[str, int]]()
        if export.measurement == "count" and export.where is None:
            for interval, add in self._account.count_errors(export.window(metric), starts, UTC):
                errors[_EVERYONE if export.by is None else "", interval] += add
        return errors

    def _segments(self, metric: int, export: _Request, starts: list[int]) -> dict[str, list[Refs]]:
        """Return the events of each segment by interval. Events without the property are in the segment ""."""
        timeline, window = self._account.timeline, export.window(metric)
        segments: dict[str, list[Refs]] = defaultdict(lambda: [[] for _ in starts])
        if export.by is None:
            segments[_EVERYONE]  # exists even without events
        for ref in timeline.read(window, timeline.count(window)):
            properties = _properties(timeline, ref) if export.by or export.where else {}
            if export.where is None or _value(properties, export.where[0]) == export.where[1]:
                name = _EVERYONE if export.by is None else _value(properties, export.by)
                segments[name][bisect_right(starts, timeline.time(ref)) - 1].append(ref)
        return segments

    def _measure(self, measurement: str | list[str]) -> Callable[[Refs], float]:
        timeline = self._account.timeline
        if measurement == "count":
            return len
        if measurement == "unique":
            return lambda refs: len({timeline.person(ref) for ref in refs} - {NOBODY})
        if measurement == "value":
            return lambda refs: sum(map(timeline.value, refs))
        name = measurement[1]
        return lambda refs: sum(as_number(_properties(timeline, ref).get(name)) for ref in refs)


def _falsified(count: float, add: int) -> float:
    return max(0, count + add) if add else count


def _properties(timeline: Timeline, ref: int) -> dict[str, Any]:
    """Return the event's properties, or none if a test has replaced them by something else."""
    try:
        properties = json.loads(timeline.properties(ref))
    except (ValueError, RecursionError):
        return {}
    return properties if isinstance(properties, dict) else {}


def _value(properties: dict[str, Any], name: str) -> str:
    value = properties.get(_ALIASES.get(name, name))
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _read(parameters: Parameters, now: float) -> _Request:
    start, end = _span(parameters.text("start_date"), parameters.text("end_date"), now)
    where, by = _where(parameters.text("where")), parameters.text("by")
    if where and by:
        raise invalid("where and by exclude each other.")
    return _Request(
        start,
        end,
        parameters.choice("unit", tuple(_FOLLOWING_START), "day"),
        _measurement(parameters.text("measurement") or "count"),
        where,
        by,
        parameters.number("count", _SEGMENTS, 1, _MAX_SEGMENTS),
    )


def _span(start: str | None, end: str | None, now: float) -> tuple[datetime, datetime]:
    """Return the requested span. Without dates, return the last 31 days including today."""
    if (start is None) != (end is None):
        raise invalid("start_date and end_date must be sent together.")
    if start is None or end is None:
        tomorrow = _midnight(datetime.fromtimestamp(now, UTC)) + timedelta(days=1)
        return tomorrow - _MAX_SPAN, tomorrow
    span = _date(start), _date(end)
    if not timedelta(0) < span[1] - span[0] <= _MAX_SPAN:
        raise invalid(f"end_date must be later than start_date, by at most {_MAX_SPAN.days} days.")
    return span


def _date(text: str) -> datetime:
    try:
        if text.isdecimal() and len(text) == 10:
            return datetime.fromtimestamp(int(text), UTC)
        date = datetime.fromisoformat(text)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except ValueError:
        raise invalid(f"{text} is not a date.") from None


def _measurement(text: str) -> str | list[str]:
    if text in ("count", "unique", "value"):
        return text
    match _json(text):
        case ["sum", str(name)]:
            return ["sum", name]
    raise invalid('measurement must be count, unique, value, or ["sum", "a property"].')


def _where(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    match _json(text):
        case [[str(name), "=", str(value)]]:
            return name, value
    raise invalid('where must be one condition, as in [["$attributed_flow", "=", "an id"]].')


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


_FOLLOWING_START: dict[str, Callable[[datetime], datetime]] = {
    "day": lambda at: _midnight(at) + timedelta(days=1),
    "week": lambda at: _midnight(at) + timedelta(days=7 - at.weekday()),
    "month": lambda at: (_midnight(at.replace(day=1)) + timedelta(days=32)).replace(day=1),
}


def _interval_starts(export: _Request) -> list[datetime]:
    """Return the start of each interval: the start of the span, then the following midnights in UTC."""
    starts = [export.start]
    while (following := _FOLLOWING_START[export.unit](starts[-1])) < export.end:
        starts.append(following)
    return starts
