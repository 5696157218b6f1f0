"""The runbook of a reconcile run."""

from pipeline import coverage
from pipeline.chunks import Chunk
from pipeline.job import Job, read
from pipeline.reconcile import check
from pipeline.streams.dimensions import METRICS


def reconcile(job: Job) -> None:
    """Compare counts for RECONCILE_DAYS, read what differs again, and publish the coverage."""
    read(job, "Metrics", [Chunk(METRICS.name, marks=(None,))])
    check.reconcile(job)
    coverage.publish(job)
