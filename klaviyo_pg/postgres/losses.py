"""Losses: stored rows that a full read no longer contains. A large one counts only once a later run finds it as well.

Knows no table: callers pass the queries that find missing rows. The caller owns the transaction.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Self

from klaviyo_pg.catalogue import Table, bookkeeping
from klaviyo_pg.errors import UnconfirmedLoss
from klaviyo_pg.postgres.account import Account, Statement

LEAST = 10
"""Rows that a loss must have to be doubted: of a few rows, a large share is lost by deleting two or three."""
_OF_TABLE = "esp_integration_id = %(account)s AND stream = %(stream)s AND table_name = %(table_name)s"
_COUNT = f"""
WITH missing AS MATERIALIZED ({{missing}}), confirmed AS (
    SELECT row_key FROM {{}} WHERE {_OF_TABLE} AND missed_at < %(started)s
)
SELECT (SELECT count(*) FROM missing),
    (SELECT count(*) FROM (SELECT row_key FROM missing EXCEPT SELECT row_key FROM confirmed) AS unconfirmed),
    ({{stored}})
"""
_FORGET_OTHERS = f"""
DELETE FROM {{table}} WHERE {_OF_TABLE} AND row_key IN (
    SELECT row_key FROM ({{among}}) AS among EXCEPT SELECT row_key FROM ({{missing}}) AS missing
)
"""
_FORGET = f"DELETE FROM {{table}} WHERE {_OF_TABLE} AND row_key IN ({{among}})"
_RECORDED = f"SELECT row_key FROM {{}} WHERE {_OF_TABLE}"
_RECORD = """
INSERT INTO {} (esp_integration_id, stream, table_name, row_key, missed_at)
SELECT %(account)s, %(stream)s, %(table_name)s, row_key, now() FROM ({missing}) AS missing
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True)
class Guard:
    """The limit of what a full read of a stream may lose.

    `share` is the share of the stored rows, from 0 to 1. Only rows that were recorded as missing before `started`, the
    start of the run, are confirmed. Unless a guard `believes_losses`, it only records large ones for a later run.
    """

    stream: str
    share: float
    started: datetime
    believes_losses: bool = True

    def believing_no_losses(self) -> Self:
        """Return the guard of a read whose loss is not believed."""
        return replace(self, believes_losses=False)


class Missing(NamedTuple):
    """The rows of a table that a read lacks: a query that selects their `row_key`, and one that counts stored rows.

    `among` selects the `row_key` of the stored rows that the read was about; None: all.
    """

    table: Table
    rows: Statement
    stored: Statement
    among: Statement | None = None


class Loss(NamedTuple):
    """The number of missing rows, and if they may be marked or deleted."""

    rows: int
    is_believed: bool


def is_believed(account: Account, guard: Guard, missing: Missing, **values: object) -> bool:
    """Return whether missing rows may be marked or deleted, as `judge` does."""
    return judge(account, guard, missing, **values).is_believed


def judge(account: Account, guard: Guard, missing: Missing, **values: object) -> Loss:
    """Return how many rows are missing, and whether to believe it. `values` are those that the queries need.

    Raises UnconfirmedLoss if they are too many to believe, and the guard believes losses at all.
    """
    values |= {"stream": guard.stream, "table_name": missing.table.name, "started": guard.started}
    query = account.compose(_COUNT, bookkeeping.MISSING_ROWS, missing=missing.rows, stored=missing.stored)
    row = account.execute(query, **values).fetchone()
    assert row is not None
    lost, unconfirmed, stored = row
    is_large = unconfirmed >= LEAST and unconfirmed > guard.share * stored
    if is_large and guard.believes_losses:
        raise UnconfirmedLoss(guard.stream, lost, stored)
    if is_large:
        _record(account, missing, values)
    elif guard.believes_losses:
        _forget(account, missing, values)
    return Loss(lost, guard.believes_losses)


def _record(account: Account, missing: Missing, values: dict[str, object]) -> None:
    """Record the rows that are missing now. Those that were missing before keep their time."""
    table, among = account.table(bookkeeping.MISSING_ROWS), _among(account, missing)
    account.execute(account.compose(_FORGET_OTHERS, table=table, among=among, missing=missing.rows), **values)
    account.execute(account.compose(_RECORD, bookkeeping.MISSING_ROWS, missing=missing.rows), **values)


def _forget(account: Account, missing: Missing, values: dict[str, object]) -> None:
    """Forget what was recorded of the rows that a read was about."""
    table = account.table(bookkeeping.MISSING_ROWS)
    account.execute(account.compose(_FORGET, table=table, among=_among(account, missing)), **values)


def _among(account: Account, missing: Missing) -> Statement:
    return missing.among or account.compose(_RECORDED, bookkeeping.MISSING_ROWS)
