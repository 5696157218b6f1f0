"""One task for each endpoint: read a chunk, make frames of it, store them. A chunk is the unit of retry."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task
from psycopg import Connection

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.catalogue import events as tables
from klaviyo_pg.klaviyo.rows import EventPage, Events, MembershipPage, Metric, Page, Profile, Reject
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import claims, ledger
from tasks import edges, stopping
from tasks.plan import Chunk
from tasks.run import Run, count_requests, patiently
from tasks.store import Batch, Counts, Note, protect, store
from tasks.sweeping import Sweep
from tasks.together import Together, is_passing
from transforms import dimensions, events, membership, people, routing

_BATCH_ROWS = 10_000  # rows in one transaction: large enough for COPY to pay, small enough for flat memory
_BATCH_PEOPLE = 2_000  # the same for pages of people, of which a page holds a hundred
_FORMAT = 1  # of a task's result; another one makes kept results worthless

Row = TypeVar("Row")


def _cache_key(context: TaskRunContext, parameters: Mapping[str, Any]) -> str:
    """Once a run. A run that is gone on with after a failure keeps its id, so what it has read is not read again."""
    run, chunk = parameters["run"], parameters["chunk"]
    return f"klaviyo-pg-{_FORMAT}-{run.id}-{chunk.stream}-{chunk.part}".replace("/", "-")


def _worth_another_try(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    return is_passing(state.result(raise_on_failure=False))


RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [5, 30],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _worth_another_try,
}
"""Of a task whose unit of work can be begun again; shorter disturbances are the HTTP client's and the store's."""
_ENDPOINT: dict[str, Any] = {
    **RETRIES,
    "task_run_name": "{chunk}",
    "cache_policy": CacheKeyFnPolicy(cache_key_fn=_cache_key),
    "cache_expiration": timedelta(days=1),
    "result_serializer": "json",
}


def _nothing(connection: Connection) -> None:
    """There is nothing to note before the last batch: a chunk is done or not."""


def _read(run: Run, chunk: Chunk, read: Callable[[Source], Iterable[Batch]], at_end: Note = _nothing) -> Counts:
    """Store what `read` makes of the source, batch by batch; the last ends the chunk, and notes what is true then."""
    stopping.check()
    source = edges.source(run.settings)
    before = source.traffic
    total: dict[str, dict[str, int]] = {}
    try:
        for batch, is_last in _with_last(read(source)):
            traffic, before = source.traffic.since(before), source.traffic
            note = partial(_finish, run, chunk, at_end) if is_last else _nothing
            add_up(total, store(run, chunk.stream, protect(batch, run.settings), traffic, note))
            if not is_last:
                stopping.check()
    except Exception as error:
        stopping.heed(error)
        edges.forget_people()
        count_requests(run, source.traffic.since(before))
        raise
    return total


def _finish(run: Run, chunk: Chunk, at_end: Note, connection: Connection) -> None:
    """The chunk is done; with the last one of its stream, the streams that it marks are read up to the present."""
    at_end(connection)
    if ledger.finish_chunk(connection, run.schema, run.id, chunk.stream, chunk.part):
        for mark in chunk.marks:
            ledger.advance_watermark(connection, run.schema, run.integration_id, mark, chunk.start, run.as_of)


def add_up(total: dict[str, dict[str, int]], counts: Counts) -> None:
    """Add counts of rows by table to a total."""
    for table, counted in counts.items():
        known = total.setdefault(table, {})
        known.update({name: known.get(name, 0) + count for name, count in counted.items()})


def _with_last(items: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Each item, and whether it is the last; one empty batch where there is none."""
    waiting: Batch | None = None
    for item in items:
        if waiting is not None:
            yield waiting, False
        waiting = item
    yield waiting or Batch(()), True


def _all(pages: Iterable[Page[Row]]) -> tuple[list[Row], list[Reject]]:
    """A complete collection; nothing of it may be stored before its last page has been read."""
    read = list(pages)
    return [row for page in read for row in page.rows], [reject for page in read for reject in page.rejects]


@task(**_ENDPOINT)
def load_metrics(run: Run, chunk: Chunk) -> Counts:
    """GET metrics. Events of a metric whose table has changed move with it."""

    def read(source: Source) -> Iterator[Batch]:
        found, rejects = _all(source.metrics())
        destinations = patiently(run, partial(_destinations, run, found))
        frame, nul_characters = dimensions.metrics(found, destinations, run.integration_id)
        yield Batch([(loads.METRICS, frame)], {"metrics": rejects}, {"metrics": nul_characters})

    return _read(run, chunk, read)


def _destinations(run: Run, found: Iterable[Metric], connection: Connection) -> Mapping[str, str]:
    """The table of each metric; stored events are moved where it is another one than before.

    Not while another process runs a backfill: what it has read already goes into the table that it found.
    """
    known = {row.id: row for row in ledger.metrics(connection, run.schema, run.integration_id)}
    named = {each: routing.KnownMetric(each, row.name) for each, row in known.items()}
    named |= {row.id: routing.KnownMetric(row.id, row.name) for row in found}
    stored = {each: row.destination for each, row in known.items()}
    destinations = routing.destinations(named.values(), stored, run.settings.destinations)
    if not edges.has_claimed("backfill") and claims.held(connection, run.schema, run.integration_id, ["backfill"]):
        destinations |= stored
    for metric_id, table in destinations.items():
        before = stored.get(metric_id, tables.EVENTS.name)  # where events of an unknown metric have gone
        if table != before:
            ledger.move_events(connection, run.schema, run.integration_id, metric_id, before, table)
    return destinations


@task(**_ENDPOINT)
def load_campaigns(run: Run, chunk: Chunk) -> Counts:
    """GET campaigns, with their messages and audiences."""

    def read(source: Source) -> Iterator[Batch]:
        found, rejects = _all(source.campaigns())
        campaigns, audiences = dimensions.campaigns(found, run.integration_id)
        frames = [(loads.CAMPAIGNS, campaigns.frame), (loads.CAMPAIGN_LISTS, audiences)]
        yield Batch(frames, {"campaigns": rejects}, {"campaigns": campaigns.nul_characters})

    return _read(run, chunk, read)


@task(**_ENDPOINT)
def load_flows(run: Run, chunk: Chunk) -> Counts:
    """GET flows."""

    def read(source: Source) -> Iterator[Batch]:
        found, rejects = _all(source.flows())
        frame, nul_characters = dimensions.automations(found, run.integration_id)
        yield Batch([(loads.AUTOMATIONS, frame)], {"automations": rejects}, {"automations": nul_characters})

    return _read(run, chunk, read)


@task(**_ENDPOINT)
def load_lists(run: Run, chunk: Chunk) -> Counts:
    """GET lists."""

    def read(source: Source) -> Iterator[Batch]:
        found, rejects = _all(source.lists())
        frame, nul_characters = dimensions.groups(found, "list", run.integration_id)
        yield Batch([(loads.LISTS, frame)], {"lists": rejects}, {"lists": nul_characters})

    return _read(run, chunk, read)


@task(**_ENDPOINT)
def load_segments(run: Run, chunk: Chunk) -> Counts:
    """GET segments."""

    def read(source: Source) -> Iterator[Batch]:
        found, rejects = _all(source.segments())
        frame, nul_characters = dimensions.groups(found, "segment", run.integration_id)
        yield Batch([(loads.SEGMENTS, frame)], {"lists": rejects}, {"lists": nul_characters})

    return _read(run, chunk, read)


@task(**_ENDPOINT)
def load_exclusions(run: Run, chunk: Chunk) -> Counts:
    """Suppressed profiles, for all reasons."""

    def read(source: Source) -> Iterator[Batch]:
        found, rejects = _all(source.exclusions())
        frame, nul_characters = membership.exclusions(found, run.account_id)
        frames = [(loads.STG_MEMBER_EXCLUSIONS, frame), (loads.MEMBER_EXCLUSIONS, frame)]
        yield Batch(frames, {"member_exclusions": rejects}, {"member_exclusions": nul_characters})

    return _read(run, chunk, read)


class Lists(Together[Chunk]):
    """Lists that one task reads: a single one with all its members, or several of which only new members are read."""

    def __str__(self) -> str:
        return str(self.chunks[0]) if len(self.chunks) == 1 else f"list_members of {len(self.chunks)} lists"


@task(task_run_name="{lists}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def load_list_members(run: Run, lists: Lists) -> Counts:
    """GET the profiles of lists, one list after the other."""
    total: dict[str, dict[str, int]] = {}
    lists.each(lambda chunk: add_up(total, _load_list(run, chunk)))
    return total


def _load_list(run: Run, chunk: Chunk) -> Counts:
    """All members where the chunk has no bounds, and then those who left are noted."""
    assert chunk.subject is not None
    sweep = Sweep(run, chunk.subject, chunk.window)

    def read(source: Source) -> Iterator[Batch]:
        people = _subscribers(run, source, chunk.window.start) if source.looks_up_memberships else None
        members = source.memberships(sweep.list_id, chunk.window, sweep.asking(people))
        for pages in _grouped(sweep.noting(members), len_of_rows, _BATCH_PEOPLE):
            found = [row for page in pages for row in page.rows]
            frame, nul_characters = membership.memberships(found, run.account_id)
            excluded = membership.suppressions([row for page in pages for row in page.suppressions])
            yield Batch(
                [(loads.STG_MEMBER_LISTS, frame), (loads.SUBSCRIPTION_CHANGES, excluded), *sweep.answers(found)],
                {"stg_member_lists": [reject for page in pages for reject in page.rejects]},
                {"stg_member_lists": nul_characters},
            )

    return _read(run, chunk, read, sweep.end)


def _subscribers(run: Run, source: Source, since: datetime | None) -> Iterator[tuple[str, str]]:
    """Ids and addresses of those who joined any list since then, a few thousand at a time.

    Where the warehouse has no addresses that could be read, the source is asked for them.
    """
    behind = ""
    while found := _joined(run, since, behind):
        if run.settings.personal_data == "keep":
            yield from ((each, address) for each, address in found if address)
        else:
            people = chain.from_iterable(page.rows for page in source.people([each for each, _ in found]))
            yield from ((person.id, address) for person in people if (address := person.email or person.phone_number))
        behind = found[-1][0]


def _joined(run: Run, since: datetime | None, behind: str) -> list[tuple[str, str | None]]:
    def read(connection: Connection) -> list[tuple[str, str | None]]:
        return ledger.subscribers(connection, run.schema, run.integration_id, since, behind, _BATCH_ROWS)

    return patiently(run, read)


@task(**_ENDPOINT)
def load_profiles(run: Run, chunk: Chunk) -> Counts:
    """GET profiles that changed in the window, with their subscriptions."""

    def read(source: Source) -> Iterator[Batch]:
        return _people_batches(run, source.profiles(chunk.window))

    return _read(run, chunk, read)


@task(**_ENDPOINT)
def load_people(run: Run, chunk: Chunk) -> Counts:
    """The profiles of people whom lists and events name, but whom nothing has told more of."""

    def read(source: Source) -> Iterator[Batch]:
        behind = ""
        while ids := _unknown(run, behind):
            yield from _people_batches(run, source.people(ids))
            behind = ids[-1]

    return _read(run, chunk, read)


def _unknown(run: Run, behind: str) -> list[str]:
    def read(connection: Connection) -> list[str]:
        return ledger.unknown_members(connection, run.schema, run.integration_id, behind, _BATCH_PEOPLE)

    return patiently(run, read)


def _people_batches(run: Run, pages: Iterable[Page[Profile]]) -> Iterator[Batch]:
    for group in _grouped(pages, len_of_rows, _BATCH_PEOPLE):
        found, rejects = _all(group)
        made = people.people(found, loads.MEMBERS, group[0].read_at, run.integration_id)
        frames = [
            (loads.MEMBERS, made.members),
            (loads.MEMBER_ATTRIBUTES, made.attributes),
            (loads.SUBSCRIPTION_CHANGES, made.suppressions),
        ]
        rejected = {"members": rejects, "member_attributes": made.rejects}
        yield Batch(frames, rejected, {"members": made.nul_characters})


@task(**_ENDPOINT)
def load_events(run: Run, chunk: Chunk) -> Counts:
    """GET events of the window, with the people in them."""
    metrics = known_metrics(run)

    def read(source: Source) -> Iterator[Batch]:
        known, load = edges.known_people(run.id), person_load(source)
        for pages in _grouped(source.events(chunk.window, chunk.subject, known), len_of_events, _BATCH_ROWS):
            yield event_batch(pages, metrics, run.integration_id, load)

    return _read(run, chunk, read)


def known_metrics(run: Run) -> events.Metrics:
    """What the warehouse knows of the account's metrics."""
    known = patiently(run, lambda connection: ledger.metrics(connection, run.schema, run.integration_id))
    return events.Metrics({row.id: row.name for row in known}, {row.id: row.destination for row in known})


def person_load(source: Source) -> Load:
    """How people on pages of events are loaded."""
    return loads.CONSENTING_EVENT_MEMBERS if source.events_tell_consent else loads.EVENT_MEMBERS


def event_batch(pages: Sequence[EventPage], metrics: events.Metrics, integration_id: str, person: Load) -> Batch:
    """Pages of events as what is to be stored of them; people come last, since other batches may wait for them."""
    found = Events(*(list(chain(*columns)) for columns in zip(*(page.events for page in pages), strict=True)))
    profiles: list[Profile] = [profile for page in pages for profile in page.profiles]
    made = events.event_frames(found, metrics, integration_id)
    met = people.people(profiles, person, pages[0].read_at, integration_id)
    frames = [
        *((loads.EVENTS[table], frame) for table, frame in made.tables.items()),
        (loads.FLOW_CAMPAIGNS, made.flow_campaigns),
        (loads.SUBSCRIPTION_CHANGES, made.subscription_changes),
        (person, met.members),
        (loads.MEMBER_ATTRIBUTES, met.attributes),
    ]
    rejects = {"events": [reject for page in pages for reject in page.rejects], "member_attributes": met.rejects}
    return Batch(frames, rejects, {"events": made.nul_characters, "members": met.nul_characters})


def len_of_rows(page: Page[Any] | MembershipPage) -> int:
    return len(page.rows)


def len_of_events(page: EventPage) -> int:
    return len(page.events.id)


PageType = TypeVar("PageType")


def _grouped(pages: Iterable[PageType], size: Callable[[PageType], int], least: int) -> Iterator[list[PageType]]:
    """Pages, as many together as make a batch of at least so many rows."""
    group: list[PageType] = []
    rows = 0
    for page in pages:
        group.append(page)
        rows += size(page)
        if rows >= least:
            yield group
            group, rows = [], 0
    if group:
        yield group


LOADERS: Mapping[str, Task[..., Counts]] = {
    "metrics": load_metrics,
    "lists": load_lists,
    "segments": load_segments,
    "campaigns": load_campaigns,
    "flows": load_flows,
    "exclusions": load_exclusions,
    "profiles": load_profiles,
    "people": load_people,
    "events": load_events,
}
"""The task that reads a chunk of each kind of stream; members of lists are read by `load_list_members`."""
