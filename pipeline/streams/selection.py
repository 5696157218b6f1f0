"""The selection of tables, and what it means: which streams are read, and the metrics of which event tables."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from klaviyo_pg.catalogue import DATA, membership
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres.lookups import StoredMetric
from klaviyo_pg.settings import Settings
from pipeline.streams import ALWAYS, STREAMS
from pipeline.streams.events import EVENTS
from pipeline.streams.people import PROFILES
from pipeline.streams.stream import Stream
from transforms.routing import KnownMetric, selected

_ALL, _DEFAULT = "all", "default"
_EVENT_TABLES = frozenset(table.name for table in EVENT_TABLES)
_CONTACTABLE = frozenset({"member_exclusions", "stg_member_exclusions", "unsubscribes"})
"""Tables whose requests show that somebody may not be contacted any more."""


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
        chosen = self.base | {name for name, stream in self.all_streams.items() if stream.tables & self.included}
        left_out = {
            name for name, stream in self.all_streams.items() if stream.leading & (self.excluded - _EVENT_TABLES)
        }
        needed = {each for name in chosen - left_out for each in self.all_streams[name].needs}
        return ALWAYS | ((chosen | needed) - left_out)

    def event_tables(self, lists_people: bool) -> frozenset[str] | None:
        """Return the event tables whose metrics have to be read; None if it is all of them.

        Tables that events fill besides, such as subscription_changes, need the events of all metrics. So do members in
        a dialect that does not list people. Everything that an event brings is stored, so that its watermark may
        advance.
        """
        wanted = self._wanted_event_tables(lists_people) - self.excluded
        return None if wanted >= _EVENT_TABLES else wanted

    def _wanted_event_tables(self, lists_people: bool) -> frozenset[str]:
        others = [stream.tables for stream in self.all_streams.values() if stream.name != EVENTS.name]
        only_from_events = EVENTS.tables - frozenset[str]().union(*others)
        from_events = only_from_events if lists_people else only_from_events | PROFILES.tables
        from_events |= {membership.MEMBER_LISTS.name}  # unsubscribes, and subscriptions that end
        needs_all = EVENTS.name in self.base or bool(self.included & from_events - _EVENT_TABLES)
        return _EVENT_TABLES if needs_all else self.included & _EVENT_TABLES


def selection(names: Collection[str], streams: Mapping[str, Stream] = STREAMS) -> Selection:
    """Return the selection that TABLES describes: names of tables, where a leading - leaves one out.

    `all` stands for all tables, and `default` for those that cost little, to which exclusions alone refer as well.

    Raises BadSettings where there is no such table, or where one cannot be left out.
    """
    _check_names(names)
    excluded = frozenset(name.removeprefix("-") for name in names if name.startswith("-"))
    positive = frozenset(name for name in names if not name.startswith("-"))
    base = frozenset[str]()
    if _ALL in positive:
        base = frozenset(streams)
    elif _DEFAULT in positive or not positive:
        base = frozenset(name for name, stream in streams.items() if not stream.on_request)
    for table in sorted(excluded):
        _check_exclusion(table, excluded, streams)
    return Selection(positive - {_ALL, _DEFAULT}, excluded, base, streams)


def selection_of(settings: Settings) -> Selection:
    """Return the selection of the settings. Raises BadSettings like `selection`."""
    return selection(settings.tables)


def metrics_to_read(
    stored: Sequence[StoredMetric], settings: Settings, event_tables: Collection[str] | None
) -> list[KnownMetric]:
    """Return the existing metrics that METRICS selects and whose events go into one of these tables; None is all."""
    metrics = [KnownMetric(row.id, row.name) for row in stored]
    wanted = selected(metrics, settings.metrics)
    routed = {row.id for row in stored if event_tables is None or row.destination in event_tables}
    existing = routed & {row.id for row in stored if not row.is_deleted}
    return [metric for metric in (metrics if wanted is None else wanted) if metric.id in existing]


def _check_names(names: Collection[str]) -> None:
    existing = {table.name for table in DATA}
    for name in names:
        table = name.removeprefix("-")
        if table not in existing and name not in (_ALL, _DEFAULT):
            raise BadSettings(f"There is no table {table}. The tables are {', '.join(sorted(existing))}.")


def _check_exclusion(table: str, excluded: frozenset[str], streams: Mapping[str, Stream]) -> None:
    """Raise BadSettings if leaving out a table would have no effect, or would hide who may not be contacted."""
    if table in _CONTACTABLE:
        raise BadSettings(
            f"The table {table} cannot be left out: without it, member_lists would show people who have unsubscribed "
            "or are suppressed as contactable."
        )
    led = [name for name, stream in streams.items() if table in stream.leading]
    kept = [stream for stream in streams.values() if not stream.on_request and not stream.leading & excluded]
    needed = {name for stream in kept for name in stream.needs}
    if table in _EVENT_TABLES or (led and not (ALWAYS | needed) & set(led)):
        return
    filling = sorted(
        {stream.table.name for stream in streams.values() if table in stream.tables and stream.name not in ALWAYS}
    )
    if led or not filling:
        raise BadSettings(f"The table {table} cannot be left out: other tables depend on it.")
    raise BadSettings(
        f"The table {table} cannot be left out alone, because the same requests fill {', '.join(filling)}."
    )
