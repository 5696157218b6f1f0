"""A schema of views over one account, in the form of another loader: created, upgraded and dropped.

Each view names the account in its comment, so that nothing is replaced or dropped that this project did not create. The
caller owns the transaction.
"""

import re
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier, Literal

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import TABLES, Column, Table, View, attribution, fivetran
from klaviyo_pg.errors import BadSettings, DatabaseUnusable
from klaviyo_pg.postgres import schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.schema_lock import changing
from klaviyo_pg.postgres.statements import place, shown
from klaviyo_pg.postgres.views import fivetran as queries

_OBJECTS = """
    SELECT c.relname AS name, CASE WHEN c.relkind = 'v' THEN obj_description(c.oid, 'pg_class') END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL SELECT p.proname, NULL FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s
    UNION ALL SELECT t.typname, NULL FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE n.nspname = %(schema)s AND (c.oid IS NULL OR c.relkind = 'c') AND t.typcategory <> 'A'
    ORDER BY name
"""
_VIEWS = """
    SELECT DISTINCT n.nspname, obj_description(c.oid, 'pg_class') AS comment FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'v' ORDER BY 1
"""
_COLUMNS = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
    WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_IS_OURS = "SELECT obj_description(oid, 'pg_namespace') = %(mark)s FROM pg_namespace WHERE nspname = %(name)s"
_OF_SCHEMA = "Created by klaviyo-pg views."
_MARK = re.compile(r"Created by klaviyo-pg views: account (\S+) in the schema (.+)\.$")


class Upgraded(NamedTuple):
    """The result of an upgrade: the views that it created or changed, and those that it had to drop first.

    `empty` are the tables that had no rows of the account.
    """

    changed: list[str]
    recreated: list[str]
    empty: list[str]


def upgrade(account: Account, name: str) -> Upgraded:
    """Create the schema and its views, or change the views that differ. What is up to date is not written to.

    Raises BadSettings if the schema contains anything else, and DatabaseUnusable if the warehouse is older than this
    version, or if objects depend on a view that has to be dropped. Raises TablesInUse if others use such a view.
    """
    with changing(account.connection, [name]):
        return _upgrade(account, name)


def drop(account: Account, name: str) -> bool:
    """Drop the views, and the schema if it was created for them. Returns False if there is no such view.

    Raises BadSettings if the schema contains anything else, DatabaseUnusable if objects depend on a view, and
    TablesInUse if others use one.
    """
    with changing(account.connection, [name]):
        check(account, name)
        return _drop_own(account, name)


def drop_own(account: Account, name: str) -> bool:
    """Drop the views as `drop` does, but leave whatever else the schema contains, and then the schema as well."""
    with changing(account.connection, [name]):
        return _drop_own(account, name)


def schemas_of(account: Account) -> list[str]:
    """Return the names of the schemas that have views over the account."""
    return sorted({name for name, comment in account.execute(SQL(_VIEWS)) if _is_over(account, comment)})


def check(account: Account, name: str) -> None:
    """Raise BadSettings if the schema contains anything but the account's views."""
    if name in schemas.both(account.schema):
        raise BadSettings(f"--schema {name} is a schema of the warehouse itself. Choose another name.")
    names = {view.name for view in fivetran.VIEWS}
    for found, comment in account.connection.execute(_OBJECTS, {"schema": name}):
        mark = _MARK.search(comment or "")
        if mark is None or found not in names:
            raise BadSettings(
                f"The schema {name} contains {found}, which klaviyo-pg views did not create. Choose a new or empty "
                "schema: --schema."
            )
        if mark.groups() != (account.integration_id, account.schema):
            raise BadSettings(f"The schema {name} has the views of another account. Choose another name: --schema.")


def _upgrade(account: Account, name: str) -> Upgraded:
    check(account, name)
    _check_version(account)
    if not schema.exists(account.connection, name):
        account.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
        account.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(Identifier(name), Literal(_OF_SCHEMA)))
    empty = [table.name for table in _sources() if not _has_rows(account, table)]
    done = Upgraded([], [], empty)
    views = tuple(_described(account, view, empty) for view in fivetran.VIEWS)
    for view in views:
        _define(account, name, view, done)
    schema.comment(account.connection, name, views)
    return done


def _is_over(account: Account, comment: str | None) -> bool:
    """Return whether the comment of a view marks it as one over the account."""
    mark = _MARK.search(comment or "")
    return mark is not None and mark.groups() == (account.integration_id, account.schema)


def _drop_own(account: Account, name: str) -> bool:
    objects = account.connection.execute(_OBJECTS, {"schema": name}).fetchall()
    views = [found for found, comment in objects if _is_over(account, comment)]
    if views:
        _drop(account, name, views)
    if len(views) == len(objects) and account.is_true(_IS_OURS, mark=_OF_SCHEMA, name=name):
        account.execute(SQL("DROP SCHEMA {}").format(Identifier(name)))
    return bool(views)


def _check_version(account: Account) -> None:
    """Raise DatabaseUnusable if tables or columns are missing, as they are in a warehouse of an earlier version."""
    existing = schema.columns(account.connection, account.schema)
    for table in TABLES:
        if missing := set(table.column_names) - set(existing.get(place(account.schema, table), ())):
            raise DatabaseUnusable(
                f"The warehouse was created by an earlier version: it lacks {shown(account.schema, table)}."
                f"{min(missing)}. Run klaviyo-pg upgrade first."
            )


def _sources() -> list[Table]:
    """Return the tables that rows of the views come from, and the one that attributions come from."""
    tables = [table for each in queries.SOURCES.values() for table in each]
    return [*tables, attribution.EVENT_ATTRIBUTIONS]


def _has_rows(account: Account, table: Table) -> bool:
    return account.is_true("SELECT EXISTS (SELECT FROM {} WHERE esp_integration_id = %(account)s)", table)


def _described(account: Account, view: View, empty: Collection[str]) -> View:
    """Return a view with a comment that names the account, and with the columns that it has there."""
    columns: tuple[Column, ...] = view.columns
    if view is fivetran.EVENT and attribution.EVENT_ATTRIBUTIONS.name not in empty:
        columns = (*columns, fivetran.ATTRIBUTION)
    tables = [table.name for table in queries.SOURCES[view.name]]
    parts = [view.description]
    if all(table in empty for table in tables):
        parts.append(
            f"Empty when klaviyo-pg views last ran: the warehouse had no {tables[-1]} of this account. TABLES may "
            "leave them out."
        )
    mark = f"Created by klaviyo-pg views: account {account.integration_id} in the schema {account.schema}."
    return replace(view, columns=columns, description=" ".join([*parts, mark]))


def _define(account: Account, name: str, view: View, done: Upgraded) -> None:
    """Create a view, or replace it if its definition differs. A view that loses a column is dropped first."""
    connection, identifier = account.connection, Identifier(name, view.name)
    query = queries.query(account, view.name, fivetran.ATTRIBUTION in view.columns)
    if schema.is_defined(connection, identifier, query):
        return
    if _must_be_dropped(account, identifier, view):
        _drop(account, name, [view.name])
        done.recreated.append(view.name)
    account.execute(SQL("CREATE OR REPLACE VIEW {} AS {}").format(identifier, query))
    done.changed.append(view.name)


def _must_be_dropped(account: Account, identifier: Identifier, view: View) -> bool:
    """Return whether a view exists that CREATE OR REPLACE could not change: one whose columns do not all stay first."""
    stored = account.connection.execute(_COLUMNS, [identifier.as_string(account.connection)]).fetchall()
    return stored != [(column.name, column.type.sql) for column in view.columns][: len(stored)]


def _drop(account: Account, name: str, views: Collection[str]) -> None:
    try:
        account.execute(_drop_views(name, views))
    except errors.DependentObjectsStillExist as error:
        first = (error.diag.message_detail or "").partition(" depends on ")[0]
        raise DatabaseUnusable(
            f"Objects depend on the views in {name}, such as {first}. Drop them first; dbt build recreates its own."
        ) from None


def _drop_views(name: str, views: Collection[str]) -> Composed:
    return SQL("DROP VIEW {}").format(SQL(", ").join(Identifier(name, view) for view in views))
