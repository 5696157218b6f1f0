"""Counts, uniques and sums of a metric's events by time and one property, as v1/metric/{id}/export gives them."""

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from starlette.requests import Request

from sandbox import legacy_rows
from sandbox.account import Account
from sandbox.aggregates import lies
from sandbox.content import dump
from sandbox.legacy_dialect import Parameters, invalid, not_found, query
from sandbox.properties import as_number
from sandbox.server import Box
from sandbox.timeline import NOBODY, Timeline, Window

_MOST = timedelta(days=31)
_EVERYONE = "Everyone"
_SEGMENTS, _MOST_SEGMENTS = 25, 1000
_ALIASES = {"$attributed_flow": "$flow", "$attributed_message": "$message"}


class _Asked(NamedTuple):
    """One export: the half-open span in UTC, and what is measured how."""

    start: datetime
    end: datetime
    unit: str
    measurement: str | list[str]
    where: tuple[str, str] | None
    by: str | None
    most: int


class LegacyExport:
    """The answers."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def answer(self, box: Box, request: Request) -> bytes:
        metric = self._account.metrics.get(request.path_params["id"])
        if metric is None:
            raise not_found("metric", request.path_params["id"])
        asked = _read(query(request), box.now())
        return dump(
            {
                "metric": legacy_rows.metric(metric),
                "start_date": legacy_rows.naive(asked.start),
                "end_date": legacy_rows.naive(asked.end),
                "unit": asked.unit,
                "measurement": asked.measurement,
                "by": asked.by,
                "where": asked.where and [[asked.where[0], "=", asked.where[1]]],
                "results": self._results(metric.number, asked),
            }
        )

    def _results(self, metric: int, asked: _Asked) -> list[dict[str, Any]]:
        edges = _edges(asked)
        starts = [int(edge.timestamp()) for edge in edges]
        segments = self._segments(metric, asked, starts)
        wrong_by = self._lies(metric, asked, starts)
        chosen = sorted(segments, key=lambda name: (-sum(map(len, segments[name])), name))[: asked.most]
        measure = self._measure(asked.measurement)
        return [
            {
                "segment": name,
                "data": [
                    {"date": legacy_rows.naive(edge), "values": [_wrong(measure(refs), wrong_by[name, step])]}
                    for step, (edge, refs) in enumerate(zip(edges, segments[name], strict=True))
                ],
            }
            for name in chosen
        ]

    def _lies(self, metric: int, asked: _Asked, starts: list[int]) -> Counter[tuple[str, int]]:
        """By how much counts are to be wrong: those of everyone, or of the events without the property."""
        told = Counter[tuple[str, int]]()
        if asked.measurement == "count" and asked.where is None:
            window = Window(metric, int(asked.start.timestamp()), int(asked.end.timestamp()))
            for step, add in lies(self._account, window, starts, UTC):
                told[_EVERYONE if asked.by is None else "", step] += add
        return told

    def _segments(self, metric: int, asked: _Asked, starts: list[int]) -> dict[str, list[list[int]]]:
        """The events of each segment and each step of time. Events without the property are the segment ""."""
        timeline = self._account.timeline
        window = Window(metric, int(asked.start.timestamp()), int(asked.end.timestamp()))
        segments: dict[str, list[list[int]]] = defaultdict(lambda: [[] for _ in starts])
        if asked.by is None:
            segments[_EVERYONE]  # is there even if nothing happened
        for ref in timeline.read(window, timeline.count(window)):
            said = _properties(timeline, ref) if asked.by or asked.where else {}
            if asked.where is None or _said(said, asked.where[0]) == asked.where[1]:
                name = _EVERYONE if asked.by is None else _said(said, asked.by)
                segments[name][bisect_right(starts, timeline.time(ref)) - 1].append(ref)
        return segments

    def _measure(self, measurement: str | list[str]) -> Callable[[list[int]], float]:
        timeline = self._account.timeline
        if measurement == "count":
            return len
        if measurement == "unique":
            return lambda refs: len({timeline.person(ref) for ref in refs} - {NOBODY})
        if measurement == "value":
            return lambda refs: sum(map(timeline.value, refs))
        name = measurement[1]
        return lambda refs: sum(as_number(_properties(timeline, ref).get(name)) for ref in refs)


def _wrong(count: float, add: int) -> float:
    return max(0, count + add) if add else count


def _properties(timeline: Timeline, ref: int) -> dict[str, Any]:
    """The event's properties; none where a test has put something else in their place."""
    try:
        found = json.loads(timeline.properties(ref))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _said(properties: dict[str, Any], name: str) -> str:
    value = properties.get(_ALIASES.get(name, name))
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _read(asked: Parameters, now: float) -> _Asked:
    start, end = _span(asked.text("start_date"), asked.text("end_date"), now)
    where, by = _where(asked.text("where")), asked.text("by")
    if where and by:
        raise invalid("where and by exclude each other.")
    return _Asked(
        start,
        end,
        asked.word("unit", tuple(_UNITS), "day"),
        _measurement(asked.text("measurement") or "count"),
        where,
        by,
        asked.number("count", _SEGMENTS, 1, _MOST_SEGMENTS),
    )


def _span(start: str | None, end: str | None, now: float) -> tuple[datetime, datetime]:
    """Both or neither; without them the 31 days that end with today."""
    if (start is None) != (end is None):
        raise invalid("start_date and end_date must be sent together.")
    if start is None or end is None:
        tomorrow = _midnight(datetime.fromtimestamp(now, UTC)) + timedelta(days=1)
        return tomorrow - _MOST, tomorrow
    span = _date(start), _date(end)
    if not timedelta(0) < span[1] - span[0] <= _MOST:
        raise invalid(f"end_date must be later than start_date, by at most {_MOST.days} days.")
    return span


def _date(text: str) -> datetime:
    try:
        if text.isdecimal() and len(text) == 10:
            return datetime.fromtimestamp(int(text), UTC)
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
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


_UNITS: dict[str, Callable[[datetime], datetime]] = {
    "day": lambda at: _midnight(at) + timedelta(days=1),
    "week": lambda at: _midnight(at) + timedelta(days=7 - at.weekday()),
    "month": lambda at: (_midnight(at.replace(day=1)) + timedelta(days=32)).replace(day=1),
}


def _edges(asked: _Asked) -> list[datetime]:
    """Where each step of time starts: the first where the span does, the others at midnight in UTC."""
    edges = [asked.start]
    while (following := _UNITS[asked.unit](edges[-1])) < asked.end:
        edges.append(following)
    return edges
