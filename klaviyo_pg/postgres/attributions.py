"""Keeping the stored attributions those of the stored events. The caller owns the transaction."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import polars as pl
from psycopg.sql import Identifier

from klaviyo_pg.catalogue import Load, attribution
from klaviyo_pg.postgres import statements
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.lines import frame_of, times_of
from klaviyo_pg.rows import Lines

_TABLE = attribution.EVENT_ATTRIBUTIONS
_FORGET = "DELETE FROM {} WHERE event_at = %(event_at)s AND event_key = %(key)s"
_TOUCH = "UPDATE {} SET __synced_at = now() WHERE event_at = %(event_at)s AND key = %(event_key)s"
_ANY = """
SELECT EXISTS (SELECT FROM {} WHERE event_at BETWEEN %(first)s AND %(last)s AND esp_integration_id = %(account)s)
"""
# OFFSET 0 makes Postgres look up each event in the index.
_STORED = """
SELECT attribution.event_at, attribution.event_key, attribution.key, attribution.extracted_at, {is_future} AS is_wrong
FROM (
    SELECT at, key COLLATE "C" AS key FROM unnest(%(times)s::timestamptz[], %(keys)s::text[]) AS read (at, key)
) AS event CROSS JOIN LATERAL (
    SELECT * FROM {table} AS stored WHERE stored.event_at = event.at AND stored.event_key = event.key OFFSET 0
) AS attribution
"""


class _Stored(NamedTuple):
    """A stored attribution, when it was extracted, and whether that time is wrong because a clock was ahead."""

    event_at: datetime
    event_key: str
    key: str
    extracted_at: datetime
    is_wrong: bool


def forget(account: Account, events: Iterable[Mapping[str, object]]) -> None:
    """Delete the attributions of events that are no longer stored with these values of `event_at` and `key`."""
    account.execute_many(_FORGET, events, _TABLE)


def delete_withdrawn(account: Account, load: Load, events: pl.DataFrame | Lines, kept: frozenset[str]) -> None:
    """Delete the attributions of events that the source has returned again without them.

    `kept` are the keys of those that it has returned. One that was extracted later than its event was read stays. The
    events count as written, so that whoever follows changed rows sees that they lost an attribution.
    """
    times = times_of(events).get_column("event_at")
    if not len(events) or not _has_any(account, times):
        return
    gone = [row for row in _stored(account, times, _keys(events)) if row.key not in kept]
    if not gone:
        return
    read = frame_of(load, events) if isinstance(events, Lines) else events
    read_at = dict(read.select("key", "extracted_at").iter_rows())
    withdrawn = [row for row in gone if row.is_wrong or row.extracted_at <= read_at[row.event_key]]
    rows = [row._asdict() for row in withdrawn]
    account.execute_many(statements.delete_row(account.schema, _TABLE), rows)
    account.execute_many(_TOUCH, rows, load.table)


def _keys(events: pl.DataFrame | Lines) -> list[str]:
    return list(events.each_key()) if isinstance(events, Lines) else events.get_column("key").to_list()


def _has_any(account: Account, times: pl.Series) -> bool:
    """Return whether any attribution is stored of events in this time."""
    return account.is_true(_ANY, _TABLE, first=times.min(), last=times.max())


def _stored(account: Account, times: pl.Series, keys: list[str]) -> list[_Stored]:
    is_future = statements.is_future(Identifier("attribution", "extracted_at"))
    query = account.compose(_STORED, table=account.table(_TABLE), is_future=is_future)
    return account.select(_Stored, query, times=times.to_list(), keys=keys)
