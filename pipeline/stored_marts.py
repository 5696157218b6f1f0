"""The end of a run that has changed what marts count: those that are stored are derived again."""

from functools import partial

from klaviyo_pg.catalogue.stored_marts import STORED_MARTS
from klaviyo_pg.postgres import run_ledger, stored_marts
from klaviyo_pg.postgres.account import Account
from pipeline.job import Job


def forget_others(job: Job) -> None:
    """Delete what is stored of marts that STORED_MARTS no longer names."""
    job.transact(partial(stored_marts.forget, chosen=job.run.settings.stored_marts))


def renew(job: Job) -> None:
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
