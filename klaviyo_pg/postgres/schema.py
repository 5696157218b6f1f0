"""Upgrading a warehouse to the catalogue. Creates what is missing; drops and rewrites nothing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from hashlib import md5
from typing import NamedTuple

from psycopg import Connection, errors
from psycopg.sql import SQL, Composed, Identifier, Literal

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import TABLES, VIEWS, Table, View, bookkeeping, events, membership
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import definitions, partitions, queries, schema_changes, stored_marts, touched
from klaviyo_pg.postgres.patience import OnProgress
from klaviyo_pg.postgres.schema_changes import SchemaChange
from klaviyo_pg.postgres.schema_lock import change_patiently, changing
from klaviyo_pg.postgres.statements import place, qualified, shown
from klaviyo_pg.postgres.views import (
    all_events,
    contactable,
    freshness,
    marts,
    messages,
    push_tokens,
    revenue,
    time_zones,
)
from klaviyo_pg.settings import Settings

_COLUMNS = """
    SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
"""
_LOGGED = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(%s) AND c.relkind = 'r' AND c.relpersistence = 'p'
"""
_INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = ANY(%s)"
# Both definitions as Postgres formats them; null if the view does not exist yet.
_DEFINITIONS = """
    SELECT pg_get_viewdef(to_regclass(%s)), pg_get_viewdef('pg_temp.defined'::regclass)
"""
# The definition as it is stored, and the comment that says from which query it was made. A view that someone has
# replaced keeps the comment.
_RECORDED = """
    SELECT c.relname, md5(r.ev_action::text), d.description, pg_has_role(c.relowner, 'USAGE')
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_description d ON d.classoid = 'pg_rewrite'::regclass AND d.objoid = r.oid
    WHERE n.nspname = %s AND c.relkind = 'v' AND r.rulename = '_RETURN'
"""
_RECORD = "klaviyo-pg:"
_VIEW_COLUMNS = """
    SELECT c.relname, array_agg(a.attname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE n.nspname = %s AND c.relkind = 'v' GROUP BY 1
"""
_COMMENTS = """
    SELECT c.relname, a.attname, d.description
    FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
    WHERE d.classoid = 'pg_class'::regclass AND n.nspname = ANY(%s) AND c.relkind IN ('r', 'p', 'v')
"""
_QUERIES = {
    "freshness": freshness.query,
    "all_events": all_events.query,
    "messages": messages.query,
    "attributed_revenue": revenue.query,
    "account_time_zones": time_zones.query,
    **marts.QUERIES,
    "usable_push_tokens": push_tokens.query,
    "contactable": contactable.query,
}
_PRIMARY_KEYS = """
    SELECT t.relname, array_agg(a.attname::text ORDER BY k.position)
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum
    WHERE n.nspname = %s AND i.indisprimary GROUP BY 1
"""
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)"
_MAY_CREATE = "SELECT has_database_privilege(current_database(), 'CREATE'), current_user"
_TABLE_EXISTS = "SELECT to_regclass(%s) IS NOT NULL"
Place = tuple[str, str]
"""The schema and the name of a table."""
Existing = Mapping[Place, Mapping[str, str]]
"""The types of the columns in the database, by the place of the table and the name of the column."""
Comments = Mapping[tuple[str, str | None], str]
"""The comments in the database, by name of table or view, and of column; None stands for the table or view itself."""


class Storage(NamedTuple):
    """The storage of event tables: in partitions by month or as a whole, and with which indexes of EVENT_INDEXES.

    `stores_marts` says that changes of what marts count are recorded.
    """

    by_month: bool = False
    indexes: tuple[str, ...] = ()
    stores_marts: bool = False


PLAIN = Storage()


def storage_of(settings: Settings) -> Storage:
    """Return how event tables are to be stored."""
    return Storage(settings.event_partitions == "month", settings.event_indexes, bool(settings.stored_marts))


def upgrade(connection: Connection, schema: str, storage: Storage = PLAIN) -> list[SchemaChange]:
    """Create the schemas, tables, columns, indexes, triggers and views that are missing, and set comments that differ.

    Return, and record in `schema_changes`, what that changes for readers; nothing if the warehouse is new.

    Internal tables that an earlier version created in the schema `schema` are moved into the one for them. Everything
    happens in the caller's transaction. A warehouse that is up to date is not written to. `storage` says how event
    tables are created; those that are partitioned already stay so.

    Raises DatabaseUnusable if the user may not create a schema; if a column of the catalogue has a different type, or
    an internal table is in both schemas, because only the owner can decide what to do about it; and where rebuilding
    large tables is necessary, which a separate command does. Raises TablesInUse, and changes nothing, if another
    session uses a table that has to be changed: all who came later would have to wait as well.
    """
    with changing(connection, schemas.both(schema)):
        return _upgrade(connection, schema, storage)


def upgrade_patiently(connection: Connection, schema: str, storage: Storage, report: OnProgress) -> list[SchemaChange]:
    """Upgrade in one transaction. While tables are in use, let others use them, and try again.

    Raises TablesInUse if they are in use for minutes, and DatabaseUnusable as `upgrade` does.
    """
    return change_patiently(connection, partial(upgrade, connection, schema, storage), report)


def _upgrade(connection: Connection, schema: str, storage: Storage) -> list[SchemaChange]:
    for name in _missing_schemas(connection, schema):
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
    existing = _with_internal_moved(connection, schema, columns(connection, schema))
    check_storage(connection, schema, storage)
    _check_keys(connection, schema)
    changes = list(schema_changes.of_tables(schema, existing))
    created = list(missing(schema, existing, storage=storage))
    for statement in created:
        connection.execute(statement)
    logged = set(queries.column(connection, _LOGGED, [schemas.both(schema)]))
    for table in TABLES:
        if table.unlogged and table.name in logged:
            connection.execute(definitions.set_unlogged(schema, table))
    indexes = set(queries.column(connection, _INDEXES, [schemas.both(schema)]))
    for statement in missing_indexes(schema, indexes, storage=storage):
        connection.execute(statement)
    touched.install(connection, schema)
    if storage.stores_marts:
        stored_marts.install(connection, schema)
    of_views = list(_define_views(connection, schema, trusts_records=not created))
    comment(connection, schema)
    if place(schema, bookkeeping.INTEGRATIONS) not in existing:
        return []
    schema_changes.record(connection, schema, changes + of_views)
    return changes + of_views


def _missing_schemas(connection: Connection, schema: str) -> list[str]:
    """Return those of the two schemas of a warehouse that do not exist.

    Raises DatabaseUnusable if the user may not create them.
    """
    existing = set(queries.column(connection, _SCHEMAS, [schemas.both(schema)]))
    missing = [name for name in schemas.both(schema) if name not in existing]
    if missing:
        _check_may_create(connection, missing)
    return missing


def check_schemas(connection: Connection, schema: str) -> None:
    """Raise DatabaseUnusable if a schema of the warehouse does not exist and the user may not create it."""
    _missing_schemas(connection, schema)


def _check_may_create(connection: Connection, missing: Sequence[str]) -> None:
    row = connection.execute(_MAY_CREATE).fetchone()
    assert row is not None
    may_create, user = row
    if may_create:
        return
    create = SQL("CREATE SCHEMA {} AUTHORIZATION {};")
    statements = (create.format(Identifier(name), Identifier(user)).as_string(connection) for name in missing)
    raise DatabaseUnusable(
        f"The database user lacks a privilege: {user} may not create the schema {' or '.join(missing)}. Have an "
        f"administrator of the database run {' '.join(statements)}"
    )


def _with_internal_moved(connection: Connection, schema: str, existing: Existing) -> Existing:
    """Move internal tables of an earlier version into the schema for them, and return the columns as they are then."""
    moved = dict(existing)
    for table in TABLES:
        before, now = (schema, table.name), place(schema, table)
        if before == now or before not in existing:
            continue
        if now in existing:
            raise DatabaseUnusable(
                f"The table {table.name} is in the schema {schema} as well as in {now[0]}, whose rows are used. Rename "
                f"or drop {schema}.{table.name}; a run of an earlier version may have created it."
            )
        connection.execute(definitions.set_schema(schema, table))
        moved[now] = moved.pop(before)
    return moved


def columns(connection: Connection, schema: str) -> Existing:
    """Return the types of the columns of all tables in both schemas of a warehouse."""
    existing: dict[Place, dict[str, str]] = {}
    for found_in, table, column, type_ in connection.execute(_COLUMNS, [schemas.both(schema)]):
        existing.setdefault((found_in, table), {})[column] = type_
    return existing


def comment(connection: Connection, schema: str, tables: tuple[Table | View, ...] = (*TABLES, *VIEWS)) -> None:
    """Set the comments that differ from the catalogue."""
    stored = {(name, column): text for name, column, text in connection.execute(_COMMENTS, [schemas.both(schema)])}
    for statement in differing_comments(schema, stored, tables):
        connection.execute(statement)


def exists(connection: Connection, schema: str) -> bool:
    """Return whether there is a schema of this name."""
    return connection.execute(_SCHEMAS, [[schema]]).fetchone() is not None


def has_table(connection: Connection, schema: str, table: Table) -> bool:
    """Return whether a table exists: a warehouse of an earlier version lacks some."""
    return bool(queries.scalar(connection, _TABLE_EXISTS, [qualified(schema, table).as_string(connection)]))


def check_storage(connection: Connection, schema: str, storage: Storage) -> None:
    """Raise DatabaseUnusable if event tables are to be partitioned that exist without partitions."""
    if storage.by_month and (whole := _whole(connection, schema)):
        raise DatabaseUnusable(
            f"EVENT_PARTITIONS=month applies to new warehouses only, and {schema}.{whole[0]} exists without "
            "partitions. Set EVENT_PARTITIONS=none, or load into a new schema: WAREHOUSE_SCHEMA."
        )


def _whole(connection: Connection, schema: str) -> list[str]:
    """Return the names of the event tables that exist and are not partitioned."""
    return [
        table.name
        for table in events.EVENT_TABLES
        if has_table(connection, schema, table) and not partitions.is_partitioned(connection, schema, table)
    ]


def _check_keys(connection: Connection, schema: str) -> None:
    """Raise DatabaseUnusable if large tables have to be rebuilt first."""
    if outdated := outdated_keys(connection, schema):
        raise DatabaseUnusable(
            f"Tables in the schema {schema} have the primary key of an earlier version "
            f"({', '.join(table.name for table in outdated)}). Run klaviyo-pg upgrade once, which says beforehand how "
            "much time and disk it takes."
        )


def outdated_keys(connection: Connection, schema: str) -> list[Table]:
    """Return the tables whose primary key is the one of an earlier version."""
    keys = {name: tuple(columns) for name, columns in connection.execute(_PRIMARY_KEYS, [schema])}
    tables = (*events.EVENT_TABLES, membership.MEMBER_CONSENTS)  # no other table has ever had another key
    return [table for table in tables if keys.get(table.name, table.primary_key) != table.primary_key]


def indexes_of(table: Table, storage: Storage) -> tuple[tuple[str, ...], ...]:
    """Return the columns of each index of a table."""
    optional = tuple((f"{name}_key",) for name in storage.indexes) if table in events.EVENT_TABLES else ()
    return (*table.indexes, *optional)


def missing_indexes(
    schema: str, existing: Collection[str], tables: tuple[Table, ...] = TABLES, storage: Storage = PLAIN
) -> Iterator[Composed]:
    """Return the statements that create missing indexes. IF NOT EXISTS instead would wait for all writers."""
    for table in tables:
        for columns in indexes_of(table, storage):
            if definitions.index_name(table, columns) not in existing:
                yield definitions.create_index(schema, table, columns)


def _define_views(connection: Connection, schema: str, trusts_records: bool) -> Iterator[SchemaChange]:
    """Create the views that are missing, replace those that differ, and yield what that changes.

    Postgres takes milliseconds to parse a view for a comparison. So a comment on the rule of each view records its
    query, and how it is stored. If both are unchanged, it is up to date, unless a table or column was renamed: views
    still read what has another name now, and are stored as before.
    """
    by_name = {view.name: _QUERIES[view.name](schema) for view in VIEWS}
    digests = {name: md5(query.as_string(connection).encode()).hexdigest() for name, query in by_name.items()}
    recorded = _records(connection, schema, digests) if trusts_records else ()
    current = {name for name, stored, comment, _ in recorded if stored == comment}
    outdated = [view for view in VIEWS if view.name not in current]
    existing = _view_columns(connection, schema) if outdated else {}
    for view in outdated:
        if _define(connection, schema, view, by_name[view.name]):
            yield from schema_changes.of_view(view, existing.get(view.name, ()))
    if outdated:
        _record(connection, schema, digests)


def _view_columns(connection: Connection, schema: str) -> dict[str, list[str]]:
    """Return the names of the columns of the views in a schema."""
    return dict(connection.execute(_VIEW_COLUMNS, [schema]).fetchall())


def _record(connection: Connection, schema: str, digests: Mapping[str, str]) -> None:
    """Record how views are stored, as far as this role may comment on them."""
    for name, stored, comment, is_owned in _records(connection, schema, digests):
        if is_owned and stored != comment:
            rule = SQL("COMMENT ON RULE {} ON {} IS {}")
            connection.execute(rule.format(Identifier("_RETURN"), Identifier(schema, name), Literal(stored)))


def _records(
    connection: Connection, schema: str, digests: Mapping[str, str]
) -> Iterator[tuple[str, str, str | None, bool]]:
    """Yield the name of each view, how it is stored, how it was recorded, and whether this role owns it."""
    for name, stored, comment, is_owned in connection.execute(_RECORDED, [schema]).fetchall():
        if name in digests:
            yield name, f"{_RECORD} {digests[name]} {stored}", comment, is_owned


def _define(connection: Connection, schema: str, view: View, query: Composed) -> bool:
    """Create a view, or replace it if its definition differs. Objects that depend on it stay. Return if that was so.

    Raises DatabaseUnusable if the user has something else with this name, or the view is that of a later version.
    """
    name = qualified(schema, view)
    if is_defined(connection, name, query):
        return False
    try:
        with connection.transaction():
            connection.execute(SQL("CREATE OR REPLACE VIEW {} AS {}").format(name, query))
    except (errors.WrongObjectType, errors.InvalidTableDefinition) as error:
        raise _not_replaceable(connection, schema, view, str(error.diag.message_primary)) from None
    return True


def _not_replaceable(connection: Connection, schema: str, view: View, detail: str) -> DatabaseUnusable:
    """Return the error that a view cannot be replaced. The comment on its rule shows that it is this project's."""
    comments = {name: comment for name, _, comment, _ in connection.execute(_RECORDED, [schema])}
    if (comments.get(view.name) or "").startswith(_RECORD):
        return DatabaseUnusable(
            f"{schema}.{view.name} was created by a later version, or changed by someone ({detail}). Drop it, which "
            "loses no rows, then rerun."
        )
    return DatabaseUnusable(
        f"{schema}.{view.name} is not this project's view ({detail}). Rename it, or set WAREHOUSE_SCHEMA to another "
        "schema."
    )


def is_defined(connection: Connection, name: Identifier, query: Composed) -> bool:
    """Return whether a view exists and its definition is this query."""
    connection.execute(SQL("CREATE TEMPORARY VIEW defined AS {}").format(query))
    row = connection.execute(_DEFINITIONS, [name.as_string(connection)]).fetchone()
    connection.execute("DROP VIEW pg_temp.defined")
    return row is not None and row[0] == row[1]


def differing_comments(
    schema: str, existing: Comments, tables: tuple[Table | View, ...] = (*TABLES, *VIEWS)
) -> Iterator[Composed]:
    """Return the statements that set the comments that differ from the catalogue."""
    for table in tables:
        if existing.get((table.name, None)) != table.description:
            yield definitions.comment_on_table(schema, table)
        for column in table.columns:
            if existing.get((table.name, column.name)) != column.description:
                yield definitions.comment_on_column(schema, table, column)


def missing(
    schema: str, existing: Existing, tables: tuple[Table, ...] = TABLES, storage: Storage = PLAIN
) -> Iterator[Composed]:
    """Return the statements that create the tables and columns that do not exist yet."""
    for table in tables:
        columns = existing.get(place(schema, table))
        if columns is None:
            yield definitions.create_table(schema, table, storage.by_month)
            if storage.by_month and table.ordered_by:
                yield from partitions.outer(schema, table)
            continue
        for column in table.columns:
            if column.name not in columns:
                yield definitions.add_column(schema, table, column)
            elif columns[column.name] != column.type.sql.partition(" COLLATE")[0]:
                raise DatabaseUnusable(
                    f"Column {shown(schema, table)}.{column.name} has type {columns[column.name]}, but must have type "
                    f"{column.type.sql}. Rename or convert it, or set WAREHOUSE_SCHEMA to another schema."
                )
