"""Excluded addresses at the end of a full read, which has collected them in swept_exclusions. The caller owns the
transaction.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from psycopg.sql import SQL, Composed, Literal

from klaviyo_pg.catalogue import Load, dimensions, loads, membership
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.load import INDEXABLE, merge_stored
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.postgres.statements import names

_IS_UNUSABLE = SQL("coalesce(octet_length(member_id) > {}, false)").format(
    Literal(INDEXABLE)
)  # rejected with its batch
_UNUSABLE = """
SELECT EXISTS (SELECT FROM {} WHERE esp_integration_id = %(account)s AND sweep = %(sweep)s AND {is_unusable})
"""
# Of several reasons for one address, the one with the latest time stays; if several have it, the last by name.
_FOUND = """
SELECT DISTINCT ON (_sync_id) {columns} FROM {swept_exclusions}
WHERE esp_integration_id = {account} AND sweep = {sweep} AND NOT {is_unusable}
ORDER BY _sync_id, created_at DESC NULLS LAST, reason COLLATE "C" DESC NULLS LAST
"""
_STORED = """
SELECT count(*) FROM (SELECT FROM {} WHERE esp_integration_id = %(account)s LIMIT %(limit)s) AS stored
"""
_FIRST = """
SELECT min(created_at) FROM {} WHERE esp_integration_id = %(account)s
"""


class Extent(NamedTuple):
    """The number of stored addresses, and the time at which the oldest profile was created."""

    addresses: int
    first_created: datetime | None


def merge(account: Account, sweep: str, is_complete: bool, guard: Guard) -> Mapping[str, Mapping[str, int]]:
    """Merge what a sweep has found, and return the counts by table. If it is complete, addresses that it lacks
    are not excluded any more.

    Raises UnconfirmedLoss if they are more than the guard believes. New addresses have been stored with their batch.
    """
    has_unusable = account.scalar(
        account.compose(_UNUSABLE, membership.SWEPT_EXCLUSIONS, is_unusable=_IS_UNUSABLE), sweep=sweep
    )
    is_complete, counts = is_complete and not has_unusable, {}
    for load in (loads.STG_MEMBER_EXCLUSIONS, loads.MEMBER_EXCLUSIONS):
        merged = merge_stored(account, load, _found(account, load, sweep), is_complete, guard)
        counts[load.table.name] = {"inserted": merged.inserted, "updated": merged.updated}
    staged, used = (counts[table.name] for table in (membership.STG_MEMBER_EXCLUSIONS, membership.MEMBER_EXCLUSIONS))
    staged["rows_read"] = merged.rows
    staged["unchanged"] = merged.rows - staged["inserted"] - staged["updated"]
    used["unchanged"] = -used["inserted"] - used["updated"]
    return counts


def forget(account: Account) -> None:
    """Forget what full reads have found, including interrupted ones."""
    account.execute("DELETE FROM {} WHERE esp_integration_id = %(account)s", membership.SWEPT_EXCLUSIONS)


def extent(account: Account, limit: int) -> Extent:
    """Return how many addresses are stored, up to a limit, and the creation of the oldest profile."""
    stored = account.scalar(_STORED, membership.MEMBER_EXCLUSIONS, limit=limit)
    first = account.scalar(_FIRST, dimensions.MEMBERS)
    return Extent(stored, first)


def _found(account: Account, load: Load, sweep: str) -> Composed:
    return account.compose(
        _FOUND,
        columns=names(column.name for column in load.columns),
        account=Literal(account.integration_id),
        sweep=Literal(sweep),
        is_unusable=_IS_UNUSABLE,
    )
