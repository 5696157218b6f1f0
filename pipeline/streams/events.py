"""Events, and the people on their pages."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, compress, repeat
from operator import le

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.klaviyo.people_cache import PendingPeople
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.rows import EventPage, Events, Profile
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import AnyWindow
from pipeline.batch import Batch, protection_of
from pipeline.streams.stream import BATCH_SECONDS, BatchEnd, Group, OpenedChunk, Reading, Stream
from transforms import events, people
from transforms.attributions import attributions
from transforms.clean import Cleaned
from transforms.event_lines import EventLines, event_lines
from transforms.personal import Protection

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_BATCH_EVENTS = 10_000  # in one transaction: large enough for COPY to pay, small enough for flat memory


def stored_metrics(account: Account) -> events.Metrics:
    """Look up the account's metrics as the warehouse has them."""
    rows = lookups.metrics(account)
    return events.Metrics({row.id: row.name for row in rows}, {row.id: row.destination for row in rows})


def _open_events(reading: Reading) -> OpenedChunk:
    metrics = reading.metrics or reading.transact(stored_metrics)
    people_read = PendingPeople(reading.session.people)
    making = partial(event_batch, metrics, reading.integration_id, person_load(reading.source))
    return OpenedChunk(
        _pages(reading, people_read),
        partial(
            making,
            protection=protection_of(reading.run.settings),
            has_attributions=reading.source.dialect.reads_attributions,
        ),
        stored=lambda pages: people_read.commit([record for page in pages for record in page.people_records]),
    )


def _pages(reading: Reading, people_read: PendingPeople) -> Iterator[EventPage]:
    for page in reading.source.events(reading.window, reading.subject, people_read):
        yield page._replace(people_records=people_read.take_added())


def person_load(source: Source) -> Load:
    """Return how people on pages of events are stored."""
    return loads.MEMBER_STUBS if source.dialect.lists_people else loads.CONSENTING_EVENT_MEMBERS


def event_batch(
    metrics: events.Metrics,
    integration_id: str,
    person: Load,
    pages: Sequence[EventPage],
    protection: Protection | None = None,
    has_attributions: bool = True,
) -> Batch:
    """Make a batch of pages of events. People and campaigns come last, since other batches may wait for their rows.

    IDs are protected here, before keys are derived from them, and everything else by `pipeline.batch.protect`.
    """
    if not pages:
        return Batch()
    profiles = people.latest(profile for page in pages for profile in page.profiles)
    made, campaigns = _events_of(pages, metrics, integration_id, protection)
    attributed = attributions(pages, integration_id, protection)
    met, attributes, consents = _people(profiles, person, pages[0].read_at, integration_id)
    return replace(
        made,
        frames=[
            *made.frames,
            (loads.EVENT_ATTRIBUTIONS, attributed.included),
            (loads.ATTRIBUTION_IDS, attributed.ids),
            (person, met.frame),
            (loads.MEMBER_ATTRIBUTES, attributes.frame),
            (loads.EMAIL_CONSENTS, consents.consents),
            *campaigns,
        ],
        rejects={
            "events": [reject for page in pages for reject in page.rejects],
            "event_attributions": [reject for page in pages for reject in page.hidden],
            "member_attributes": attributes.rejects,
        },
        nul_characters={
            **made.nul_characters,
            "event_attributions": attributed.nul_characters,
            "members": met.nul_characters + attributes.nul_characters,
            "member_consents": consents.nul_characters,
        },
        has_attributions=has_attributions,
    )


def _events_of(
    pages: Sequence[EventPage], metrics: events.Metrics, integration_id: str, protection: Protection | None
) -> tuple[Batch, list[tuple[Load, pl.DataFrame]]]:
    """Make a batch of the events of pages, and the frames of campaigns and flows, which are to be stored last.

    Usual events become lines if nothing is protected; all others become frames.
    """
    if protection is None and (usual := event_lines(pages, metrics, integration_id)) is not None:
        lines = [(loads.EVENTS[table], each) for table, each in usual.tables.items()]
        return Batch([(loads.SUBSCRIPTION_CHANGES, usual.subscription_changes)], lines=lines), _campaigns(usual)
    columns = Events(*(list(chain(*each)) for each in zip(*(page.events for page in pages), strict=True)))
    read_at = [at for page in pages for at in repeat(_microseconds(page.read_at), len(page.events))]
    made = events.event_frames(columns, read_at, metrics, integration_id, protection)
    frames = [(loads.EVENTS[table], frame) for table, frame in made.tables.items()]
    frames.append((loads.SUBSCRIPTION_CHANGES, made.subscription_changes))
    return Batch(frames, nul_characters={"events": made.nul_characters}), _campaigns(made)


def _campaigns(made: EventLines | events.EventFrames) -> list[tuple[Load, pl.DataFrame]]:
    """Return the frames of the campaigns and flows of events. Flow campaigns come first: they need no placeholder.

    Batches that are stored side by side have many of them in common, and lock each other out from then on until they
    are committed.
    """
    return [
        (loads.FLOW_CAMPAIGNS, made.flow_campaigns),
        (loads.CAMPAIGN_PLACEHOLDERS, made.placeholders.campaigns),
        (loads.FLOW_PLACEHOLDERS, made.placeholders.flows),
    ]


def _people(
    profiles: Sequence[Profile], person: Load, read_at: datetime, integration_id: str
) -> tuple[Cleaned, people.Attributes, people.Consents]:
    """Return the frames of the people on pages: of stubs, or of whole people."""
    if person is loads.MEMBER_STUBS:
        members = people.stubs(((each.id, each.email) for each in profiles), integration_id)
        return members, people.NO_ATTRIBUTES, people.NO_CONSENTS
    return (
        people.members(profiles, person, read_at, integration_id),
        people.attributes(profiles, read_at, integration_id),
        people.consents(profiles, integration_id),
    )


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def by_seconds(
    pages: Iterable[EventPage], least: int, first: int = 0, seconds: float = BATCH_SECONDS
) -> Iterator[Group]:
    """Group pages into batches of at least `least` events. The first one has `first`, if that is not 0 and less.

    Such a first batch is complete when another page follows, so that what fits on one page is one batch; and so is one
    that has taken so many seconds. The checkpoint is the second that a batch stops before. Events of the last second of
    a batch are held back for the next one: the next page may have more of them.
    """
    waiting: list[EventPage] = []
    end = BatchEnd(least, min(first, least), seconds)
    for page in pages:
        if end.is_reached(_event_count(waiting)) and (parts := _at_last_second(waiting)):
            group, waiting = parts
            yield group
            end.begin_next()
        waiting.append(page)
        if _event_count(waiting) >= least and (parts := _at_last_second(waiting)):
            group, waiting = parts
            yield group
            end.begin_next()
    yield Group(waiting, _event_count(waiting), None, is_last=True)


def _at_last_second(pages: Sequence[EventPage]) -> tuple[Group, list[EventPage]] | None:
    """Return the batch before the last second of some events, and the events of that second; None if it has all.

    Attributions that could not be read are with both, since either may have their events.
    """
    last = max(max(each.events.at, default=0) for each in pages)
    if all(at == last for each in pages for at in each.events.at):
        return None
    before = [_part(each, last, before=True) for each in pages]
    held_back = [_part(each, last, before=False) for each in pages]
    group = Group(before, _event_count(before), datetime.fromtimestamp(last, UTC), is_last=False)
    rest = pages[-1]._replace(profiles=(), rejects=(), people_records=())
    return group, [
        rest._replace(events=each.events, attributions=each.attributions, hidden=each.hidden)
        for each in held_back
        if each.events.id
    ]


def _part(page: EventPage, second: int, before: bool) -> EventPage:
    """Return a page with its events before a second, or with those from it on."""
    attributed = [each for each in page.attributions if (each.at < second) == before]
    return page._replace(events=_split(page.events, second, before), attributions=attributed)


def _event_count(pages: Iterable[EventPage]) -> int:
    return sum(len(page.events.id) for page in pages)


def _split(page: Events, second: int, before: bool) -> Events:
    """Return the events before a second, or those from it on."""
    if all(map(le, page.at, page.at[1:])):  # in order of time, as requested
        edge = bisect_left(page.at, second)
        return Events(*(column[:edge] if before else column[edge:] for column in page))  # type: ignore[arg-type]
    keep = [(at < second) == before for at in page.at]
    return Events(*(list(compress(column, keep)) for column in page))  # type: ignore[arg-type]


def reads_at_once(source: Source, settings: Settings, tables: Collection[str] | None) -> bool:
    """Return whether one read has the events of all metrics. The source may need a request to know, so it is last."""
    return tables is None and not settings.metrics and source.reads_all_metrics_at_once


def probe(source: Source, window: AnyWindow, metric_id: str | None) -> Iterator[EventPage]:
    """Begin to read events: of all metrics where that is possible."""
    return source.events(window, None if source.reads_all_metrics_at_once else metric_id)


EVENTS = Stream(
    "events",
    _open_events,
    by_seconds,
    _BATCH_EVENTS,
    (
        loads.EVENTS["events"],
        *(load for name, load in loads.EVENTS.items() if name != "events"),
        loads.FLOW_CAMPAIGNS,
        loads.CAMPAIGN_PLACEHOLDERS,
        loads.FLOW_PLACEHOLDERS,
        loads.SUBSCRIPTION_CHANGES,
        loads.EVENT_ATTRIBUTIONS,
        loads.ATTRIBUTION_IDS,
        loads.MEMBER_STUBS,
        loads.MEMBER_ATTRIBUTES,
        loads.EMAIL_CONSENTS,
    ),
    schedule="every daily run, from LOOKBACK_DAYS before its watermark on; history by a backfill",
    probe=probe,
    cursor="datetime",
    subject="metric",
)
