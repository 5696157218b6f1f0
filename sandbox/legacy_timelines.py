"""Pages of events as v1 timelines give them, fast: one template for each metric, and persons rendered once."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from starlette.requests import Request

from sandbox import legacy_rows
from sandbox.account import Account
from sandbox.content import dump
from sandbox.ids import event_uuid, index_of_event_uuid
from sandbox.legacy_dialect import Parameters, invalid, not_found, query
from sandbox.server import Box
from sandbox.timeline import ADDED, NOBODY, Mark, Timeline, Window

_CACHED_PERSONS = 20_000
_TEMPLATE = (
    '{"object":"event","id":"%b","uuid":"%b","event_name":NAME,"timestamp":%d,"datetime":"%b",'
    '"statistic_id":METRIC,"event_properties":%b,"person":%b}'
)
_SECOND = re.compile(r"[0-9]{10}")
_TOKEN = re.compile(r"(-?[0-9]{1,12})-([0-9A-F]{11})")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAMES = {"type": "object", "metric": "statistic_id", "profile": "person"}  # of what the current dialect calls so
_ODD = {"type", "uuid", "datetime", "event_properties", "metric", "profile"}
_WRONG_SINCE = "since must be a 10-digit Unix timestamp, or the token that the previous page gave as next."


class _Place(NamedTuple):
    """Where to start: at a second, which itself is left out, or behind an event."""

    second: int | None
    after: Mark | None


class LegacyTimelines:
    """The timelines of all events, of a metric, of a person, and of both."""

    def __init__(self, account: Account) -> None:
        self._account, self._pages = account, _Pages(account)

    async def of_all(self, box: Box, request: Request) -> bytes:
        return self._page(box, request, None)

    async def of_metric(self, box: Box, request: Request) -> bytes:
        return self._page(box, request, self._metric(request.path_params["id"]))

    async def of_person(self, box: Box, request: Request) -> bytes:
        return self._page(box, request, None, self._of_person(request))

    async def of_person_and_metric(self, box: Box, request: Request) -> bytes:
        return self._page(box, request, self._metric(request.path_params["metric"]), self._of_person(request))

    def _metric(self, metric_id: str) -> int:
        if metric_id not in self._account.metric_ids:
            raise not_found("metric", metric_id)
        return self._account.metric_ids.index(metric_id)

    def _of_person(self, request: Request) -> Callable[[int], bool]:
        timeline, index = self._account.timeline, self._account.people.index_of(request.path_params["id"])
        if index is None:
            raise not_found("person", request.path_params["id"])
        return lambda ref: timeline.person(ref) == index

    def _page(self, box: Box, request: Request, metric: int | None, keep: Callable[[int], bool] | None = None) -> bytes:
        asked, timeline = query(request), self._account.timeline
        count = asked.number("count", 50, 1, 100)
        place = _since(asked, timeline)
        descending = asked.word("sort", ("asc", "desc"), "desc") == "desc" or place is None
        window = _window(metric, place, descending, int(box.now()))
        refs = timeline.read(window, count + 1, place and place.after, descending, keep)
        shown = refs[:count]
        following = f"{timeline.time(shown[-1])}-{shown[-1]:011X}" if len(refs) > len(shown) else None
        return self._pages.render(shown, following)


def _since(asked: Parameters, timeline: Timeline) -> _Place | None:
    text = asked.text("since")
    if text is None:
        return None
    if _SECOND.fullmatch(text):
        return _Place(int(text), None)
    token = _TOKEN.fullmatch(text)
    ref = int(token[2], 16) if token else index_of_event_uuid(text) if _UUID.fullmatch(text) else -1
    if not _exists(timeline, ref):
        raise invalid(_WRONG_SINCE)
    time = timeline.time(ref)
    if text not in (f"{time}-{ref:011X}", event_uuid(time, ref)):
        raise invalid(_WRONG_SINCE)
    return _Place(None, (time, ref))


def _exists(timeline: Timeline, ref: int) -> bool:
    return 0 <= ref < len(timeline.times) or ADDED <= ref < ADDED + len(timeline.added)


def _window(metric: int | None, place: _Place | None, descending: bool, now: int) -> Window:
    if place is None:
        return Window(metric, until=now + 1)
    if place.second is None:
        return Window(metric)
    return Window(metric, until=place.second) if descending else Window(metric, since=place.second + 1)


class _Pages:
    """Renders events."""

    def __init__(self, account: Account) -> None:
        self._account, self._generation = account, account.generation
        self._templates: dict[int, bytes] = {}
        self._persons: dict[int, bytes] = {}
        self._names: dict[int | None, str] = {}
        self._forget()

    def render(self, refs: list[int], following: str | None) -> bytes:
        """The envelope with these events and the token of the next page."""
        if self._generation != self._account.generation:
            self._forget()
        rows = b",".join([self._event(ref) for ref in refs])
        return b'{"object":"$list","count":%d,"data":[%b],"next":%b}' % (len(refs), rows, dump(following))

    def _forget(self) -> None:
        self._generation = self._account.generation
        self._templates.clear()
        self._persons.clear()
        self._names = {row.number: row.name for row in self._account.metrics.values()}

    def _event(self, ref: int) -> bytes:
        timeline = self._account.timeline
        if ref >= ADDED:
            return self._added_event(ref)
        time, metric, person = timeline.times[ref], timeline.metrics[ref], timeline.persons[ref]
        return (self._templates.get(metric) or self._template(metric)) % (
            timeline.ids.of(ref),
            event_uuid(time, ref).encode(),
            time,
            _datetime(time),
            timeline.properties(ref),
            self._persons.get(person) or self._person(person),
        )

    def _template(self, metric: int) -> bytes:
        name = dump(self._names.get(metric)).replace(b"%", b"%%")
        known = _TEMPLATE.encode().replace(b"METRIC", dump(self._account.metric_ids[metric])).replace(b"NAME", name)
        self._templates[metric] = known
        return known

    def _person(self, person: int) -> bytes:
        if len(self._persons) >= _CACHED_PERSONS:
            self._persons.clear()
        people = self._account.people
        if person == NOBODY:
            known = b"null"
        elif person in people.erased:
            known = dump({"object": "person", "id": people.id(person)})
        else:
            known = dump(legacy_rows.person(people.profile(person)))
        self._persons[person] = known
        return known

    def _added_event(self, ref: int) -> bytes:
        """An event any member of which may be wrong, or missing."""
        event = self._account.timeline.added[ref - ADDED]
        members: dict[str, bytes | None] = {
            "object": b'"event"',
            "id": event.id,
            "uuid": dump(event_uuid(event.time, ref)),
            "event_name": dump(self._names.get(event.metric)),
            "timestamp": event.timestamp,
            "datetime": b'"%b"' % _datetime(event.time),
            "statistic_id": dump(None if event.metric is None else self._account.metric_ids[event.metric]),
            "event_properties": event.properties,
            "person": self._persons.get(event.person) or self._person(event.person),
        } | {_NAMES.get(name, name): value for name, value in event.odd.items() if name in _ODD}
        return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), v) for name, v in members.items() if v is not None)


def _datetime(time: int) -> bytes:
    return datetime.fromtimestamp(time, UTC).isoformat(" ").encode()
