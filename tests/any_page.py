"""Pages of either dialect turned into frames by the real code, and checks that must hold whatever a page contains."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar, cast

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.current.source import CurrentSource
from klaviyo_pg.klaviyo.legacy.source import LegacySource
from klaviyo_pg.klaviyo.people_cache import KnownPeople, KnownPerson, PendingPeople, PeopleCache
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.load import Unstorable
from klaviyo_pg.rows import EventPage, MembershipPage, Page, Reject
from klaviyo_pg.settings import Revision
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.windows import FULL_READ, AnyWindow, Window
from tests.people_frames import consents, people
from transforms import dimensions, membership, messages, tags
from transforms.attributions import attributions
from transforms.events import Metrics, event_frames

JULY = Window(datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC))
SECOND = b"1782864000"  # the first of JULY
DIALECTS = ("current", "legacy")
METRICS = Metrics({"m1": "Opened Email", "m2": "Subscribed to List"}, {"m1": "opens", "m2": "events"})
ACCOUNT = "one"
Frames = Sequence[tuple[Load, pl.DataFrame]]
Refused = TypeVar("Refused", Reject, Unstorable)


class Answers:
    """A client that returns the same body for every request, except for paths that end in a key of `others`.

    One of these that is an error is raised.
    """

    traffic = Traffic()

    def __init__(self, body: bytes, others: Mapping[str, bytes | Exception] | None = None) -> None:
        self._body, self._others = body, others or {}

    def get(self, path: str, *_: object, read: Callable[[bytes], Any] = bytes, **__: object) -> Any:
        answer = next((body for end, body in self._others.items() if path.endswith(end)), self._body)
        if isinstance(answer, Exception):
            raise answer
        return read(answer)

    def post(self, endpoint: Endpoint, body: object, read: Callable[[bytes], Any] = bytes) -> Any:
        return self.get(endpoint.path, read=read)


class CountingPeople(PendingPeople):
    """A view of an empty cache that counts the repeated records."""

    def __init__(self) -> None:
        super().__init__(PeopleCache())
        self.repeated = 0

    def get(self, record: bytes) -> KnownPerson | None:
        person = super().get(record)
        self.repeated += person is not None
        return person


class Stored(NamedTuple):
    """The frames of a page by load, and the records that were rejected."""

    frames: Frames
    rejects: Sequence[Reject]


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def page(records: list[bytes], rest: bytes = b"") -> bytes:
    return b'{"data":[' + b",".join(records) + b"]" + rest + b"}"


def source(
    dialect: str, body: bytes, others: Mapping[str, bytes | Exception] | None = None, revision: Revision = "2026-07-15"
) -> Source:
    client = cast(Client, Answers(body, others))
    return CurrentSource(client, revision=revision) if dialect == "current" else LegacySource(client, client)


def event_page(
    dialect: str, body: bytes, window: AnyWindow = FULL_READ, known_people: KnownPeople | None = None
) -> EventPage:
    return next(iter(source(dialect, body).events(window, None, known_people)))


def stored_events(dialect: str, body: bytes) -> tuple[Stored, int]:
    """Return the frames of a page of events, and the number of records that became rows, rejects or repeated people."""
    known_people = CountingPeople()
    page = event_page(dialect, body, known_people=known_people)
    by_table = event_frames(page.events, [0] * len(page.events), METRICS, ACCOUNT)
    persons = people(page.profiles, loads.MEMBER_STUBS, page.read_at, ACCOUNT)
    frames = [
        *((loads.EVENTS[table], frame) for table, frame in by_table.tables.items()),
        (loads.FLOW_CAMPAIGNS, by_table.flow_campaigns),
        (loads.CAMPAIGN_PLACEHOLDERS, by_table.placeholders.campaigns),
        (loads.FLOW_PLACEHOLDERS, by_table.placeholders.flows),
        (loads.SUBSCRIPTION_CHANGES, by_table.subscription_changes),
        (loads.EVENT_ATTRIBUTIONS, attributions([page], ACCOUNT).included),
        (loads.ATTRIBUTION_IDS, attributions([page], ACCOUNT).ids),
        (loads.MEMBER_STUBS, persons.members),
        (loads.MEMBER_ATTRIBUTES, persons.attributes),
    ]
    stored = sum(frame.height for frame in by_table.tables.values())
    assert stored == len(set(page.events.id)), "each id has one row in one table"
    assert persons.members.height == len({each.id for each in page.profiles}), "each person has one row"
    accounted = len(page.events) + len(page.profiles) + known_people.repeated + len(lost(page.rejects))
    return Stored(frames, [*page.rejects, *persons.rejects]), accounted


def lost(rejects: Sequence[Refused]) -> list[Refused]:
    """Return the records, or rows, of which nothing is stored."""
    return [reject for reject in rejects if not reject.replaced]


def stored_people(page: Page[Any]) -> Stored:
    persons = people(page.rows, loads.MEMBERS, page.read_at, ACCOUNT)
    assert persons.members.height == len({each.id for each in page.rows}), "each person has one row"
    agreed = consents(page.rows, ACCOUNT)
    frames = [
        (loads.MEMBERS, persons.members),
        (loads.MEMBER_ATTRIBUTES, persons.attributes),
        (loads.MEMBER_CONSENTS, agreed.consents),
        (loads.LIST_SUPPRESSIONS_OF_PEOPLE, agreed.suppressions),
    ]
    return Stored(frames, [*page.rejects, *persons.rejects])


def stored_rows(kind: str, page: Page[Any] | MembershipPage) -> Stored:
    """Return the frames of a page with anything but events and people."""
    return Stored(list(_frames(kind, page.rows)), page.rejects)


def _frames(kind: str, rows: Sequence[Any]) -> Iterator[tuple[Load, pl.DataFrame]]:
    match kind:
        case "metrics":
            yield loads.METRICS, dimensions.metrics(rows, {}, ACCOUNT).frame
        case "campaigns":
            yield loads.CAMPAIGNS, dimensions.campaigns(rows, ACCOUNT).frame
            yield loads.CAMPAIGN_LISTS, dimensions.campaign_lists(rows, ACCOUNT).frame
            yield loads.CAMPAIGN_MESSAGES, messages.campaign_messages(rows, ACCOUNT).frame
            yield loads.TAGGED_OBJECTS, tags.tagged(rows, "campaign", ACCOUNT).frame
        case "flows":
            yield loads.AUTOMATIONS, dimensions.automations(rows, ACCOUNT).frame
            yield loads.FLOW_ACTIONS, messages.flow_actions(rows, ACCOUNT).frame
            yield loads.FLOW_MESSAGES, messages.flow_messages(rows, ACCOUNT).frame
        case "tags":
            yield loads.TAGS, tags.tags(rows, ACCOUNT).frame
        case "lists":
            yield loads.LISTS, dimensions.groups(rows, "list", ACCOUNT).frame
        case "segments":
            yield loads.SEGMENTS_AS_LISTS, dimensions.groups(rows, "segment", ACCOUNT).frame
            yield loads.SEGMENTS, dimensions.segments(rows, ACCOUNT).frame
        case "exclusions":
            yield loads.STG_MEMBER_EXCLUSIONS, membership.exclusions(rows, ACCOUNT).frame
        case "memberships":
            yield loads.STG_MEMBER_LISTS, membership.memberships(rows, ACCOUNT).frame


WITH_MARKERS = (
    loads.MEMBER_ATTRIBUTES,
    loads.CAMPAIGN_LISTS,
    loads.TAGGED_OBJECTS,
    loads.MEMBER_CONSENTS,
    loads.LIST_SUPPRESSIONS_OF_PEOPLE,
)


def check(stored: Stored) -> None:
    """Check that each frame has the schema of its load, all its keys, and only text that Postgres can store."""
    for load, frame in stored.frames:
        assert frame.schema == pl.Schema(load.schema), load.table.name
        if load not in WITH_MARKERS:  # a row without a key is a marker there
            keys = frame.select(name for name in load.table.primary_key if name in load.schema)
            assert not keys.null_count().sum_horizontal().sum() and keys.is_unique().all(), load.table.name
        for column in frame.get_columns():
            if column.dtype == pl.String:
                assert not any("\0" in text for text in column.drop_nulls()), column.name
        if "properties" in frame.columns:
            assert not any("\\u0000" in text.replace("\\\\", "") for text in frame["properties"].drop_nulls())
    for reject in stored.rejects:
        assert reject.reason
        assert isinstance(reject.raw.encode(), bytes), "no surrogates"
