"""The runbook of a reconcile run."""

from klaviyo_pg.postgres import watermarks as ledger
from pipeline import coverage
from pipeline.chunks import Chunk
from pipeline.job import Job, read
from pipeline.plan import unread_dimension_chunks
from pipeline.reconcile import check
from pipeline.run import transact
from pipeline.streams.dimensions import METRICS


def reconcile(job: Job) -> None:
    """Compare counts for RECONCILE_DAYS, read what differs again, and publish the coverage.

    Dimensions that have never been read are read last: the comparison does not need them.
    """
    read(job, "Metrics", [Chunk(METRICS.name, marks=(None,))])
    check.reconcile(job)
    unread = unread_dimension_chunks(transact(job.session, job.run, ledger.watermarks), ())
    if unread and not job.tally.must_stop:
        read(job, "Lists, campaigns and flows", unread)
    coverage.publish(job)
