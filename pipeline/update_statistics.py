"""Statistics of what a run has filled, for Postgres's planner: queries are fast at once, those of the run too."""

from collections.abc import Sequence
from functools import partial

from klaviyo_pg.catalogue import Table
from klaviyo_pg.postgres import table_statistics
from pipeline.job import Job


def update_statistics(job: Job, updated: Sequence[Table] = ()) -> Sequence[Table]:
    """Update the planner's statistics about what the run has filled, except `updated`, unless the run has to stop.

    Returns the tables.
    """
    if job.tally.must_stop:
        return ()
    tables = job.transact(partial(table_statistics.outdated, run_id=job.run.id))
    tables = [table for table in tables if table not in updated]
    if not tables:
        return ()
    with job.session.progress.stage("Statistics for queries", "tables"):
        job.session.progress.expect("tables", "tables", len(tables))
        for table in tables:
            job.transact(partial(table_statistics.analyze, table=table))
            job.session.progress.add("tables", done=1)
    return tables
