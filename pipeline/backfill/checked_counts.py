"""The source's counts as a backfill uses them. A count of 0 is checked, because it means that nothing is read."""

from collections.abc import Iterable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from klaviyo_pg.errors import KlaviyoPgError, Refused, Stopped, Throttled, UserError
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.rows import Beginning, Count
from klaviyo_pg.windows import Window
from pipeline.outage import Outage

FAILURES = 2
"""Consecutive failures of the API after which no more first events are asked for."""
Chunks = tuple[BackfillChunk, ...]


class PlannedChunks(NamedTuple):
    """Chunks to read, and the reasons why the source could not count some metrics, by ID."""

    chunks: Chunks
    reasons: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def joined(cls, parts: Iterable["PlannedChunks"]) -> "PlannedChunks":
        """Join results."""
        all_parts = list(parts)
        reasons = {metric_id: reason for part in all_parts for metric_id, reason in part.reasons.items()}
        return cls(tuple(chain.from_iterable(part.chunks for part in all_parts)), reasons)


def checked_counts(source: Source, metric_id: str, window: Window, outage: Outage) -> list[Count]:
    """Return the counts of a window that can be counted with one request.

    Raises Refused if the source does not count the metric, or counts nothing although it has events.
    """
    counts = list(source.counts(metric_id, window))
    if not counts and _has_events(source, metric_id, window, outage):
        raise Refused("The source counts 0 events where it has some.")
    return counts


def _has_events(source: Source, metric_id: str, window: Window, outage: Outage) -> bool:
    """Ask for the first event. If the API does not answer, the count is all there is; a later run checks it again."""
    beginning = first_event(source, metric_id, window, outage)
    return beginning is not None and beginning.first is not None


def first_event(source: Source, metric_id: str, window: Window, outage: Outage) -> Beginning | None:
    """Find the first event of a metric in a window. Return None if the first page does not show it.

    Also returns None while the API is unavailable, without asking once the outage is known.
    """
    if outage.error:
        return None
    try:
        beginning = source.beginning(metric_id, window)
    except (UserError, Stopped, Throttled):
        raise
    except KlaviyoPgError as error:
        outage.failed(error)
        return None
    outage.succeeded()
    return beginning
