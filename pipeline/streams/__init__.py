"""STREAMS: every stream of a Klaviyo account, declared once, in the order in which a run reads them."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from klaviyo_pg.catalogue import DATA
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.errors import BadSettings
from pipeline.streams import departures, dimensions, events, exclusions, lists, people
from pipeline.streams.stream import Stream

DIMENSIONS = (
    dimensions.METRICS,
    dimensions.LISTS,
    dimensions.SEGMENTS,
    dimensions.CAMPAIGNS,
    dimensions.FLOWS,
    dimensions.TAGS,
    dimensions.CUSTOM_METRICS,
    dimensions.MAPPED_METRICS,
)
"""The streams that every run reads in full. Metrics and lists come first: the plan of the others depends on them."""
DEPARTURES = (departures.PROFILE_SWEEP, departures.SUSPECTED, departures.OWNERS)
"""The streams that look for profiles that Klaviyo no longer has, in the order in which a daily run reads them."""
STREAMS: Mapping[str, Stream] = MappingProxyType(
    {
        stream.name: stream
        for stream in (
            *DIMENSIONS,
            people.PROFILES,
            events.EVENTS,
            lists.LIST_MEMBERS,
            exclusions.EXCLUSIONS,
            people.PEOPLE,
            *DEPARTURES,
        )
    }
)
_ALWAYS = frozenset({dimensions.METRICS.name, dimensions.LISTS.name})


_EVENT_TABLES = frozenset(table.name for table in EVENT_TABLES)
_ONLY_FROM_EVENTS = events.EVENTS.tables - frozenset[str]().union(
    *(stream.tables for stream in STREAMS.values() if stream is not events.EVENTS)
)
"""The tables that no other stream fills."""


def event_tables_of(tables: Collection[str], lists_people: bool) -> Collection[str] | None:
    """Return the event tables whose metrics have to be read to fill these tables; None if it is all of them.

    Tables that events fill besides, such as subscription_changes, need the events of all metrics. So do members in a
    dialect that does not list people. Everything that an event brings is stored, so that its watermark may advance.
    """
    wanted = frozenset(tables)
    from_events = _ONLY_FROM_EVENTS if lists_people else _ONLY_FROM_EVENTS | people.PROFILES.tables
    if not wanted or wanted >= _EVENT_TABLES or wanted & from_events - _EVENT_TABLES:
        return None
    return wanted & _EVENT_TABLES


def streams_of(tables: Collection[str]) -> frozenset[str]:
    """Return the names of the streams that fill these tables; of all streams if no table is named.

    Raises BadSettings where there is no such table.
    """
    existing = {table.name for table in DATA}
    for name in tables:
        if name not in existing:
            raise BadSettings(f"There is no table {name}. The tables are {', '.join(sorted(existing))}.")
    if not tables:
        return frozenset(STREAMS)
    return _ALWAYS | {stream.name for stream in STREAMS.values() if stream.tables & set(tables)}
