"""The selection of tables, and what it means: which streams are read, and the metrics of which event tables."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import MappingProxyType

from klaviyo_pg.catalogue import DATA, membership
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.postgres.lookups import StoredMetric
from klaviyo_pg.settings import Settings
from pipeline.batch import as_written
from pipeline.streams import ALWAYS, REPORTS, STREAMS
from pipeline.streams.dimensions import MAPPED_METRICS
from pipeline.streams.events import EVENTS
from pipeline.streams.lists import LIST_MEMBERS
from pipeline.streams.people import PROFILES
from pipeline.streams.stream import Stream
from transforms.events import implies_change
from transforms.routing import KnownMetric, destinations, selected

_ALL, _DEFAULT = "all", "default"
_EVENT_TABLES = frozenset(table.name for table in EVENT_TABLES)
_NEVER_LEFT_OUT = _EVENT_TABLES | {STREAMS[name].table.name for name in ALWAYS}
"""Tables whose streams are read although TABLES leaves the table out, or which cannot be left out."""
_CONTACTABLE = frozenset({"member_exclusions", "stg_member_exclusions", "unsubscribes"})
"""Tables whose requests show that somebody may not be contacted any more."""
_ALTERNATIVES = MappingProxyType({MAPPED_METRICS.table.name: " Set REPORT_METRIC to leave it out alone."})
"""Advice on leaving out a table without those that need it."""


@dataclass(frozen=True)
class Selection:
    """The tables to fill, by name, and those to leave out. `base` are the streams that are read besides.

    What is read is chosen, not what is stored: a table that fills up with what is read anyway is not kept empty.
    """

    included: frozenset[str]
    excluded: frozenset[str]
    base: frozenset[str]
    all_streams: Mapping[str, Stream]

    @property
    def streams(self) -> frozenset[str]:
        """The names of the streams to read."""
        needed = frozenset[str]().union(*(stream.needs for stream in self._chosen))
        return ALWAYS | needed | {stream.name for stream in self._chosen}

    @property
    def _chosen(self) -> list[Stream]:
        """The streams that are read for their tables, not for others."""
        left_out = self.excluded - _EVENT_TABLES
        return [
            stream
            for name, stream in self.all_streams.items()
            if (name in self.base or stream.tables & self.included) and not stream.leading & left_out
        ]

    @property
    def reads_list_members(self) -> bool:
        """True if the members of lists are read, so that who has left them has to be read as well."""
        return LIST_MEMBERS.name in self.streams

    def dependents(self, streams: Collection[str]) -> list[str]:
        """Return the names of the tables to fill that need one of these streams, in order."""
        return sorted({stream.table.name for stream in self._chosen if not stream.needs.isdisjoint(streams)})

    def event_tables(self, dialect: Dialect) -> frozenset[str] | None:
        """Return the event tables whose metrics have to be read; None if it is all of them.

        Tables that events fill besides, such as subscription_changes, need the events of all metrics. So do members in
        a dialect that does not list people. Everything that an event brings is stored, so that its watermark may
        advance.
        """
        wanted = self._wanted_event_tables(dialect) - self.excluded
        return None if wanted >= _EVENT_TABLES else wanted

    def _wanted_event_tables(self, dialect: Dialect) -> frozenset[str]:
        others = [stream.tables for stream in self.all_streams.values() if stream.name != EVENTS.name]
        only_from_events = EVENTS.tables - frozenset[str]().union(*others)
        from_events = only_from_events if dialect.lists_people else only_from_events | PROFILES.tables
        from_events |= {membership.MEMBER_LISTS.name}  # unsubscribes, and subscriptions that end
        needs_all = EVENTS.name in self.base or bool(self.included & from_events - _EVENT_TABLES)
        return _EVENT_TABLES if needs_all else self.included & _EVENT_TABLES


def selection(names: Collection[str], streams: Mapping[str, Stream] = STREAMS) -> Selection:
    """Return the selection that TABLES describes: names of tables, where a leading - leaves one out.

    `all` stands for all tables, and `default` for those that cost little, to which exclusions alone refer as well.

    Raises BadSettings where there is no such table, or where one cannot be left out.
    """
    check_names([name.removeprefix("-") for name in names if name not in (_ALL, _DEFAULT)])
    excluded = frozenset(name.removeprefix("-") for name in names if name.startswith("-"))
    positive = frozenset(name for name in names if not name.startswith("-"))
    base = frozenset[str]()
    if _ALL in positive:
        base = frozenset(streams)
    elif _DEFAULT in positive or not positive:
        base = frozenset(name for name, stream in streams.items() if not stream.on_request)
    selected = Selection(positive - {_ALL, _DEFAULT}, excluded, base, streams)
    for table in sorted(excluded):
        _check_exclusion(table, selected)
    return selected


def check_names(names: Collection[str]) -> None:
    """Raise BadSettings if there is no table of one of these names."""
    existing = {table.name for table in DATA}
    for name in names:
        if name not in existing:
            raise BadSettings(f"There is no table {name}. {_advice(name, existing)}")


def _advice(table: str, existing: Collection[str]) -> str:
    if nearest := get_close_matches(table.lower(), existing, 1):
        return f"Did you mean {nearest[0]}?"
    return f"The tables are {', '.join(sorted(existing))}."


def selection_of(settings: Settings) -> Selection:
    """Return the selection of the settings. With REPORT_METRIC, reports need no other table to know their metric.

    Raises BadSettings like `selection`.
    """
    if settings.report_metric is None:
        return selection(settings.tables)
    reports = {stream.name: replace(stream, needs=stream.needs - {MAPPED_METRICS.name}) for stream in REPORTS}
    return selection(settings.tables, {**STREAMS, **reports})


def routed(metrics: Sequence[KnownMetric], settings: Settings) -> list[StoredMetric]:
    """Return metrics of the source as they would be stored in a new warehouse."""
    routes = destinations(metrics, {}, settings.destinations)
    return [StoredMetric(metric.id, metric.name, routes[metric.id]) for metric in metrics]


def metrics_to_read(
    stored: Sequence[StoredMetric],
    settings: Settings,
    event_tables: Collection[str] | None,
    with_subscriptions: bool = False,
) -> list[KnownMetric]:
    """Return the existing metrics that METRICS selects and whose events go into one of these tables; None is all.

    `with_subscriptions` adds those whose events say that someone has subscribed or unsubscribed. METRICS can have names
    as Klaviyo shows them. The metrics have them as they are stored.
    """
    written = as_written(settings, (text.removeprefix("-") for text in settings.metrics))
    metrics = [KnownMetric(row.id, written(row.name)) for row in stored]
    wanted = selected(metrics, settings.metrics)
    chosen = {metric.id for metric in (metrics if wanted is None else wanted)}
    if event_tables is not None:
        chosen -= {row.id for row in stored if row.destination not in event_tables}
    if with_subscriptions:
        chosen |= {row.id for row in stored if implies_change(row.name, row.destination)}
    return [KnownMetric(row.id, row.name) for row in stored if row.id in chosen and not row.is_deleted]


def _check_exclusion(table: str, selected: Selection) -> None:
    """Raise BadSettings if leaving out a table would have no effect, or an effect on other tables.

    Raise it also if leaving it out would hide who may not be contacted.
    """
    if table in _CONTACTABLE:
        raise BadSettings(
            f"The table {table} cannot be left out: without it, member_lists would show people who have unsubscribed "
            "or are suppressed as contactable."
        )
    if table in _EVENT_TABLES:
        return
    streams = selected.all_streams.values()
    left_out = selected.excluded - _EVENT_TABLES
    led = {stream.name for stream in streams if table in stream.leading}
    filling = sorted({stream.table.name for stream in streams if table in stream.tables and stream.name not in ALWAYS})
    if led & ALWAYS or not (led or filling):
        raise BadSettings(f"The table {table} cannot be left out: other tables depend on it.")
    if not led and not all(stream.leading & left_out for stream in streams if table in stream.tables):
        advice = "" if _NEVER_LEFT_OUT & set(filling) else f" Leave out {' and '.join(filling)} as well."
        raise BadSettings(
            f"The table {table} cannot be left out alone, because the same requests fill {', '.join(filling)}.{advice}"
        )
    if dependents := selected.dependents(led):
        raise BadSettings(
            f"The table {table} cannot be left out without {' and '.join(dependents)}, for which it is read."
            f"{_ALTERNATIVES.get(table, '')}"
        )
