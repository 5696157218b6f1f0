"""STREAMS: every stream of a Klaviyo account, declared once, in the order in which a run reads them."""

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.streams import (
    content,
    departures,
    dimensions,
    events,
    exclusions,
    lists,
    on_request,
    people,
    reports,
    segments,
)
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
    *on_request.DIMENSIONS,
)
"""The streams that a run reads in full and stores at once. Metrics and lists come first, because the plan of the others
depends on them."""
DEPARTURES = (departures.PROFILE_SWEEP, departures.SUSPECTED, departures.OWNERS)
"""The streams that look for profiles that Klaviyo no longer has, in the order in which a daily run reads them."""
REPORTS = (reports.CAMPAIGN_REPORTS, reports.FLOW_REPORTS)
"""The reports, which a daily run reads last, because their rate limit makes them slow."""
STREAMS: Mapping[str, Stream] = MappingProxyType(
    {
        stream.name: stream
        for stream in (
            *DIMENSIONS,
            people.PROFILES,
            events.EVENTS,
            lists.LIST_MEMBERS,
            segments.SEGMENT_MEMBERS,
            exclusions.EXCLUSIONS,
            *content.STREAMS,
            *on_request.STREAMS,
            people.PEOPLE,
            *DEPARTURES,
            *REPORTS,
        )
    }
)
ALWAYS = frozenset({dimensions.METRICS.name, dimensions.LISTS.name})
"""The streams that every run reads, because the plan of the others depends on them."""
