"""The metrics that an account has got since an earlier run: noted by the run that stores them."""

from collections.abc import Iterator
from contextlib import contextmanager

from klaviyo_pg.postgres import lookups
from pipeline.job import Job


@contextmanager
def new_metrics_noted(job: Job) -> Iterator[None]:
    """Note which metrics are stored while the block reads them. Those that the first run of an account reads are not.

    A run that stops within the block leaves no note.
    """
    known = {metric.id for metric in job.transact(lookups.metrics)}
    yield
    if not known or job.tally.must_stop:
        return
    new = [metric for metric in job.transact(lookups.metrics) if metric.id not in known]
    if new:
        job.tally.add_new_metrics(sorted(metric.name or metric.id for metric in new))
