"""The number of rows of each account in each table, from samples of large tables. The caller owns the transaction."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from psycopg.sql import SQL

from klaviyo_pg.catalogue import Table
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.partitions import stored_partitions

_SAMPLED_PAGES = 1_000  # of a table or partition whose rows are estimated
_COUNT = "SELECT esp_integration_id, count(*) FROM {} TABLESAMPLE SYSTEM (%(percent)s) GROUP BY 1"


class StoredRows(NamedTuple):
    """The rows of each account, by integration ID and table, and the tables in which they are estimated.

    An account that has few rows in such a table can lack a number there.
    """

    by_account: Mapping[str, Counter[str]]
    estimated: frozenset[str]


def count_rows(account: Account, tables: Iterable[Table]) -> StoredRows:
    """Return the rows of all accounts in the warehouse of this one. Small tables and partitions are counted."""
    by_account: defaultdict[str, Counter[str]] = defaultdict(Counter)
    estimated: set[str] = set()
    for part in (part for table in tables for part in stored_partitions(account, table) if part.pages):
        share = min(1.0, _SAMPLED_PAGES / part.pages)
        for integration_id, rows in account.execute(SQL(_COUNT).format(part.identifier), percent=100 * share):
            by_account[integration_id][part.table.name] += round(rows / share)
        if share < 1:
            estimated.add(part.table.name)
    return StoredRows(by_account, frozenset(estimated))
