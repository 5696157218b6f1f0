"""The end of a run that has filled tables: statistics for the planner, and stored marts that are out of date."""

from collections.abc import Sequence
from functools import partial

from klaviyo_pg.catalogue import Table
from klaviyo_pg.catalogue.stored_marts import STORED_MARTS
from klaviyo_pg.postgres import stored_marts, table_statistics
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import run_ledger
from pipeline.job import Job


def finish_tables(job: Job) -> None:
    """Update the planner's statistics about what the run has filled, and derive the stored marts again.

    Queries are fast at once then, those that derive the marts too.
    """
    updated = _update_statistics(job)
    renew_marts(job)
    _update_statistics(job, updated)


def _update_statistics(job: Job, updated: Sequence[Table] = ()) -> Sequence[Table]:
    """Update the statistics about what the run has filled, except `updated`, unless the run has to stop.

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


def forget_other_marts(job: Job) -> None:
    """Delete what is stored of marts that STORED_MARTS no longer names."""
    job.transact(partial(stored_marts.forget, chosen=job.run.settings.stored_marts))


def renew_marts(job: Job) -> None:
    """Derive the stored marts again that are out of date, unless the run has to stop. The next run does the rest."""
    outdated = job.transact(partial(_outdated, chosen=job.run.settings.stored_marts))
    if job.tally.must_stop or not outdated:
        return
    with job.session.progress.stage("Stored marts", "tables"):
        for name in outdated:
            job.session.progress.expect(name, name, None)
        for name in outdated:
            job.session.stop.check()
            rows = job.transact(partial(_renew, run_id=job.run.id, name=name))
            job.session.progress.complete(name, 1, rows=rows)
            job.log.info("Derived %s again: %s rows", name, f"{rows:,}")


def _outdated(account: Account, chosen: tuple[str, ...]) -> list[str]:
    stored_marts.choose(account, chosen)
    stored_marts.mark(account)
    return list(stored_marts.outdated(account, chosen))


def _renew(account: Account, run_id: str, name: str) -> int:
    merged = stored_marts.renew(account, name)
    if merged is None:
        return 0
    table = STORED_MARTS[name].table
    run_ledger.add_counts(account, run_id, {table.name: merged.counts})
    return merged.rows
