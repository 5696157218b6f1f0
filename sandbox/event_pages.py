"""Pages of events as bytes, fast: one template for each metric, and profiles that are rendered once."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache

from sandbox import allowed, current
from sandbox.account import Account
from sandbox.content import dump
from sandbox.ids import event_uuid
from sandbox.query import Query
from sandbox.timeline import ADDED, NOBODY

_CACHED_PROFILES = 20_000
_ATTRIBUTES = ("timestamp", "datetime", "event_properties", "uuid")
_EVERYTHING = b'"timestamp":%d,"datetime":%b,"event_properties":%b,"uuid":"%b"'
_TEMPLATE = (
    '{"type":"event","id":"%b","attributes":{%b},"relationships":{"profile":{"data":%b,"links":{'
    '"self":"BASE/api/events/%b/relationships/profile/","related":"BASE/api/events/%b/profile/"}},'
    '"metric":{"data":METRIC,"links":{'
    '"self":"BASE/api/events/%b/relationships/metric/","related":"BASE/api/events/%b/metric/"}}},'
    '"links":{"self":"BASE/api/events/%b/"}}'
)


@cache
def _minute(minute: int) -> bytes:
    return datetime.fromtimestamp(minute * 60, UTC).isoformat()[:17].encode()


def _moment(time: int) -> bytes:
    """The JSON of current.moment, several times as fast."""
    return b'"%b%02d+00:00"' % (_minute(time // 60), time % 60)


def _reference(kind: str, row_id: str) -> bytes:
    return dump({"type": kind, "id": row_id})


def _members(members: dict[str, bytes | None]) -> bytes:
    """A JSON object of members that are JSON already; None leaves one out."""
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), text) for name, text in members.items() if text is not None)


def _relationship(path: bytes, name: bytes, data: bytes) -> bytes:
    return b'{"data":%b,"links":{"self":"%b/relationships/%b/","related":"%b/%b/"}}' % (data, path, name, path, name)


class EventPages:
    """Renders events for readers that ask for the same fields at the same address."""

    def __init__(self, account: Account, query: Query) -> None:
        self._account, self._base, self._generation = account, query.base, account.generation
        fields = query.fields["event"]
        self._wanted = frozenset(allowed.EVENT_FIELDS if fields is None else fields)
        self._profile_fields = query.fields["profile"]
        self._metric_fields = query.fields["metric"]
        self._include = query.include
        self._usual = self._wanted - {"id"} == {"timestamp", "event_properties"}
        self._everything = fields is None
        self._templates: dict[int | None, bytes] = {}
        self._identifiers: dict[int, bytes] = {NOBODY: b"null"}
        self._profiles: dict[int, bytes] = {}

    def render(self, refs: list[int], links: dict[str, str | None]) -> bytes:
        """The document of a page of events."""
        self._forget_what_changed()
        return self._document([b"[", b",".join([self._event(ref) for ref in refs]), b"]"], refs, links)

    def render_one(self, ref: int, links: dict[str, str | None]) -> bytes:
        """The document of one event."""
        self._forget_what_changed()
        return self._document([self._event(ref)], [ref], links)

    def _document(self, data: list[bytes], refs: list[int], links: dict[str, str | None]) -> bytes:
        parts = [b'{"data":', *data]
        if self._include:
            parts += [b',"included":[', b",".join(self._included(refs)), b"]"]
        return b"".join([*parts, b',"links":', dump(links), b"}"])

    def _forget_what_changed(self) -> None:
        if self._generation != self._account.generation:
            self._generation = self._account.generation
            self._profiles.clear()
            self._templates.clear()

    def _template(self, metric: int | None) -> bytes:
        known = self._templates.get(metric)
        if known is None:
            data = None if metric is None else {"type": "metric", "id": self._account.metric_ids[metric]}
            text = _TEMPLATE.replace("METRIC", dump(data).decode()).replace("BASE", self._base.replace("%", "%%"))
            known = self._templates[metric] = text.encode()
        return known

    def _identifier(self, person: int) -> bytes:
        known = self._identifiers.get(person)
        if known is None:
            known = self._identifiers[person] = _reference("profile", self._account.people.id(person))
        return known

    def _event(self, ref: int) -> bytes:
        timeline = self._account.timeline
        if ref >= ADDED:
            return self._added_event(ref)
        time = timeline.times[ref]
        metric, person = timeline.metrics[ref], timeline.persons[ref]
        properties = timeline.styles[metric].properties(
            ref, time, person, timeline.known_sources[timeline.sources[ref]]
        )
        if self._usual:
            attributes = b'"timestamp":%d,"event_properties":%b' % (time, properties)
        elif self._everything:
            attributes = _EVERYTHING % (time, _moment(time), properties, event_uuid(time, ref).encode())
        else:
            attributes = self._attributes(ref, time, properties)
        event_id = timeline.ids.of(ref)
        return self._template(metric) % (
            event_id,
            attributes,
            self._identifiers.get(person) or self._identifier(person),
            event_id,
            event_id,
            event_id,
            event_id,
            event_id,
        )

    def _attributes(self, ref: int, time: int, properties: bytes) -> bytes:
        members = {
            "timestamp": b"%d" % time,
            "datetime": _moment(time),
            "event_properties": properties,
            "uuid": b'"%b"' % event_uuid(time, ref).encode(),
        }
        return _members({name: value for name, value in members.items() if name in self._wanted})[1:-1]

    def _added_event(self, ref: int) -> bytes:
        """An event any member of which may be wrong, or missing."""
        event = self._account.timeline.added[ref - ADDED]
        plain = event.id or b"null"
        if not plain.startswith(b'"'):  # in links it is text nevertheless
            plain = dump(plain.decode())
        path = f"{self._base}/api/events/".encode() + plain[1:-1]
        attributes = {
            "timestamp": event.timestamp,
            "datetime": _moment(event.time),
            "event_properties": event.properties,
            "uuid": b'"%b"' % event_uuid(event.time, ref).encode(),
        } | {name: value for name, value in event.odd.items() if name in _ATTRIBUTES}
        metric = b"null" if event.metric is None else _reference("metric", self._account.metric_ids[event.metric])
        relationships = {
            "profile": _relationship(path, b"profile", self._identifier(event.person)),
            "metric": _relationship(path, b"metric", metric),
        } | {name: value for name, value in event.odd.items() if name in ("profile", "metric")}
        members = {
            "type": b'"event"',
            "id": event.id,
            "attributes": _members({name: value for name, value in attributes.items() if name in self._wanted}),
            "relationships": _members(relationships),
            "links": b'{"self":"%b/"}' % path,
        }
        return _members(members | {name: value for name, value in event.odd.items() if name in members})

    def _included(self, refs: list[int]) -> Iterable[bytes]:
        timeline = self._account.timeline
        if "profile" in self._include:
            for person in dict.fromkeys(map(timeline.person, refs)):
                if person != NOBODY and person not in self._account.people.erased:
                    yield self._profiles.get(person) or self._profile(person)
        if "metric" in self._include:
            for number in dict.fromkeys(map(timeline.metric, refs)):
                found = None if number is None else self._account.metrics.get(self._account.metric_ids[number])
                if found is not None:
                    yield dump(current.metric(self._base, found, self._metric_fields))

    def _profile(self, person: int) -> bytes:
        if len(self._profiles) >= _CACHED_PROFILES:
            self._profiles.clear()
        profile = self._account.people.profile(person)
        known = dump(current.profile(self._base, profile, self._profile_fields))
        self._profiles[person] = known
        return known
