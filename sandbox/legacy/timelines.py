"""The timelines of v1, rendered fast: a template for each metric and a cache of rendered persons."""

import re
from datetime import UTC, datetime
from typing import NamedTuple

from starlette.requests import Request

from sandbox.account import Account
from sandbox.account.ids import event_uuid, index_of_event_uuid
from sandbox.account.timeline import ADDED, NOBODY, Position, Timeline, Window
from sandbox.api.endpoint import Context
from sandbox.encoding import dump
from sandbox.legacy import rows
from sandbox.legacy.dialect import Parameters, invalid, not_found, query

_MAX_CACHED_PERSONS = 20_000
_TEMPLATE = (
    '{"object":"event","id":"%b","uuid":"%b","event_name":NAME,"timestamp":%d,"datetime":"%b",'
    '"statistic_id":METRIC,"event_properties":%b,"person":%b}'
)
_SECOND = re.compile(r"[0-9]{10}")
_TOKEN = re.compile(r"(-?[0-9]{1,12})-([0-9A-F]{11})")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LEGACY_NAMES = {"type": "object", "metric": "statistic_id", "profile": "person"}  # by name in the current dialect
_OVERRIDABLE = frozenset(("type", "uuid", "datetime", "event_properties", "metric", "profile"))
_WRONG_SINCE = "since must be a 10-digit Unix timestamp, or the token that the previous page gave as next."


class _Start(NamedTuple):
    """The start of a page: a second, which is itself excluded, or the position of an event."""

    second: int | None
    after: Position | None


class Timelines:
    """The timelines of all events, of a metric, of a person, and of a person and a metric."""

    def __init__(self, account: Account) -> None:
        self._account, self._pages = account, _Pages(account)

    async def of_all(self, context: Context, request: Request) -> bytes:
        return self._page(context, request, None)

    async def of_metric(self, context: Context, request: Request) -> bytes:
        return self._page(context, request, self._metric(request.path_params["id"]))

    async def of_person(self, context: Context, request: Request) -> bytes:
        return self._page(context, request, None, self._person(request))

    async def of_person_and_metric(self, context: Context, request: Request) -> bytes:
        return self._page(context, request, self._metric(request.path_params["metric"]), self._person(request))

    def _metric(self, metric_id: str) -> int:
        if metric_id not in self._account.metric_ids:
            raise not_found("metric", metric_id)
        return self._account.metric_ids.index(metric_id)

    def _person(self, request: Request) -> int:
        index = self._account.people.index_of(request.path_params["id"])
        if index is None:
            raise not_found("person", request.path_params["id"])
        return index

    def _page(self, context: Context, request: Request, metric: int | None, person: int | None = None) -> bytes:
        parameters, timeline = query(request), self._account.timeline
        count = parameters.number("count", 50, 1, 100)
        start = _start(parameters, timeline)
        descending = parameters.choice("sort", ("asc", "desc"), "desc") == "desc" or start is None
        window = _window(metric, start, descending, int(context.now()))
        keep = None if person is None else (lambda ref: timeline.person(ref) == person)
        among = None if person is None else timeline.of_person(person, metric)
        refs = timeline.read(window, count + 1, start and start.after, descending, keep, among)
        shown = refs[:count]
        following = f"{timeline.time(shown[-1])}-{shown[-1]:011X}" if len(refs) > len(shown) else None
        return self._pages.render(shown, following)


def _start(parameters: Parameters, timeline: Timeline) -> _Start | None:
    text = parameters.text("since")
    if text is None:
        return None
    if _SECOND.fullmatch(text):
        return _Start(int(text), None)
    token = _TOKEN.fullmatch(text)
    ref = int(token[2], 16) if token else index_of_event_uuid(text) if _UUID.fullmatch(text) else -1
    if not _exists(timeline, ref):
        raise invalid(_WRONG_SINCE)
    time = timeline.time(ref)
    if text not in (f"{time}-{ref:011X}", event_uuid(time, ref)):
        raise invalid(_WRONG_SINCE)
    return _Start(None, (time, ref))


def _exists(timeline: Timeline, ref: int) -> bool:
    return 0 <= ref < len(timeline.times) or ADDED <= ref < ADDED + len(timeline.added)


def _window(metric: int | None, start: _Start | None, descending: bool, now: int) -> Window:
    if start is None:
        return Window(metric, until=now + 1)
    if start.second is None:
        return Window(metric)
    return Window(metric, until=start.second) if descending else Window(metric, since=start.second + 1)


class _Pages:
    """A renderer of events."""

    def __init__(self, account: Account) -> None:
        self._account, self._generation = account, account.generation
        self._templates: dict[int, bytes] = {}
        self._persons: dict[int, bytes] = {}
        self._names: dict[int | None, str] = {}
        self._reset_caches()

    def render(self, refs: list[int], following: str | None) -> bytes:
        """Return the document with these events and the token of the next page."""
        if self._generation != self._account.generation:
            self._reset_caches()
        events = b",".join([self._event(ref) for ref in refs])
        return b'{"object":"$list","count":%d,"data":[%b],"next":%b}' % (len(refs), events, dump(following))

    def _reset_caches(self) -> None:
        self._generation = self._account.generation
        self._templates.clear()
        self._persons.clear()
        self._names = {row.number: row.name for row in self._account.metrics.values()}

    def _event(self, ref: int) -> bytes:
        timeline = self._account.timeline
        if ref >= ADDED:
            return self._added_event(ref)
        time, metric, person, properties = timeline.row(ref)
        return (self._templates.get(metric) or self._template(metric)) % (
            timeline.ids.of(ref),
            event_uuid(time, ref).encode(),
            time,
            _datetime(time),
            properties,
            self._persons.get(person) or self._person(person),
        )

    def _template(self, metric: int) -> bytes:
        name = dump(self._names.get(metric)).replace(b"%", b"%%")
        template = _TEMPLATE.encode().replace(b"METRIC", dump(self._account.metric_ids[metric])).replace(b"NAME", name)
        self._templates[metric] = template
        return template

    def _person(self, person: int) -> bytes:
        if len(self._persons) >= _MAX_CACHED_PERSONS:
            self._persons.clear()
        people, owner = self._account.people, self._account.timeline.owner(person)
        if owner == NOBODY:
            rendered = b"null"
        elif owner in people.erased:
            rendered = dump({"object": "person", "id": people.id(owner)})
        else:
            rendered = dump(rows.person(people.profile(owner)))
        self._persons[person] = rendered
        return rendered

    def _added_event(self, ref: int) -> bytes:
        """Render an event of which any member may be wrong or missing."""
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
        }
        overrides = {name: value for name, value in event.overrides.items() if name in _OVERRIDABLE}
        members |= {_LEGACY_NAMES.get(name, name): value for name, value in overrides.items()}
        return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), v) for name, v in members.items() if v is not None)


def _datetime(time: int) -> bytes:
    return datetime.fromtimestamp(time, UTC).isoformat(" ").encode()
