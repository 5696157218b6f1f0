"""The plan of a run, made from what the warehouse knows."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from psycopg import Connection

from klaviyo_pg.errors import KlaviyoPgError, MissingScope
from klaviyo_pg.postgres import ledger, reconciliation
from tasks import edges
from tasks.plan import Chunk, Horizon, event_chunks, membership_chunks, profile_chunks
from tasks.reading import Problems
from tasks.run import Run, patiently
from transforms.routing import KnownMetric, selected

_SCOPE = "metrics:read"  # for metrics and for counts of their events


def plan(run: Run, streams: frozenset[str], since: datetime | None, problems: Problems) -> list[list[Chunk]]:
    """The chunks behind the dimensions (events, profiles, list members), in phases of which each needs the one before.

    None where the settings do not allow any, or where what they are made of could not be read; `problems` tells why.
    """
    if problems.stop:
        return []
    try:
        return _plan(run, streams, since, problems)
    except KlaviyoPgError as error:
        problems.add(error)
        return []


def compares_counts(run: Run, problems: Problems) -> bool:
    """Whether this run may ask the source for its counts, so that a long overlap is not needed."""
    missing = {error.scope for error in problems.skipped if isinstance(error, MissingScope)}
    return run.settings.reconcile_days > 0 and _SCOPE not in missing


def _plan(run: Run, streams: frozenset[str], since: datetime | None, problems: Problems) -> list[list[Chunk]]:
    settings, source = run.settings, edges.source(run.settings)
    can_count = compares_counts(run, problems)

    def read(connection: Connection) -> tuple[list[ledger.KnownMetric], list[str], Mapping[str, datetime], set[str]]:
        return (
            ledger.metrics(connection, run.schema, run.integration_id),
            ledger.list_ids(connection, run.schema, run.integration_id),
            ledger.watermarks(connection, run.schema, run.integration_id),
            reconciliation.counted_metrics(connection, run.schema, run.integration_id) if can_count else set(),
        )

    known, lists, watermarks, counted = patiently(run, read)
    metrics = [KnownMetric(row.id, row.name) for row in known]
    lookback, blind = timedelta(days=settings.lookback_days), timedelta(days=settings.blind_lookback_days)
    horizon = Horizon(run.as_of, lookback, timedelta(days=settings.first_sync_days), since)
    chunks: list[Chunk] = []
    if "profiles" in streams:
        chunks += profile_chunks(watermarks)  # first, since it is read in one sequence
    if "events" in streams:
        if not metrics:
            problems.add(MissingScope(_SCOPE))
        wanted = selected(metrics, settings.metrics) if metrics else []
        there = {row.id for row in known if not row.is_deleted}
        ids = [metric.id for metric in (metrics if wanted is None else wanted) if metric.id in there]
        all_at_once = wanted is None and source.reads_all_metrics_at_once
        lookbacks = {each: blind for each in ids if each not in counted}
        planned = event_chunks(ids, watermarks, horizon, all_at_once, lookbacks)
        chunks += reversed(list(planned))  # the newest first
    sweep_every = timedelta(days=settings.membership_sweep_days)
    members = membership_chunks(lists, watermarks, blind, run.as_of, sweep_every) if "list_members" in streams else ()
    people = [Chunk("people")] if "profiles" in streams else []
    if source.looks_up_memberships:
        return [chunks, list(members), people]
    return [[*chunks, *members], people]
