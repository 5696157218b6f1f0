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
    return f"{datetime.fromtimestamp(minute * 60, UTC):%Y-%m-%dT%H:%M:}".encode()


def _moment(time: int) -> bytes:
    """The JSON of current.moment, several times as fast."""
    return b'"%b%02d+00:00"' % (_minute(time // 60), time % 60)


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
            known = dump({"type": "profile", "id": self._account.people.id(person)})
            self._identifiers[person] = known
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
            attributes = self._attributes(ref, time, b"%d" % time, properties)
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

    def _attributes(self, ref: int, time: int, timestamp: bytes | None, properties: bytes) -> bytes:
        members = []
        if timestamp is not None and "timestamp" in self._wanted:
            members.append(b'"timestamp":%b' % timestamp)
        if timestamp is not None and "datetime" in self._wanted:
            members.append(b'"datetime":%b' % (_moment(time) if timestamp == b"%d" % time else timestamp))
        if "event_properties" in self._wanted:
            members.append(b'"event_properties":%b' % properties)
        if "uuid" in self._wanted:
            members.append(b'"uuid":"%b"' % event_uuid(time, ref).encode())
        return b",".join(members)

    def _added_event(self, ref: int) -> bytes:
        """An event that may have a wrong id or timestamp, or none."""
        event = self._account.timeline.added[ref - ADDED]
        attributes = self._attributes(ref, event.time, event.timestamp, event.properties)
        plain = (event.id or b"null").strip(b'"')
        rendered = self._template(event.metric) % (
            plain,
            attributes,
            self._identifier(event.person),
            plain,
            plain,
            plain,
            plain,
            plain,
        )
        wanted = b"" if event.id is None else b'"id":%b,' % event.id
        return rendered.replace(b'"id":"%b",' % plain, wanted, 1)

    def _included(self, refs: list[int]) -> Iterable[bytes]:
        timeline = self._account.timeline
        if "profile" in self._include:
            for person in dict.fromkeys(map(timeline.person, refs)):
                if person != NOBODY:
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
