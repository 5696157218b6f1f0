"""The unit that brings member_lists up to date at the end of a run, after the profiles that are gone were marked."""

from klaviyo_pg.errors import UnconfirmedLoss
from klaviyo_pg.postgres import departures
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import run_ledger, watermarks
from klaviyo_pg.postgres.member_lists import Derived, derive_member_lists
from pipeline.runs import Run, transact
from pipeline.session import Session
from pipeline.streams.exclusions import EXCLUSIONS


def derive(session: Session, run: Run) -> UnconfirmedLoss | None:
    """Mark the profiles that are gone, bring member_lists up to date, and count its rows for the run.

    It is not derived before all exclusions were read once: people who are excluded would seem to be contactable.
    Returns the loss of profiles that a later run has to confirm, if there is one.
    """
    has_status = session.dialect.looks_up_memberships

    def work(account: Account) -> tuple[UnconfirmedLoss | None, int]:
        loss = departures.apply(account, run.settings.max_loss_percent / 100)
        has_exclusions = watermarks.find(account, EXCLUSIONS.name) is not None
        derived = derive_member_lists(account, has_status=has_status) if has_exclusions else Derived(0, 0, 0)
        counts = {
            "rows_read": derived.rows_read,
            "inserted": derived.inserted,
            "updated": derived.updated,
            "unchanged": derived.rows_read - derived.inserted - derived.updated,
        }
        run_ledger.add_counts(account, run.id, {"member_lists": counts})
        return loss, derived.rows_read

    session.progress.expect("member_lists", "member_lists", None)
    loss, rows = transact(session, run, work)
    session.progress.complete("member_lists", 1, rows=rows)
    return loss
