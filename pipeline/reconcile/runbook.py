"""The runbook of a reconcile run."""

from klaviyo_pg.errors import BadSettings
from pipeline import coverage
from pipeline.chunks import Chunk
from pipeline.job import Job, read
from pipeline.reconcile import history
from pipeline.reconcile.check import Rereads, can_count, check, look_up, recent
from pipeline.reconcile.report import Findings, report
from pipeline.streams.dimensions import METRICS


def reconcile(job: Job) -> None:
    """Compare counts, read what differs again, once, report what still differs, and publish the coverage.

    The last RECONCILE_DAYS are compared by every run. History before that has its turn within a budget of requests.
    """
    read(job, "Metrics", [Chunk(METRICS.name, marks=(None,))])
    _check(job)
    coverage.publish(job)


def _check(job: Job) -> None:
    if not job.run.settings.reconcile_days:
        raise BadSettings("RECONCILE_DAYS is 0, so there is nothing to compare: set the number of days.")
    if job.tally.must_stop or not can_count(job):
        return
    loaded, findings, rereads = look_up(job), Findings(), Rereads(surplus=True)
    check(job, recent(job, loaded), findings, rereads)
    for scope in history.due(job, loaded):
        if job.tally.must_stop:
            break
        history.record(job, scope, check(job, scope, findings, rereads))
    report(job, loaded.names, findings)
