"""A page of either dialect through the real path, bytes to frames, and what has to be true of it whatever it holds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.klaviyo.current import CurrentSource
from klaviyo_pg.klaviyo.http import Client, Endpoint, Traffic
from klaviyo_pg.klaviyo.known import Known, KnownPeople
from klaviyo_pg.klaviyo.legacy import LegacySource
from klaviyo_pg.klaviyo.rows import EventPage, Page, Reject
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.windows import Window
from transforms import dimensions, membership
from transforms.events import Metrics, event_frames
from transforms.people import people

ALWAYS = Window(None, None)
JULY = Window(datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC))
SECOND = b"1782864000"  # the first of JULY
DIALECTS = ("current", "legacy")
METRICS = Metrics({"m1": "Opened Email", "m2": "Subscribed to List"}, {"m1": "opens", "m2": "events"})
ACCOUNT = "one"
Frames = Sequence[tuple[Load, pl.DataFrame]]


class Answers:
    """The same answer to whatever is asked; paths that end in another's have that."""

    traffic = Traffic()

    def __init__(self, body: bytes, others: Mapping[str, bytes] | None = None) -> None:
        self._body, self._others = body, others or {}

    def get(self, path: str, *_: object, read: Callable[[bytes], Any] = bytes, **__: object) -> Any:
        return read(next((body for end, body in self._others.items() if path.endswith(end)), self._body))

    def post(self, endpoint: Endpoint, body: object, read: Callable[[bytes], Any] = bytes) -> Any:
        return self.get(endpoint.path, read=read)


class Met(KnownPeople):
    """Counts the records of people that had been given before."""

    again = 0

    def get(self, record: bytes) -> Known | None:
        found = super().get(record)
        self.again += found is not None
        return found


class Stored(NamedTuple):
    """What became of a page: frames by load, and the records that were set aside."""

    frames: Frames
    rejects: Sequence[Reject]


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def page(records: list[bytes], rest: bytes = b"") -> bytes:
    return b'{"data":[' + b",".join(records) + b"]" + rest + b"}"


def source(dialect: str, body: bytes, others: Mapping[str, bytes] | None = None) -> Source:
    client = cast(Client, Answers(body, others))
    return CurrentSource(client) if dialect == "current" else LegacySource(client, client)


def event_page(dialect: str, body: bytes, window: Window = ALWAYS, known: KnownPeople | None = None) -> EventPage:
    return next(iter(source(dialect, body).events(window, None, known)))


def stored_events(dialect: str, body: bytes) -> tuple[Stored, int]:
    """The frames of a page of events, and how many records they and its rejects account for."""
    met = Met()
    page = event_page(dialect, body, known=met)
    made = event_frames(page.events, METRICS, ACCOUNT)
    persons = people(page.profiles, loads.EVENT_MEMBERS, page.read_at, ACCOUNT)
    frames = [
        *((loads.EVENTS[table], frame) for table, frame in made.tables.items()),
        (loads.FLOW_CAMPAIGNS, made.flow_campaigns),
        (loads.SUBSCRIPTION_CHANGES, made.subscription_changes),
        (loads.EVENT_MEMBERS, persons.members),
        (loads.MEMBER_ATTRIBUTES, persons.attributes),
    ]
    stored = sum(frame.height for frame in made.tables.values())
    assert stored == len(set(page.events.id)), "each id has one row in one table"
    assert persons.members.height == len({each.id for each in page.profiles}), "each person has one row"
    accounted = len(page.events) + len(page.profiles) + met.again + len(page.rejects)
    return Stored(frames, [*page.rejects, *persons.rejects]), accounted


def stored_people(page: Page[Any]) -> Stored:
    made = people(page.rows, loads.MEMBERS, page.read_at, ACCOUNT)
    assert made.members.height == len({each.id for each in page.rows}), "each person has one row"
    frames = [(loads.MEMBERS, made.members), (loads.MEMBER_ATTRIBUTES, made.attributes)]
    return Stored([*frames, (loads.SUBSCRIPTION_CHANGES, made.suppressions)], [*page.rejects, *made.rejects])


def stored_rows(kind: str, page: Page[Any]) -> Stored:
    """The frames of a page of anything that is neither events nor people."""
    return Stored(list(_frames(kind, page.rows)), page.rejects)


def _frames(kind: str, found: Sequence[Any]) -> Iterator[tuple[Load, pl.DataFrame]]:
    match kind:
        case "metrics":
            yield loads.METRICS, dimensions.metrics(found, {}, ACCOUNT).frame
        case "campaigns":
            campaigns, audiences = dimensions.campaigns(found, ACCOUNT)
            yield loads.CAMPAIGNS, campaigns.frame
            yield loads.CAMPAIGN_LISTS, audiences
        case "flows":
            yield loads.AUTOMATIONS, dimensions.automations(found, ACCOUNT).frame
        case "lists":
            yield loads.LISTS, dimensions.groups(found, "list", ACCOUNT).frame
        case "segments":
            yield loads.SEGMENTS, dimensions.groups(found, "segment", ACCOUNT).frame
        case "exclusions":
            yield loads.STG_MEMBER_EXCLUSIONS, membership.exclusions(found, ACCOUNT).frame
        case "memberships":
            yield loads.STG_MEMBER_LISTS, membership.memberships(found, ACCOUNT).frame


def check(stored: Stored) -> None:
    """Frames are exactly their loads', with every key and nothing that Postgres cannot hold as text."""
    for load, frame in stored.frames:
        assert frame.schema == pl.Schema(load.schema), load.table.name
        if load not in (loads.MEMBER_ATTRIBUTES, loads.CAMPAIGN_LISTS):  # whose rows without a key are no rows
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
