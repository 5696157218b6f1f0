"""Following EVENTS_SINCE: history that is not kept is not on record as loaded. Reads nothing from the source."""

from datetime import datetime

from klaviyo_pg.postgres import backfill_ledger, reconciliation
from klaviyo_pg.postgres.account import Account


def forget_before(account: Account, since: datetime) -> None:
    """Forget that history before a time was loaded and compared, so that a later backfill can load it again.

    How far daily runs have read stays on record, so they restore what is missing there once it is to be kept again.
    """
    reconciliation.forget_before(account, since)
    for chunk in backfill_ledger.forget_before(account, since):
        stored = reconciliation.stored_events(account, chunk.metric_id, chunk.window)
        backfill_ledger.record_loaded(account, chunk, stored)
