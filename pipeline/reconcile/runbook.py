"""The runbook of a reconcile run."""

from klaviyo_pg.postgres.ledgers import watermarks
from pipeline import coverage
from pipeline.chunk_reading import read_side_by_side
from pipeline.chunks import Chunk
from pipeline.finish_tables import renew_marts
from pipeline.job import Job
from pipeline.new_metrics import new_metrics_noted
from pipeline.plan import unread_dimension_chunks
from pipeline.reconcile import history
from pipeline.reconcile.check import Rereads, can_count, check, look_up, recent
from pipeline.reconcile.report import Findings, report
from pipeline.streams.dimensions import METRICS
from pipeline.streams.selection import selection_of


def reconcile(job: Job) -> None:
    """Compare counts, read what differs again, once, report what still differs, and publish the coverage.

    The last RECONCILE_DAYS are compared by every run. History before that has its turn within a budget of requests.
    Dimensions that have never been read are read last: the comparison does not need them.
    """
    with new_metrics_noted(job):
        read_side_by_side(job, "Metrics", [Chunk(METRICS.name, marks=(None,))])
    _check(job)
    read_to, streams = job.transact(watermarks.read), selection_of(job.run.settings).streams
    unread = unread_dimension_chunks(read_to, (), job.session.dialect.exclusion_reasons, streams)
    if unread and not job.tally.must_stop:
        read_side_by_side(job, "Lists, campaigns and flows", unread)
    renew_marts(job)
    coverage.publish(job)


def _check(job: Job) -> None:
    job.run.settings.check_reconcile_days()
    if job.tally.must_stop or not can_count(job):
        return
    loaded, findings, rereads = look_up(job), Findings(), Rereads(surplus=True)
    check(job, recent(job, loaded), findings, rereads)
    for scope in history.due(job, loaded):
        if job.tally.must_stop:
            break
        history.record(job, scope, check(job, scope, findings, rereads))
    report(job, loaded.names, findings)
