"""Erasing in tests, over one connection."""

from collections.abc import Mapping, Sequence

from klaviyo_pg.postgres.account import Account
from pipeline.erasing import erase_people, in_transactions


def erase(account: Account, email: str | None, member_ids: Sequence[str] = ()) -> Mapping[str, int]:
    """Erase people, identified by an address or by profile IDs, and return the number of affected rows by table."""
    return erase_people(in_transactions(account), [] if email is None else [email], member_ids).rows
