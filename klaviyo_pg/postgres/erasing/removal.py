"""Removing an account from all tables, page range by page range. The caller owns the transaction.

The order of the steps is in pipeline.commands.removing. Each can be repeated: deleted rows are not found again.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from psycopg.sql import SQL

from klaviyo_pg.catalogue import TABLES, bookkeeping
from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres import accounts, claims, idle, touched
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erase
from klaviyo_pg.postgres.partitions import Partition, stored_partitions
from klaviyo_pg.postgres.stored_rows import count_rows

CLAIM = "removal"
"""Claimed by the process that removes the account."""
PAGES_AT_ONCE = 512
"""Pages in one transaction: 4 MB, which are about 8,000 events."""

_FIRST = (bookkeeping.BACKFILL_CHUNKS,)  # nothing is loaded for a chunk that is not in the ledger
_LAST = (bookkeeping.TOUCHED, bookkeeping.MART_CHANGES)  # triggers fill them while others are deleted from
_BY_NAME = (bookkeeping.RATE_LIMITS, bookkeeping.PAGE_SIZES)
_OF_ALL = (bookkeeping.SCHEMA_CHANGES,)  # accounts
_OWN = (*_FIRST, *_LAST, *_BY_NAME, *_OF_ALL, bookkeeping.INTEGRATIONS)
_ORDER = (*_FIRST, *(table for table in TABLES if table not in _OWN), *_LAST)

# An index on the account would be read from its beginning for each range.
_BY_PAGE = """
SELECT set_config(name, 'off', true)
FROM unnest('{enable_seqscan, enable_indexscan, enable_indexonlyscan, enable_bitmapscan}'::text[]) AS name
"""
_DELETE = """
DELETE FROM {part} WHERE ctid >= %(start)s::tid AND ctid < %(end)s::tid AND esp_integration_id = %(account)s
"""
_DELETE_REST = "DELETE FROM {} WHERE esp_integration_id = %(account)s"
_DELETE_NAMED = "DELETE FROM {} WHERE integration = %(name)s"


class PageRange(NamedTuple):
    """Some pages of a table or partition: `start`, inclusive, to `end`, exclusive, both counted from 0."""

    part: Partition
    start: int
    end: int


def claim(account: Account, name: str) -> None:
    """Keep runs and erasing of the account out until the transaction ends.

    Raises Busy if any of them is in progress, or if another process removes the account.
    """
    if not claims.try_claim(account, CLAIM, for_transaction=True):
        raise Busy(f"Another process is removing {name}: wait for it to finish, or stop it.")
    idle.keep_runs_out(account, name)
    if not claims.try_claim(account, erase.CLAIM, for_transaction=True):
        raise Busy(f"Another process is erasing people of {name}: wait for it to finish, or stop it.")


def wait_for_last_holders(account: Account) -> None:
    """Wait for transactions of processes that have lost the claims that this one holds now."""
    for what in (CLAIM, *claims.FLOWS, erase.CLAIM):
        claims.wait_for_last_holder(account, what)


def record(account: Account) -> None:
    """Record that removing the account has begun. From then on, no people of it are added to those to erase."""
    erase.lock_people(account)
    accounts.record_removal(account)


def estimate(account: Account) -> Counter[str]:
    """Estimate the rows of the account, by table. Small tables and partitions are counted."""
    return Counter(count_rows(account, _ORDER).by_account.get(account.integration_id))


def ranges(account: Account) -> list[PageRange]:
    """Return the page ranges to delete from, in the order in which to do that."""
    return [
        PageRange(part, start, min(start + PAGES_AT_ONCE, part.pages))
        for part in _parts(account)
        for start in range(0, part.pages, PAGES_AT_ONCE)
    ]


def _parts(account: Account) -> Iterator[Partition]:
    return (part for table in _ORDER for part in stored_partitions(account, table))


def delete(account: Account, pages: PageRange) -> int:
    """Delete the account's rows on some pages, and return their number."""
    account.execute(SQL(_BY_PAGE))
    query = account.compose(_DELETE, part=pages.part.identifier)
    with touched.unrecorded(account):
        return account.execute(query, start=f"({pages.start},0)", end=f"({pages.end},0)").rowcount


def finish(account: Account, name: str) -> None:
    """Delete the account itself, with what is stored by its name, and what triggers have recorded since."""
    for table in _LAST:
        account.execute(_DELETE_REST, table)
    for table in _BY_NAME:
        account.execute(_DELETE_NAMED, table, name=name)
    account.execute(_DELETE_REST, bookkeeping.INTEGRATIONS)
