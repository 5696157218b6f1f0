"""Keeping runs of an account out while something else changes what they depend on. The caller owns the transaction."""

from klaviyo_pg.postgres import claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger


def keep_runs_out(account: Account, name: str) -> None:
    """Keep runs of the account of this name out until the transaction ends.

    Raises Busy if a run, or a part of a distributed backfill, is in progress.
    """
    for flow in claims.FLOWS:
        if not claims.try_claim(account, flow, for_transaction=True):
            raise claims.busy(name, flow)
    if backfill_ledger.parts_alive(account):
        raise claims.busy(name, "backfill_part")
