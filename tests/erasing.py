"""Erasing in tests, over one connection."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from klaviyo_pg.postgres.account import Account
from pipeline.erasing import ErasedCounts, OnProgress, Transact, erase_people, in_transactions


def erase(account: Account, email: str | None, member_ids: Sequence[str] = ()) -> Mapping[str, int]:
    """Erase people, identified by an address or by profile IDs, and return the number of affected rows by table."""
    return erase_with(in_transactions(account), [] if email is None else [email], member_ids).rows


def erase_with(
    transact: Transact,
    addresses: Sequence[str] = (),
    member_ids: Sequence[str] = (),
    report: OnProgress = lambda step, done, total: None,
) -> ErasedCounts:
    """Erase people where no other process does."""
    done = erase_people(transact, lambda: nullcontext(transact), addresses, member_ids, report)
    assert done is not None
    return done
