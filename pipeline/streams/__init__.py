"""STREAMS: every stream of a Klaviyo account, declared once, in the order in which a run reads them."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from klaviyo_pg.catalogue import DATA
from klaviyo_pg.errors import BadSettings
from pipeline.streams import departures, dimensions, events, lists, people
from pipeline.streams.stream import Stream

DIMENSIONS = (
    dimensions.METRICS,
    dimensions.LISTS,
    dimensions.SEGMENTS,
    dimensions.CAMPAIGNS,
    dimensions.FLOWS,
    dimensions.EXCLUSIONS,
)
"""The streams that every run reads in full. Metrics and lists come first: the plan of the others depends on them."""
DEPARTURES = (departures.PROFILE_SWEEP, departures.SUSPECTED, departures.OWNERS)
"""The streams that look for profiles that Klaviyo no longer has, in the order in which a daily run reads them."""
STREAMS: Mapping[str, Stream] = MappingProxyType(
    {
        stream.name: stream
        for stream in (*DIMENSIONS, people.PROFILES, events.EVENTS, lists.LIST_MEMBERS, people.PEOPLE, *DEPARTURES)
    }
)
_ALWAYS = frozenset({dimensions.METRICS.name, dimensions.LISTS.name})


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
