"""The table member_lists, derived from what a run has read."""

from klaviyo_pg.postgres import runs
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.member_lists import derive_member_lists
from pipeline.run import Run, transact
from pipeline.session import Session


def derive(session: Session, run: Run) -> None:
    """Bring member_lists up to date, and count its rows for the run."""

    def work(account: Account) -> int:
        derived = derive_member_lists(account)
        counts = {
            "rows_read": derived.rows_read,
            "inserted": derived.inserted,
            "updated": derived.updated,
            "unchanged": derived.rows_read - derived.inserted - derived.updated,
        }
        runs.add_counts(account, run.id, {"member_lists": counts})
        return derived.rows_read

    session.progress.expect("member_lists", "member_lists", None)
    session.progress.complete("member_lists", 1, rows=transact(session, run, work))
