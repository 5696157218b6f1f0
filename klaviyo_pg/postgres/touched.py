"""Changes since member_lists was last derived: recorded by triggers, so that no writer can forget them.

Each change is recorded in the transaction that makes it. Knows no rule by which member_lists is derived.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from psycopg import Connection
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from klaviyo_pg.catalogue import Table, bookkeeping, dimensions, membership
from klaviyo_pg.postgres import triggers
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import qualified
from klaviyo_pg.postgres.triggers import Trigger

MEMBER, LIST, ADDRESS = "member", "list", "address"


class _Source(NamedTuple):
    """A table that member_lists is derived from: which columns matter, and whose rows they concern, by kind."""

    table: Table
    concerns: Mapping[str, str]
    columns: Sequence[str]

    @property
    def function(self) -> str:
        """The name of the function that its triggers run."""
        return f"touched_by_{self.table.name}"


SOURCES = (
    _Source(
        membership.STG_MEMBER_LISTS,
        {MEMBER: "member_id"},
        ("list_id", "member_id", "created_at", "is_subscribed", "absent_since"),
    ),
    _Source(
        membership.SUBSCRIPTION_CHANGES,
        {MEMBER: "member_id"},
        ("member_id", "change", "list_id", "list_name", "changed_at", "scope"),
    ),
    _Source(membership.LIST_SUPPRESSIONS, {MEMBER: "member_id"}, ("suppressed_at", "lifted_at", "__synced_at")),
    _Source(
        membership.MEMBER_EXCLUSIONS,
        {MEMBER: "member_id", ADDRESS: "_sync_id"},
        ("email", "member_id", "removed_at"),
    ),
    _Source(dimensions.MEMBERS, {MEMBER: "id"}, ("id", "email", "consent", "deleted_at")),
    _Source(dimensions.LISTS, {LIST: "id"}, ("id", "deleted_at")),
    _Source(membership.LIST_NAMES, {LIST: "list_id"}, ("name", "since", "until")),
)
_SETTING = "klaviyo_pg.touches"
_BODY = """
BEGIN
    IF current_setting({setting}, true) = 'off' THEN
        RETURN NULL;
    ELSIF TG_OP = 'INSERT' THEN
        {record_added};
    ELSIF TG_OP = 'DELETE' THEN
        {record_removed};
    ELSE
        {record_changed};
    END IF;
    RETURN NULL;
END
"""
_RECORD = """
INSERT INTO {touched} (transaction, esp_integration_id, kind, row_key)
SELECT DISTINCT pg_current_xact_id()::text::bigint, touched.account, touched.kind, touched.row_key
FROM {rows}, LATERAL (VALUES {values}) AS touched (account, kind, row_key)
WHERE touched.account IS NOT NULL AND touched.row_key IS NOT NULL{changed}
ON CONFLICT DO NOTHING
"""
_ROWS = {
    "INSERT": "NEW TABLE AS added",
    "DELETE": "OLD TABLE AS removed",
    "UPDATE": "OLD TABLE AS removed NEW TABLE AS added",
}


def install(connection: Connection, schema: str) -> None:
    """Create the functions and triggers that are missing or differ.

    If there were any, the next derivation of each account is one of all rows.
    """
    recording = [
        Trigger(source.table, event, rows, source.function) for source in SOURCES for event, rows in _ROWS.items()
    ]
    if triggers.install(connection, schema, _bodies(schema), recording):
        connection.execute(SQL("DELETE FROM {}").format(qualified(schema, bookkeeping.DERIVATIONS)))


@cache
def _bodies(schema: str) -> Mapping[str, str]:
    """Return the body of each function, by its name."""
    return {source.function: _body(schema, source).as_string(None) for source in SOURCES}


def _body(schema: str, source: _Source) -> Composed:
    def record(rows: Composable, sides: Sequence[str], changed: Composable) -> Composed:
        values = SQL(", ").join(
            SQL("({}, {}, {})").format(Identifier(side, "esp_integration_id"), Literal(kind), Identifier(side, column))
            for side in sides
            for kind, column in source.concerns.items()
        )
        touched = qualified(schema, bookkeeping.TOUCHED)
        return SQL(_RECORD.strip()).format(touched=touched, rows=rows, values=values, changed=changed)

    def columns(side: str) -> Composed:
        return SQL(", ").join(Identifier(side, name) for name in source.columns)

    key = SQL(", ").join(map(Identifier, source.table.primary_key))
    changed = SQL(" AND ({}) IS DISTINCT FROM ({})").format(columns("added"), columns("removed"))
    return SQL(_BODY).format(
        setting=Literal(_SETTING),
        record_added=record(SQL("added"), ["added"], SQL("")),
        record_removed=record(SQL("removed"), ["removed"], SQL("")),
        record_changed=record(SQL("added FULL JOIN removed USING ({})").format(key), ["added", "removed"], changed),
    )


@contextmanager
def unrecorded(account: Account) -> Iterator[None]:
    """Record no changes within this block of a transaction, because its caller knows what they concern."""
    account.connection.execute("SELECT set_config(%s, 'off', true)", [_SETTING])
    yield
    account.connection.execute("SELECT set_config(%s, 'on', true)", [_SETTING])
