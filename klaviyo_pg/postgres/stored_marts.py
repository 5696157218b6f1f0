"""The stored results of marts (STORED_MARTS): when they are out of date, and deriving them again. The caller owns the
transaction.

Triggers record which tables a transaction changes for which accounts, so that no writer can forget it. A run takes
these records over as marks on the marts that depend on the tables, and then derives the marked ones, each in a
transaction: what happens in between is recorded for the next run.
"""

from collections.abc import Collection
from datetime import timedelta
from hashlib import md5

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier, Literal

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.catalogue.stored_marts import (
    DELIVERABILITY,
    FLOW_PERFORMANCE,
    MEMBER_ENGAGEMENT,
    STORED_MARTS,
    StoredMart,
)
from klaviyo_pg.postgres import claims, triggers
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing.erased_people import block_erasing
from klaviyo_pg.postgres.load import Merged, merge_stored
from klaviyo_pg.postgres.statements import names, qualified
from klaviyo_pg.postgres.triggers import Trigger
from klaviyo_pg.postgres.views import marts, messages, time_zones

WITH_TEXTS = (DELIVERABILITY.name, FLOW_PERFORMANCE.name)
"""Marts that have domains of addresses, or names of messages that were taken from events: both can be of one person."""
_LASTS = timedelta(hours=20)
"""The age at which a result that depends on the present is out of date: less than the time between two daily runs."""
_WORK_MEM = "64MB"  # for each sort and hash table: with Postgres's default, a large account's would not fit
_FUNCTION = "mart_changed"
_BODY = """
BEGIN
    INSERT INTO {changes} (transaction, esp_integration_id, table_name)
    SELECT DISTINCT pg_current_xact_id()::text::bigint, changed.esp_integration_id, TG_TABLE_NAME FROM changed
    WHERE changed.esp_integration_id IS NOT NULL
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
"""
_ROWS = {"INSERT": "NEW TABLE AS changed", "UPDATE": "NEW TABLE AS changed", "DELETE": "OLD TABLE AS changed"}
# No trigger notices that a partition was dropped or a table truncated. Either changes the files.
_FILES = """
SELECT coalesce(string_agg(class.oid || ':' || class.relfilenode, ',' ORDER BY class.oid), '') FROM pg_class AS class
WHERE class.oid IN (
    WITH source AS (
        SELECT source.oid FROM pg_class AS source JOIN pg_namespace AS namespace ON namespace.oid = source.relnamespace
        WHERE nspname = %(schema)s AND relname = ANY(%(tables)s)
    )
    SELECT oid FROM source UNION ALL SELECT inhrelid FROM pg_inherits JOIN source ON source.oid = inhparent
)
"""
_STORED = """
SELECT mart, is_outdated, origin, as_of IS NULL OR as_of < now() - %(lasts)s FROM {}
WHERE esp_integration_id = %(account)s
"""
_CHOOSE = """
INSERT INTO {} (esp_integration_id, mart, is_outdated) SELECT %(account)s, unnest(%(marts)s::text[]), true
ON CONFLICT DO NOTHING
"""
_MARK = "UPDATE {} SET is_outdated = true WHERE esp_integration_id = %(account)s AND mart = ANY(%(marts)s)"
_FORGET = "DELETE FROM {} WHERE esp_integration_id = %(account)s AND mart = %(mart)s"
_OUTDATED = (
    "SELECT mart, xmin::text FROM {} WHERE esp_integration_id = %(account)s AND mart = ANY(%(marts)s) AND is_outdated"
)
_MORE_MEMORY = """
SELECT set_config('work_mem', %(memory)s, true)
WHERE pg_size_bytes(current_setting('work_mem')) < pg_size_bytes(%(memory)s)
"""
# Postgres uses parallel workers for this, but not for an INSERT.
_DERIVE = """
CREATE TEMPORARY TABLE {derived} ON COMMIT DROP AS
SELECT md5(jsonb_build_array(esp_integration_id, {identity})::text) AS key, {columns} FROM {mart}
WHERE esp_integration_id = {account}
"""
_DERIVED = Identifier("pg_temp", "derived_mart")
_WITHOUT_ERASED = """
WHERE NOT EXISTS (
    SELECT FROM {erased} AS erased
    WHERE erased.esp_integration_id = {account} AND erased.member_key = derived_mart.member_key
)
"""
# A mark that has been set again since stays: its change may have been committed after the derivation began.
_RENEWED = """
UPDATE {} SET as_of = now(), is_outdated = xmin::text <> %(version)s, origin = %(origin)s
WHERE esp_integration_id = %(account)s AND mart = %(mart)s
"""


def install(connection: Connection, schema: str) -> None:
    """Create the function and the triggers that are missing or differ.

    If there were any, all stored marts of all accounts are out of date.
    """
    body = SQL(_BODY).format(changes=qualified(schema, bookkeeping.MART_CHANGES)).as_string(None)
    sources = {table.name: table for each in STORED_MARTS.values() for table in each.sources}
    recording = [Trigger(table, event, rows, _FUNCTION) for table in sources.values() for event, rows in _ROWS.items()]
    if triggers.install(connection, schema, {_FUNCTION: body}, recording):
        outdated = SQL("UPDATE {} SET is_outdated = true")
        connection.execute(outdated.format(qualified(schema, bookkeeping.STORED_MARTS)))


def choose(account: Account, chosen: Collection[str]) -> None:
    """Store the marts of these names from now on."""
    account.execute(_CHOOSE, bookkeeping.STORED_MARTS, marts=list(chosen))


def forget(account: Account, chosen: Collection[str]) -> None:
    """Delete what is stored of other marts than these. Waits for their derivations, whose rows would stay."""
    others = "SELECT mart FROM {} WHERE esp_integration_id = %(account)s AND NOT mart = ANY(%(marts)s) ORDER BY 1"
    for name in account.column(others, bookkeeping.STORED_MARTS, marts=list(chosen)):
        _take_turns(account, name)
        account.execute(_FORGET, bookkeeping.STORED_MARTS, mart=name)
        account.execute("DELETE FROM {} WHERE esp_integration_id = %(account)s", STORED_MARTS[name].table)


def mark(account: Account) -> None:
    """Mark the stored marts that are out of date. Writes nothing if nothing has changed.

    A change marks a mart again that is marked already, because it may be being derived without the change.
    """
    take = "DELETE FROM {} WHERE esp_integration_id = %(account)s RETURNING table_name"
    changed = set(account.column(take, bookkeeping.MART_CHANGES))
    stored = account.execute(_STORED, bookkeeping.STORED_MARTS, lasts=_LASTS).fetchall()
    marked = [
        name
        for name, is_outdated, origin, is_old in stored
        if _has_changed(STORED_MARTS[name], changed)
        or (not is_outdated and _is_outdated(account, STORED_MARTS[name], origin, is_old))
    ]
    if marked:
        account.execute(_MARK, bookkeeping.STORED_MARTS, marts=marked)


def _has_changed(stored: StoredMart, changed: Collection[str]) -> bool:
    return any(table.name in changed for table in stored.sources)


def _is_outdated(account: Account, stored: StoredMart, origin: str, is_old: bool) -> bool:
    return (stored.is_of_the_day and is_old) or origin != _origin(account, stored)


def outdated(account: Account, chosen: Collection[str]) -> dict[str, str]:
    """Return the version of the mark of those marts that are marked as out of date, in the order of the catalogue."""
    rows: dict[str, str] = dict(account.execute(_OUTDATED, bookkeeping.STORED_MARTS, marts=list(chosen)).fetchall())
    return {name: rows[name] for name in STORED_MARTS if name in rows}


def _take_turns(account: Account, name: str) -> None:
    claims.take_turns(account, f"stored mart {name}")


def renew(account: Account, name: str) -> Merged | None:
    """Derive a mart again, if it is marked, and write the rows that differ. Return None if it was not marked any more.

    It stays marked if it was marked again since the derivation began. Erasing does not wait for the derivation: people
    who were erased since it began are left out.
    """
    stored = STORED_MARTS[name]
    _take_turns(account, name)
    version = outdated(account, [name]).get(name)
    if version is None:
        return None
    origin = _origin(account, stored)
    account.execute(_MORE_MEMORY, memory=_WORK_MEM)
    account.execute(_derivation(account, stored))
    block_erasing(account.connection, account.schema)
    merged = merge_stored(account, stored.load, _rows(account, stored))
    account.execute(SQL("DROP TABLE {}").format(_DERIVED))
    account.execute(_RENEWED, bookkeeping.STORED_MARTS, origin=origin, mart=name, version=version)
    return merged


def _origin(account: Account, stored: StoredMart) -> str:
    """Return a digest of the queries of a mart, and of the files of the tables that they read."""
    tables = [table.name for table in stored.sources]
    files: str = account.scalar(SQL(_FILES), schema=account.schema, tables=tables)
    queries = (marts.QUERIES[stored.name], messages.query, time_zones.query)
    texts = [query(account.schema).as_string(None) for query in queries]
    return md5("\n".join([*texts, files]).encode()).hexdigest()


def _derivation(account: Account, stored: StoredMart) -> Composed:
    return SQL(_DERIVE).format(
        derived=_DERIVED,
        identity=names(stored.identity),
        columns=names(_columns(stored)),
        mart=account.view(stored.mart),
        account=Literal(account.integration_id),
    )


def _rows(account: Account, stored: StoredMart) -> Composed:
    rows = SQL("SELECT key, {} FROM {}").format(names(_columns(stored)), _DERIVED)
    if stored is not MEMBER_ENGAGEMENT:
        return rows
    erased = SQL(_WITHOUT_ERASED).format(
        erased=account.table(bookkeeping.ERASED), account=Literal(account.integration_id)
    )
    return SQL(" ").join([rows, erased])


def _columns(stored: StoredMart) -> list[str]:
    return [column.name for column in stored.load.columns if column.name != "key"]
