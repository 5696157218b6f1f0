"""The end of a run, as far as people are concerned: profiles that are gone, members of lists, and erasing."""

from functools import partial

from klaviyo_pg.errors import Busy, UnconfirmedLoss
from klaviyo_pg.postgres import departures, erase, runs
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.member_lists import derive_member_lists
from pipeline.run import Run, transact
from pipeline.session import Session

_ERASED_AT_ONCE = 100  # people in one transaction, during which nothing else is stored


def derive(session: Session, run: Run) -> UnconfirmedLoss | None:
    """Mark the profiles that are gone, bring member_lists up to date, and count its rows for the run.

    Returns the loss of profiles that a later run has to confirm, if there is one.
    """

    def work(account: Account) -> tuple[UnconfirmedLoss | None, int]:
        loss = departures.apply(account, run.settings.max_loss_percent / 100)
        derived = derive_member_lists(account)
        counts = {
            "rows_read": derived.rows_read,
            "inserted": derived.inserted,
            "updated": derived.updated,
            "unchanged": derived.rows_read - derived.inserted - derived.updated,
        }
        runs.add_counts(account, run.id, {"member_lists": counts})
        return loss, derived.rows_read

    session.progress.expect("member_lists", "member_lists", None)
    loss, rows = transact(session, run, work)
    session.progress.complete("member_lists", 1, rows=rows)
    return loss


def erase_deleted(session: Session, run: Run) -> list[str]:
    """Erase the people whose profile was deleted, if DELETED_PROFILES says so. Return sentences for the message."""
    if run.settings.deleted_profiles != "erase":
        return []
    ids = transact(session, run, departures.to_erase)
    try:
        for start in range(0, len(ids), _ERASED_AT_ONCE):
            some = ids[start : start + _ERASED_AT_ONCE]
            transact(session, run, partial(erase.erase, email=None, member_ids=some))
    except Busy as error:
        return [f"{len(ids)} people who were deleted in Klaviyo are not erased yet. {error}"]
    return [f"Erased {len(ids)} people who were deleted in Klaviyo."] if ids else []
