"""Dimensions: streams that every run reads in full, and stores at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeVar

from klaviyo_pg.catalogue import Absent, Load, loads
from klaviyo_pg.catalogue import events as tables
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import claims, event_tables, list_names, lookups, placeholders
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Campaign, CustomMetric, Flow, Group, MappedMetric, Metric, Page, Reject, Tag, TagGroup
from pipeline.batch import Batch, CleanedFrames, batch_of, protection_of
from pipeline.streams.stream import Finish, OpenedChunk, Reading, Stream, as_one_batch, collected, nothing
from transforms import definitions, dimensions, messages, routing, tags
from transforms.clean import Cleaned

Row = TypeVar("Row")
_EVERY_RUN = "every daily run, in full"


class _Collection(NamedTuple):
    """A collection: its rows, as the transform takes them, and the records that were unreadable."""

    rows: Any
    unreadable: Sequence[Reject]


def full_read(
    name: str,
    fetch: Callable[[Source], Iterator[Page[Any]]],
    transform: Callable[[Reading, Any], CleanedFrames],
    *fills: Load,
    rejects: str,
    prepare: Callable[[Reading, list[Any]], Any] = lambda reading, rows: rows,
    finish: Callable[[Reading], Finish] = lambda reading: nothing,
    is_optional: bool = False,
    on_request: bool = False,
) -> Stream:
    """Declare a stream that is read in full and stored at once. `rejects` names the table of unreadable records.

    `transform` takes what `prepare` returns: the rows, with what the warehouse has to be asked about them. What
    `finish` returns runs in the transaction that stores the rows.
    """

    def open_chunk(reading: Reading) -> OpenedChunk:
        def prepare_pages(pages: Sequence[Page[Any]]) -> _Collection | None:
            if not pages:  # this dialect does not have the collection, which is something else than an empty one
                return None
            rows, unreadable = collected(pages)
            return _Collection(prepare(reading, rows), unreadable)

        def batch(read: _Collection | None) -> Batch:
            if read is None:
                return Batch()
            frames, unreadable = transform(reading, read.rows), read.unreadable
            return batch_of(_believed(frames, rejects, unreadable), {rejects: unreadable})

        return OpenedChunk(fetch(reading.source), batch, finish(reading), prepare=prepare_pages)

    return Stream(
        name,
        open_chunk,
        as_one_batch,
        0,
        fills,
        _EVERY_RUN,
        probe=lambda source, window, subject: fetch(source),
        is_one_collection=True,
        is_optional=is_optional,
        on_request=on_request,
    )


def _believed(frames: CleanedFrames, rejects: str, unreadable: Iterable[Reject]) -> CleanedFrames:
    """Keep what belongs to records that could not be read, such as the messages of a campaign."""
    if not any(reject.hides for reject in unreadable):
        return frames
    return [(load if load.table.name == rejects else _kept(load), frame) for load, frame in frames]


@cache
def _kept(load: Load) -> Load:
    return load if load.absent_per else replace(load, absent=Absent.KEEP)


class _Routed(NamedTuple):
    """Metrics, and the table of each, by ID."""

    metrics: list[Metric]
    destinations: Mapping[str, str]


def _routed(reading: Reading, rows: list[Metric]) -> _Routed:
    """Events of a metric whose table has changed move with it."""
    return _Routed(rows, reading.transact(lambda account: _destinations(reading, rows, account)))


def _metrics(reading: Reading, routed: _Routed) -> CleanedFrames:
    return [(loads.METRICS, dimensions.metrics(routed.metrics, routed.destinations, reading.integration_id))]


def _destinations(reading: Reading, rows: Iterable[Metric], account: Account) -> Mapping[str, str]:
    """Decide the table of each metric; stored events move where it is another one than before.

    They do not move while another process reads the account: what it has already read goes into the tables that were
    right when it began. Events of a metric that is new go where a daily run in progress puts them.
    """
    before = {row.id: row for row in lookups.metrics(account)}
    named = {each: routing.KnownMetric(each, row.name) for each, row in before.items()}
    named |= {row.id: routing.KnownMetric(row.id, row.name) for row in rows}
    stored = {each: row.destination for each, row in before.items()}
    destinations = routing.destinations(named.values(), stored, reading.run.settings.destinations)
    others = claims.held(account, [flow for flow in claims.FLOWS if flow not in reading.session.claims])
    if others or backfill_ledger.parts_alive(account):
        destinations |= stored
    if "daily" in others and stored:  # otherwise it has read no events yet
        destinations |= dict.fromkeys(destinations.keys() - stored.keys(), tables.EVENTS.name)
    for metric_id, table in destinations.items():
        current = stored.get(metric_id, tables.EVENTS.name)  # where events of an unknown metric have gone
        if table != current:
            event_tables.move_events(account, metric_id, current, table)
    return destinations


def _custom_metrics(reading: Reading, rows: list[CustomMetric]) -> CleanedFrames:
    return [(loads.CUSTOM_METRICS, definitions.custom_metrics(rows, reading.integration_id))]


def _mapped_metrics(reading: Reading, rows: list[MappedMetric]) -> CleanedFrames:
    return [(loads.MAPPED_METRICS, definitions.mapped_metrics(rows, reading.integration_id))]


def _campaigns(reading: Reading, rows: list[Campaign]) -> CleanedFrames:
    frames = [
        (loads.CAMPAIGNS, dimensions.campaigns(rows, reading.integration_id)),
        (loads.CAMPAIGN_LISTS, dimensions.campaign_lists(rows, reading.integration_id)),
    ]
    if reading.source.dialect.reads_messages:
        frames.append((loads.CAMPAIGN_MESSAGES, messages.campaign_messages(rows, reading.integration_id)))
    return [*frames, _tagged(reading, rows, "campaign")]


def _follow_messages(account: Account, guard: Guard) -> None:
    placeholders.follow_messages(account)


def _flows(reading: Reading, rows: list[Flow]) -> CleanedFrames:
    frames = [(loads.AUTOMATIONS, dimensions.automations(rows, reading.integration_id))]
    if reading.source.dialect.reads_messages:
        frames.append((loads.FLOW_ACTIONS, messages.flow_actions(rows, reading.integration_id)))
        frames.append((loads.FLOW_MESSAGES, messages.flow_messages(rows, reading.integration_id)))
    return [*frames, _tagged(reading, rows, "flow")]


def _lists(reading: Reading, rows: list[Group]) -> CleanedFrames:
    return _groups(reading, rows, loads.LISTS, "list")


def _groups(reading: Reading, rows: list[Group], load: Load, list_type: str) -> CleanedFrames:
    groups = dimensions.groups(rows, list_type, reading.integration_id)
    return [(load, groups), _tagged(reading, rows, list_type)]


def _tagged(reading: Reading, rows: Sequence[tags.Taggable], object_type: str) -> tuple[Load, Cleaned]:
    return loads.TAGGED_OBJECTS_OF[object_type], tags.tagged(rows, object_type, reading.integration_id)


def _record_names(reading: Reading) -> Finish:
    protection = protection_of(reading.run.settings)
    protect = protection.hashed if protection else None

    def record(account: Account, guard: Guard) -> None:
        list_names.record(account, protect)

    return record


def _segments(reading: Reading, rows: list[Group]) -> CleanedFrames:
    segments = (loads.SEGMENTS, dimensions.segments(rows, reading.integration_id))
    return [*_groups(reading, rows, loads.SEGMENTS_AS_LISTS, "segment"), segments]


def _tags(reading: Reading, rows: list[Tag | TagGroup]) -> CleanedFrames:
    of_groups = [row for row in rows if isinstance(row, TagGroup)]
    of_tags = [row for row in rows if isinstance(row, Tag)]
    return [
        (loads.TAGS, tags.tags(of_tags, reading.integration_id)),
        (loads.TAG_GROUPS, tags.tag_groups(of_groups, reading.integration_id)),
    ]


METRICS = full_read(
    "metrics", lambda source: source.metrics(), _metrics, loads.METRICS, rejects="metrics", prepare=_routed
)
LISTS = full_read(
    "lists",
    lambda source: source.lists(),
    _lists,
    loads.LISTS,
    loads.TAGGED_OBJECTS_OF["list"],
    rejects="lists",
    finish=_record_names,
)
SEGMENTS = full_read(
    "segments",
    lambda source: source.segments(),
    _segments,
    loads.SEGMENTS_AS_LISTS,
    loads.TAGGED_OBJECTS_OF["segment"],
    loads.SEGMENTS,
    rejects="lists",
)
CAMPAIGNS = full_read(
    "campaigns",
    lambda source: source.campaigns(),
    _campaigns,
    loads.CAMPAIGNS,
    loads.CAMPAIGN_LISTS,
    loads.CAMPAIGN_MESSAGES,
    loads.TAGGED_OBJECTS_OF["campaign"],
    rejects="campaigns",
    finish=lambda reading: _follow_messages,
)
FLOWS = full_read(
    "flows",
    lambda source: source.flows(),
    _flows,
    loads.AUTOMATIONS,
    loads.FLOW_ACTIONS,
    loads.FLOW_MESSAGES,
    loads.TAGGED_OBJECTS_OF["flow"],
    rejects="automations",
    finish=lambda reading: _follow_messages,
)
TAGS = full_read(
    "tags", lambda source: source.tags(), _tags, loads.TAGS, loads.TAG_GROUPS, rejects="tags", is_optional=True
)
CUSTOM_METRICS = full_read(
    "custom_metrics",
    lambda source: source.custom_metrics(),
    _custom_metrics,
    loads.CUSTOM_METRICS,
    rejects="custom_metrics",
    is_optional=True,
)
MAPPED_METRICS = full_read(
    "mapped_metrics",
    lambda source: source.mapped_metrics(),
    _mapped_metrics,
    loads.MAPPED_METRICS,
    rejects="mapped_metrics",
    is_optional=True,
)
