"""SQL statements about rows that a complete read lacks, composed from the catalogue. Knows no connection."""

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from klaviyo_pg.catalogue import Absent, Load, Merge, bookkeeping
from klaviyo_pg.postgres.statements import is_future, kept, matches, qualified, stage_name, staged_key


@kept
def retire(schema: str, load: Load) -> Composed:
    """Delete or mark the account's rows that are not in the stage, which contains a complete extraction."""
    table = qualified(schema, load.table)
    where = SQL(" AND ").join([*_present(load), *_absent(schema, load)])
    if load.absent is Absent.DELETE:
        return SQL("DELETE FROM {} AS stored WHERE {}").format(table, where)
    return SQL("UPDATE {} AS stored SET {} = now(), __synced_at = now() WHERE {}").format(table, _mark(load), where)


@kept
def count(schema: str, load: Load) -> Composed:
    """Count the rows that `retire` would delete or mark."""
    return SQL("SELECT count(*) FROM {} AS stored WHERE {}").format(
        qualified(schema, load.table), SQL(" AND ").join([*_present(load), *_absent(schema, load)])
    )


@kept
def keys(schema: str, load: Load) -> Composed:
    """Select as `row_key` the keys of the rows that `retire` would delete or mark. For one key column."""
    [key] = staged_key(load)
    return SQL("SELECT {} AS row_key FROM ({}) AS absent").format(Identifier(key), _absent_keys(schema, load))


@kept
def count_present(schema: str, load: Load) -> Composed:
    """Count the account's rows that can become absent."""
    return SQL("SELECT count(*) FROM {} AS stored WHERE {}").format(
        qualified(schema, load.table), SQL(" AND ").join([*_present(load), *_loaded(load)])
    )


@kept
def present_keys(schema: str, load: Load) -> Composed:
    """Select as `row_key` the keys of the account's rows that can become absent. For one key column."""
    [key] = staged_key(load)
    return SQL("SELECT stored.{} AS row_key FROM {} AS stored WHERE {}").format(
        Identifier(key), qualified(schema, load.table), SQL(" AND ").join([*_present(load), *_loaded(load)])
    )


@kept
def has_present(schema: str, load: Load) -> Composed:
    """Return whether any of the account's rows can become absent, or has been recorded as missing."""
    return SQL(
        "SELECT EXISTS (SELECT FROM {} AS stored WHERE {}) OR EXISTS (SELECT FROM {} WHERE table_name = {}"
        " AND esp_integration_id = %(account)s)"
    ).format(
        qualified(schema, load.table),
        SQL(" AND ").join(_present(load)),
        qualified(schema, bookkeeping.MISSING_ROWS),
        Literal(load.table.name),
    )


def _mark(load: Load) -> Identifier:
    """Return the column that marks absent rows."""
    return Identifier(next(column.name for column in load.table.columns if column.merge is Merge.CLEAR))


def _present(load: Load) -> list[Composable]:
    """Return the conditions of stored rows that can become absent."""
    conditions: list[Composable] = [SQL("stored.esp_integration_id = %(account)s"), *matches(load.absent_where)]
    if load.absent is Absent.MARK:
        conditions.append(SQL("stored.{} IS NULL").format(_mark(load)))
    return conditions


def _absent(schema: str, load: Load) -> list[Composable]:
    """Return the conditions of stored rows that the stage should contain and does not."""
    if load.absent_per is None:
        [key] = staged_key(load)
        return [SQL("stored.{} IN ({})").format(Identifier(key), _absent_keys(schema, load))]
    stage = Identifier("pg_temp", stage_name(load))
    same = SQL(" AND ").join(
        SQL("{} = {}").format(Identifier("stage", name), Identifier("stored", name)) for name in staged_key(load)
    )
    not_staged = SQL("NOT EXISTS (SELECT FROM {} AS stage WHERE {})").format(stage, same)
    return [not_staged, *_loaded(load), *_older(load)]


def _absent_keys(schema: str, load: Load) -> Composed:
    """Return a query for the keys of stored rows that the stage should contain and does not. For one key column.

    EXCEPT looks at each row once. For a table that was just filled, which it takes to have one row, Postgres before
    version 16 would look through the stage for each of its rows.
    """
    [key] = staged_key(load)
    return SQL("SELECT {key} FROM {table} AS stored WHERE {where} EXCEPT SELECT {key} FROM {stage}").format(
        key=Identifier(key),
        table=qualified(schema, load.table),
        where=SQL(" AND ").join([*_present(load), *_loaded(load), *_older(load)]),
        stage=Identifier("pg_temp", stage_name(load)),
    )


def _older(load: Load) -> list[Composable]:
    """Return the condition of stored rows that are not newer than the stage, where the load distinguishes them."""
    if load.newer_by is None:
        return []
    condition, stored = SQL("({0} <= (SELECT min({1}) FROM {2}) OR {3})"), Identifier("stored", load.newer_by)
    stage = Identifier("pg_temp", stage_name(load))
    return [condition.format(stored, Identifier(load.newer_by), stage, is_future(stored))]


def _loaded(load: Load) -> list[Composable]:
    """Return the condition of stored rows that belong to a loaded row, where the load has it."""
    if load.absent_per is None:
        return []
    condition = SQL("stored.{0} IN (SELECT {0} FROM {1})")
    return [condition.format(Identifier(load.absent_per), Identifier("pg_temp", stage_name(load)))]
