"""The end of a run that has filled tables: Postgres's planner learns about them, so that queries are fast at once."""

from functools import partial

from klaviyo_pg.postgres import planner
from pipeline.job import Job


def update_statistics(job: Job) -> None:
    """Update the planner's statistics about the tables that the run has changed much, unless the run has to stop."""
    if job.tally.must_stop:
        return
    tables = job.transact(partial(planner.outdated, run_id=job.run.id))
    if not tables:
        return
    with job.session.progress.stage("Statistics for queries", "tables"):
        job.session.progress.expect("tables", "tables", len(tables))
        for table in tables:
            job.transact(partial(planner.analyze, table=table))
            job.session.progress.add("tables", done=1)
