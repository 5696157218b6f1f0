"""Fast rendering of pages of events as bytes, with a template for each metric and a cache of rendered profiles."""

from collections.abc import Iterable, Sequence

from sandbox.account import Account
from sandbox.account.attributions import Attribution
from sandbox.account.ids import event_uuid
from sandbox.account.timeline import ADDED, NOBODY
from sandbox.current import allowed, resources
from sandbox.current.profile_json import moment, renderer
from sandbox.current.query import Query
from sandbox.encoding import dump

_MAX_CACHED_PROFILES = 20_000
_PROFILE = b'{"type":"profile","id":"%b"}'
_NO_IDENTIFIERS = {NOBODY: b"null"}
_ATTRIBUTES = ("timestamp", "datetime", "event_properties", "uuid")
_ALL_ATTRIBUTES = b'"timestamp":%d,"datetime":%b,"event_properties":%b,"uuid":"%b"'
_TEMPLATE = (
    '{"type":"event","id":"%b","attributes":{%b},"relationships":{"profile":{"data":%b,"links":{'
    '"self":"BASE/api/events/%b/relationships/profile/","related":"BASE/api/events/%b/profile/"}},'
    '"metric":{"data":METRIC,"links":{'
    '"self":"BASE/api/events/%b/relationships/metric/","related":"BASE/api/events/%b/metric/"}}%b},'
    '"links":{"self":"BASE/api/events/%b/"}}'
)


def _reference(kind: str, row_id: str) -> bytes:
    return dump({"type": kind, "id": row_id})


def _members(members: dict[str, bytes | None]) -> bytes:
    """Return a JSON object of members that are JSON already. None leaves a member out."""
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), text) for name, text in members.items() if text is not None)


def _relationship(path: bytes, name: bytes, data: bytes) -> bytes:
    return b'{"data":%b,"links":{"self":"%b/relationships/%b/","related":"%b/%b/"}}' % (data, path, name, path, name)


class EventPages:
    """A renderer of events for queries that request the same fields from the same host."""

    def __init__(self, account: Account, query: Query) -> None:
        self._account, self._base, self._generation = account, query.base, account.generation
        fields = query.fields["event"]
        self._fields = frozenset(allowed.EVENT_FIELDS if fields is None else fields)
        self._profile_fields = query.fields["profile"]
        self._metric_fields = query.fields["metric"]
        self._include = query.include
        self._has_two_fields = self._fields - {"id"} == {"timestamp", "event_properties"}
        self._has_all_fields = fields is None
        self._templates: dict[int | None, bytes] = {}
        self._identifiers: dict[int, bytes] = dict(_NO_IDENTIFIERS)
        self._profiles: dict[int, bytes] = {}
        self._renderer = renderer(account.people, query.base, self._profile_fields)

    def render(self, refs: list[int], links: dict[str, str | None]) -> bytes:
        """Return the document of a page of events."""
        self._drop_stale_caches()
        return self._document([b"[", b",".join([self._event(ref) for ref in refs]), b"]"], refs, links)

    def render_one(self, ref: int, links: dict[str, str | None]) -> bytes:
        """Return the document of one event."""
        self._drop_stale_caches()
        return self._document([self._event(ref)], [ref], links)

    def _document(self, data: list[bytes], refs: list[int], links: dict[str, str | None]) -> bytes:
        included = [b',"included":[', b",".join(self._included(refs)), b"]"] if self._include else []
        return b"".join([b'{"data":', *data, *included, b',"links":', dump(links), b"}"])

    def _drop_stale_caches(self) -> None:
        if self._generation != self._account.generation:
            self._generation = self._account.generation
            self._profiles.clear()
            self._templates.clear()
            self._identifiers = dict(_NO_IDENTIFIERS)

    def _template(self, metric: int | None) -> bytes:
        template = self._templates.get(metric)
        if template is None:
            data = None if metric is None else {"type": "metric", "id": self._account.metric_ids[metric]}
            text = _TEMPLATE.replace("METRIC", dump(data).decode()).replace("BASE", self._base.replace("%", "%%"))
            template = self._templates[metric] = text.encode()
        return template

    def _identifier(self, person: int) -> bytes:
        identifier = self._identifiers.get(person)
        if identifier is None:
            if len(self._identifiers) >= _MAX_CACHED_PROFILES:
                self._identifiers = dict(_NO_IDENTIFIERS)
            owner = self._account.timeline.owner(person)
            identifier = self._identifiers[person] = _PROFILE % self._account.people.id(owner).encode()
        return identifier

    def _event(self, ref: int) -> bytes:
        timeline = self._account.timeline
        if ref >= ADDED:
            return self._added_event(ref)
        time, metric, person, properties = timeline.row(ref)
        if self._has_two_fields:
            attributes = b'"timestamp":%d,"event_properties":%b' % (time, properties)
        elif self._has_all_fields:
            attributes = _ALL_ATTRIBUTES % (time, moment(time), properties, event_uuid(time, ref).encode())
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
            self._attributed(ref),
            event_id,
        )

    def _attributed(self, ref: int) -> bytes:
        """Return the relationship to the event's attributions as a further member, if it has any and if requested."""
        data = self._references(ref)
        return b"" if data is None else b',"attributions":%b' % data

    def _references(self, ref: int) -> bytes | None:
        found = self._found(ref)
        return dump({"data": [{"type": "attribution", "id": each.id} for each in found]}) if found else None

    def _found(self, ref: int) -> Sequence[Attribution]:
        return self._account.attributions.of(ref) if "attributions" in self._include else ()

    def _attributes(self, ref: int, time: int, properties: bytes) -> bytes:
        members = {
            "timestamp": b"%d" % time,
            "datetime": moment(time),
            "event_properties": properties,
            "uuid": b'"%b"' % event_uuid(time, ref).encode(),
        }
        return _members({name: value for name, value in members.items() if name in self._fields})[1:-1]

    def _added_event(self, ref: int) -> bytes:
        """Render an event of which any member may be wrong or missing."""
        event = self._account.timeline.added[ref - ADDED]
        id_text = event.id or b"null"
        if not id_text.startswith(b'"'):  # links need text even if the id is another type
            id_text = dump(id_text.decode())
        path = f"{self._base}/api/events/".encode() + id_text[1:-1]
        attributes = {
            "timestamp": event.timestamp,
            "datetime": moment(event.time),
            "event_properties": event.properties,
            "uuid": b'"%b"' % event_uuid(event.time, ref).encode(),
        } | {name: value for name, value in event.overrides.items() if name in _ATTRIBUTES}
        metric = b"null" if event.metric is None else _reference("metric", self._account.metric_ids[event.metric])
        relationships = {
            "profile": _relationship(path, b"profile", self._identifier(event.person)),
            "metric": _relationship(path, b"metric", metric),
            "attributions": self._references(ref),
        } | {name: value for name, value in event.overrides.items() if name in ("profile", "metric", "attributions")}
        members = {
            "type": b'"event"',
            "id": event.id,
            "attributes": _members({name: value for name, value in attributes.items() if name in self._fields}),
            "relationships": _members(relationships),
            "links": b'{"self":"%b/"}' % path,
        }
        return _members(members | {name: value for name, value in event.overrides.items() if name in members})

    def _included(self, refs: list[int]) -> Iterable[bytes]:
        timeline = self._account.timeline
        if "attributions" in self._include:
            for ref in refs:
                yield from (dump(resources.attribution(self._account, ref, each)) for each in self._found(ref))
        if "profile" in self._include:
            for person in dict.fromkeys(map(timeline.person, refs)):
                if person != NOBODY and person not in self._account.people.erased:
                    yield self._profiles.get(person) or self._profile(person)
        if "metric" in self._include:
            for number in dict.fromkeys(map(timeline.metric, refs)):
                metric = None if number is None else self._account.metrics.get(self._account.metric_ids[number])
                if metric is not None:
                    yield dump(resources.metric(self._base, metric, self._metric_fields))

    def _profile(self, person: int) -> bytes:
        if len(self._profiles) >= _MAX_CACHED_PROFILES:
            self._profiles.clear()
        rendered = self._profiles[person] = self._rendered_profile(person)
        return rendered

    def _rendered_profile(self, person: int) -> bytes:
        if self._renderer is not None:
            return self._renderer.render(person)
        return dump(resources.profile(self._base, self._account.people.profile(person), self._profile_fields))
