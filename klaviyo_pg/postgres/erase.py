"""Erasing a person from an account's tables, for good. The caller owns the transaction."""

from collections.abc import Iterator

from psycopg import Connection
from psycopg.sql import SQL, Composable, Identifier

from klaviyo_pg.catalogue import Table, bookkeeping, dimensions, events, membership
from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres import claims

# Members of the address, and those of whom only events with the address are left.
_OF_ADDRESS = """
INSERT INTO erasing_members
SELECT id, member_key FROM {members} WHERE esp_integration_id = %(integration_id)s AND lower(email) = lower(%(email)s)
UNION
SELECT NULL, found.member_key FROM ({all_events}) AS found
WHERE lower(found.email) = lower(%(email)s) AND found.member_key IS NOT NULL AND NOT EXISTS (
    SELECT FROM {members} AS member
    WHERE member.esp_integration_id = %(integration_id)s AND member.member_key = found.member_key
)
"""
_OF_ID = "INSERT INTO erasing_members VALUES (%(member_id)s, md5(%(member_id)s))"
# Addresses that somebody else bears today are that person's.
_ADDRESSES = """
INSERT INTO erasing_addresses
SELECT lower(known.email) FROM (
    SELECT email FROM {members} WHERE esp_integration_id = %(integration_id)s AND {of_member}
    UNION SELECT email FROM ({all_events}) AS found WHERE {of_member}
) AS known
WHERE known.email IS NOT NULL AND NOT EXISTS (
    SELECT FROM {members} AS other
    WHERE other.esp_integration_id = %(integration_id)s AND lower(other.email) = lower(known.email)
    AND other.member_key NOT IN (SELECT member_key FROM erasing_members)
)
UNION SELECT lower(%(email)s::text) WHERE %(email)s::text IS NOT NULL
"""
_EVENTS = "SELECT member_key, email FROM {} WHERE esp_integration_id = %(integration_id)s"
_CLEAR_EVENTS = """
UPDATE {table} SET email = NULL, member_key = NULL, properties = NULL, __synced_at = now()
WHERE esp_integration_id = %(integration_id)s AND (
    {of_member} OR lower(email) = lower(%(email)s)
    OR member_key IS NULL AND lower(email) IN (SELECT email FROM erasing_addresses)
)
"""
_NOTE = """
INSERT INTO {} SELECT DISTINCT %(integration_id)s, member_key, now() FROM erasing_members
ON CONFLICT (esp_integration_id, member_key) DO UPDATE SET erased_at = excluded.erased_at
"""
_OF_MEMBER = SQL("member_key IN (SELECT member_key FROM erasing_members)")
_OF_MEMBER_ID = SQL("md5(member_id) IN (SELECT member_key FROM erasing_members)")
_OF_ADDRESS_ONLY = SQL(
    "(lower(email) IN (SELECT email FROM erasing_addresses) OR _sync_id IN (SELECT md5(email) FROM erasing_addresses))"
)
_MENTIONS = SQL(
    "EXISTS (SELECT FROM (SELECT member_id FROM erasing_members UNION SELECT member_key FROM erasing_members"
    " UNION SELECT email FROM erasing_addresses) AS words (word)"
    " WHERE position(lower(word) IN lower(concat(raw, ' ', reason))) > 0)"
)
_DELETED: tuple[tuple[Table, Composable], ...] = (
    (dimensions.MEMBERS, _OF_MEMBER),
    (dimensions.MEMBER_ATTRIBUTES, _OF_MEMBER),
    (membership.STG_MEMBER_EXCLUSIONS, _OF_ADDRESS_ONLY),
    (membership.MEMBER_EXCLUSIONS, _OF_ADDRESS_ONLY),
    (membership.STG_MEMBER_LISTS, _OF_MEMBER_ID),
    (membership.MEMBER_LISTS, _OF_MEMBER_ID),
    (membership.SUBSCRIPTION_CHANGES, _OF_MEMBER_ID),
    (membership.SWEPT_MEMBERS, _OF_MEMBER_ID),
    (bookkeeping.REJECTS, _MENTIONS),
)


def erase(
    connection: Connection, schema: str, integration_id: str, email: str | None, member_id: str | None
) -> dict[str, int]:
    """Take a person, named by address or by id, out of every table; answers how many rows of each were concerned.

    Events keep their row, so that counts stay true, but tell of nobody. Waits for batches that are being stored, and
    lets those that follow know. Raises Busy while a backfill is under way: it may hold what it has read of the person.
    """
    if not claims.claim(connection, schema, integration_id, "backfill", for_transaction=True):
        raise Busy("A backfill of this account is under way: wait for it, or end it.")
    erased_table = Identifier(schema, bookkeeping.ERASED.name)
    connection.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(erased_table))
    values = {"integration_id": integration_id, "email": email, "member_id": member_id}
    _find(connection, schema, values)
    counts = {
        table.name: connection.execute(
            SQL(_CLEAR_EVENTS).format(table=Identifier(schema, table.name), of_member=_OF_MEMBER), values
        ).rowcount
        for table in events.EVENT_TABLES
    }
    for table, condition in _DELETED:
        query = SQL("DELETE FROM {} WHERE esp_integration_id = %(integration_id)s AND {}").format(
            Identifier(schema, table.name), condition
        )
        counts[table.name] = connection.execute(query, values).rowcount
    connection.execute(SQL(_NOTE).format(erased_table), values)
    return counts


def _find(connection: Connection, schema: str, values: dict[str, str | None]) -> None:
    """Note whom, and which addresses, this is about, in tables that are gone with the transaction."""
    connection.execute("CREATE TEMPORARY TABLE erasing_members (member_id text, member_key text) ON COMMIT DROP")
    connection.execute("CREATE TEMPORARY TABLE erasing_addresses (email text) ON COMMIT DROP")
    parts = {
        "members": Identifier(schema, dimensions.MEMBERS.name),
        "all_events": SQL(" UNION ALL ").join(_each_event_table(schema)),
        "of_member": _OF_MEMBER,
    }
    if values["email"] is not None:
        connection.execute(SQL(_OF_ADDRESS).format(**parts), values)
    if values["member_id"] is not None:
        connection.execute(_OF_ID, values)
    connection.execute(SQL(_ADDRESSES).format(**parts), values)


def _each_event_table(schema: str) -> Iterator[Composable]:
    for table in events.EVENT_TABLES:
        yield SQL(_EVENTS).format(Identifier(schema, table.name))


def wait_for_erasing(connection: Connection, schema: str) -> None:
    """Until the transaction ends nobody is erased, and who was being erased is."""
    query = SQL("SELECT FROM {} LIMIT 0")  # a lock of the mildest kind, which erasing waits for
    connection.execute(query.format(Identifier(schema, bookkeeping.ERASED.name)))


def erased(connection: Connection, schema: str, integration_id: str) -> list[str]:
    """The member keys of those who were erased. Until the transaction ends nobody else is."""
    query = SQL("SELECT member_key FROM {} WHERE esp_integration_id = %s").format(
        Identifier(schema, bookkeeping.ERASED.name)
    )
    return [row[0] for row in connection.execute(query, [integration_id])]
