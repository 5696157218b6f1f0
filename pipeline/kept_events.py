"""Following EVENTS_SINCE: history that is not kept is not on record as loaded. Reads nothing from the source."""

from datetime import datetime

from klaviyo_pg.postgres import claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger, reconciliation
from pipeline.session import Session


def forget_before(account: Account, session: Session, since: datetime) -> None:
    """Forget that history before a time was loaded and compared, so that a later backfill can load it again.

    Chunks that were planned begin at that time, too. All chunks stay as they are while another process reads some.

    How far daily runs have read stays on record, so they restore what is missing there once it is to be kept again.
    """
    reconciliation.forget_before(account, since)
    if _others_backfill(account, session):
        return
    for chunk in backfill_ledger.forget_before(account, since):
        stored = reconciliation.stored_events(account, chunk.metric_id, chunk.stored)
        backfill_ledger.record_loaded(account, chunk, stored)


def _others_backfill(account: Account, session: Session) -> bool:
    is_elsewhere = "backfill" not in session.claims and claims.held(account, ["backfill"])
    return bool(is_elsewhere or backfill_ledger.parts_alive(account))
