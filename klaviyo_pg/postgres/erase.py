"""Erasing a person from all tables of an account, permanently. The caller owns the transaction."""

from collections.abc import Sequence

from psycopg import Connection
from psycopg.sql import SQL, Composable, Composed, Identifier

from klaviyo_pg.catalogue import Table, bookkeeping, dimensions, events, membership
from klaviyo_pg.catalogue.personal import CURRENCIES, EVENT_ID, MESSAGE_ID
from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres import claims, touched
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import row_key

# The members with the address, and people without a row in members whose events have the address.
_MEMBERS_WITH_ADDRESS = """
INSERT INTO erasing_members
SELECT id, member_key FROM {members} WHERE esp_integration_id = %(account)s AND lower(email) = lower(%(email)s)
UNION
SELECT NULL, event.member_key FROM ({all_events}) AS event
WHERE lower(event.email) = lower(%(email)s) AND event.member_key IS NOT NULL AND NOT EXISTS (
    SELECT FROM {members} AS member
    WHERE member.esp_integration_id = %(account)s AND member.member_key = event.member_key
)
"""
_MEMBERS_WITH_ID = "INSERT INTO erasing_members SELECT id, md5(id) FROM unnest(%(ids)s::text[]) AS ids (id)"
# The profiles that were merged into them, directly or by way of others.
_MERGED_INTO_THEM = """
WITH RECURSIVE merged (member_id, member_key) AS (
    SELECT member_id, member_key COLLATE "C" FROM erasing_members
    UNION
    SELECT merge.old_member_id, merge.old_member_key
    FROM {} AS merge JOIN merged ON merge.new_member_key = merged.member_key
    WHERE merge.esp_integration_id = %(account)s
)
INSERT INTO erasing_members SELECT * FROM merged EXCEPT SELECT * FROM erasing_members
"""
# All addresses that the person has had, except those that belong to someone else now.
_ADDRESSES = """
INSERT INTO erasing_addresses
SELECT lower(used.email) FROM (
    SELECT email FROM {members} WHERE esp_integration_id = %(account)s AND {of_member}
    UNION SELECT email FROM ({all_events}) AS event WHERE {of_member}
) AS used
WHERE used.email IS NOT NULL AND NOT EXISTS (
    SELECT FROM {members} AS other
    WHERE other.esp_integration_id = %(account)s AND lower(other.email) = lower(used.email)
    AND other.member_key NOT IN (SELECT member_key FROM erasing_members)
)
UNION SELECT lower(%(email)s::text) WHERE %(email)s::text IS NOT NULL
"""
_EVENTS = SQL(
    "SELECT member_key, email, campaign_key, automation_key, event_at, properties FROM {}"
    " WHERE esp_integration_id = %(account)s"
)
_IS_THEIRS = SQL(
    "(member_key IN (SELECT member_key FROM erasing_members) OR lower(email) = lower(%(email)s)"
    " OR member_key IS NULL AND lower(email) IN (SELECT email FROM erasing_addresses))"
)
_CAMPAIGNS = """
CREATE TEMPORARY TABLE erasing_campaigns ON COMMIT DROP AS
SELECT DISTINCT campaign_key FROM ({all_events}) AS event
WHERE campaign_key IS NOT NULL AND automation_key IS NOT NULL AND {is_theirs}
"""
# An ID that is not one, such as an address, becomes its digest, as in transforms.erased.
_CLEAR_EVENTS = """
UPDATE {} SET email = NULL, member_key = NULL, properties = NULL, __synced_at = now(),
    value_currency = CASE WHEN upper(value_currency) = ANY(%(currencies)s) THEN value_currency END,
    key = CASE WHEN id ~ %(event_id)s THEN key ELSE {key} END,
    id = CASE WHEN id ~ %(event_id)s THEN id ELSE md5(id) END
WHERE esp_integration_id = %(account)s AND {is_theirs}
"""
# Events name a campaign of a flow. What only the erased events said is null until a later event says it again.
_RENAME_CAMPAIGNS = """
WITH named AS (
    SELECT event.campaign_key, event.event_at, nullif(event.properties ->> 'Campaign Name', '') AS name,
        nullif(event.properties ->> 'Subject', '') AS subject
    FROM ({all_events}) AS event JOIN erasing_campaigns USING (campaign_key) WHERE event.automation_key IS NOT NULL
), names AS (
    SELECT DISTINCT ON (campaign_key) campaign_key, name FROM named WHERE name IS NOT NULL
    ORDER BY campaign_key, event_at DESC
), subjects AS (
    SELECT DISTINCT ON (campaign_key) campaign_key, subject FROM named WHERE subject IS NOT NULL
    ORDER BY campaign_key, event_at DESC
)
UPDATE {campaigns} AS campaign SET name = names.name, subject = subjects.subject, __synced_at = now()
FROM erasing_campaigns LEFT JOIN names USING (campaign_key) LEFT JOIN subjects USING (campaign_key)
WHERE campaign.esp_integration_id = %(account)s AND campaign.automation_key IS NOT NULL
AND campaign.campaign_key = erasing_campaigns.campaign_key
AND (campaign.name, campaign.subject) IS DISTINCT FROM (names.name, subjects.subject)
"""
_IS_UNNAMEABLE = SQL(
    "automation_key IS NOT NULL AND id !~ %(message_id)s"
    " AND campaign_key IN (SELECT campaign_key FROM erasing_campaigns)"
)
_RECORD = """
INSERT INTO {} SELECT DISTINCT %(account)s, member_key, now() FROM erasing_members
ON CONFLICT (esp_integration_id, member_key) DO UPDATE SET erased_at = excluded.erased_at
"""
_RECORD_ADDRESSES = """
INSERT INTO {} SELECT DISTINCT %(account)s, md5(%(account)s || ':' || email), now() FROM erasing_addresses
ON CONFLICT (esp_integration_id, address_key) DO UPDATE SET erased_at = excluded.erased_at
"""
_OWNED = """
SELECT DISTINCT lower(email) FROM {} WHERE esp_integration_id = %(account)s AND lower(email) = ANY(%(addresses)s)
"""
_OF_MEMBER = SQL("member_key IN (SELECT member_key FROM erasing_members)")
_OF_MEMBER_ID = SQL("md5(member_id) IN (SELECT member_key FROM erasing_members)")
_OF_EITHER_KEY = SQL(
    "(old_member_key IN (SELECT member_key FROM erasing_members)"
    " OR new_member_key IN (SELECT member_key FROM erasing_members))"
)
_OF_ADDRESS = SQL(
    "(lower(email) IN (SELECT email FROM erasing_addresses) OR _sync_id IN (SELECT md5(email) FROM erasing_addresses))"
)
_MENTIONS = SQL(
    "EXISTS (SELECT FROM (SELECT member_id FROM erasing_members UNION SELECT member_key FROM erasing_members"
    " UNION SELECT email FROM erasing_addresses) AS words (word)"
    " WHERE position(lower(word) IN lower(concat(raw, ' ', reason))) > 0)"
)
_DELETE_NAMED = """
DELETE FROM {} WHERE esp_integration_id = %(account)s AND (
    md5(row_key) IN (SELECT member_key FROM erasing_members)
    OR row_key IN (SELECT _sync_id FROM {} WHERE esp_integration_id = %(account)s AND {of_address})
)
"""
_DELETED: tuple[tuple[Table, Composable], ...] = (
    (dimensions.MEMBERS, _OF_MEMBER),
    (dimensions.MEMBER_ATTRIBUTES, _OF_MEMBER),
    (membership.STG_MEMBER_EXCLUSIONS, _OF_ADDRESS),
    (membership.MEMBER_EXCLUSIONS, _OF_ADDRESS),
    (membership.SWEPT_EXCLUSIONS, _OF_ADDRESS),
    (membership.STG_MEMBER_LISTS, _OF_MEMBER_ID),
    (membership.MEMBER_LISTS, _OF_MEMBER_ID),
    (membership.SUBSCRIPTION_CHANGES, _OF_MEMBER_ID),
    (membership.LIST_SUPPRESSIONS, _OF_MEMBER_ID),
    (membership.MEMBER_CONSENTS, _OF_MEMBER),
    (membership.MISSING_PROFILES, _OF_MEMBER_ID),
    (membership.PROFILE_MERGES, _OF_EITHER_KEY),
    (membership.SWEPT_MEMBERS, _OF_MEMBER_ID),
    (bookkeeping.REJECTS, _MENTIONS),
)


def erase(account: Account, email: str | None, member_ids: Sequence[str] = ()) -> dict[str, int]:
    """Erase people, identified by an address or by profile IDs, and return the number of affected rows by table.

    Events keep their rows without anything about the person, so that event counts stay correct. Waits for batches that
    are being stored; later batches see that the person was erased. Raises Busy while a backfill is in progress, because
    it may have read data about the person that is not stored yet.
    """
    if not claims.try_claim(account, "backfill", for_transaction=True):
        raise Busy("A backfill of this account is in progress. Wait for it to finish or stop it.")
    account.execute("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", bookkeeping.ERASED)
    _identify(account, email, member_ids)
    counts = _clear_events(account, email)
    counts[bookkeeping.MISSING_ROWS.name] = _delete_named(account, bookkeeping.MISSING_ROWS)
    _delete_named(account, bookkeeping.TOUCHED)
    with touched.unrecorded(account):
        for table, condition in _DELETED:
            counts[table.name] = _delete(account, table, condition)
    account.execute(_RECORD, bookkeeping.ERASED)
    account.execute(_RECORD_ADDRESSES, bookkeeping.ERASED_ADDRESSES)
    return counts


def _identify(account: Account, email: str | None, member_ids: Sequence[str]) -> None:
    """Collect the profiles and addresses of the people in temporary tables that are dropped at commit."""
    account.execute("CREATE TEMPORARY TABLE erasing_members (member_id text, member_key text) ON COMMIT DROP")
    account.execute("CREATE TEMPORARY TABLE erasing_addresses (email text) ON COMMIT DROP")
    parts = {"members": account.table(dimensions.MEMBERS), "all_events": _all_events(account)}
    if email is not None:
        account.execute(account.compose(_MEMBERS_WITH_ADDRESS, **parts), email=email)
    account.execute(_MEMBERS_WITH_ID, ids=list(member_ids))
    account.execute(_MERGED_INTO_THEM, membership.PROFILE_MERGES)
    account.execute(account.compose(_ADDRESSES, **parts, of_member=_OF_MEMBER), email=email)


def _all_events(account: Account) -> Composed:
    return SQL(" UNION ALL ").join(_EVENTS.format(account.table(table)) for table in events.EVENT_TABLES)


def _clear_events(account: Account, email: str | None) -> dict[str, int]:
    """Clear the events of the people, and what flow campaigns have from these events."""
    parts = {"all_events": _all_events(account), "is_theirs": _IS_THEIRS}
    account.execute(account.compose(_CAMPAIGNS, **parts), email=email)
    counts = {table.name: _clear_table(account, table, email) for table in events.EVENT_TABLES}
    deleted = _delete(account, dimensions.CAMPAIGNS, _IS_UNNAMEABLE, message_id=MESSAGE_ID)
    renamed = account.execute(
        account.compose(_RENAME_CAMPAIGNS, **parts, campaigns=account.table(dimensions.CAMPAIGNS))
    ).rowcount
    return {**counts, dimensions.CAMPAIGNS.name: deleted + renamed}


def _clear_table(account: Account, table: Table, email: str | None) -> int:
    query = account.compose(_CLEAR_EVENTS, table, is_theirs=_IS_THEIRS, key=row_key(SQL("md5(id)")))
    return account.execute(query, email=email, currencies=sorted(CURRENCIES), event_id=EVENT_ID).rowcount


def _delete(account: Account, table: Table, condition: Composable, **values: object) -> int:
    query = account.compose("DELETE FROM {} WHERE esp_integration_id = %(account)s AND {where}", table, where=condition)
    return account.execute(query, **values).rowcount


def _delete_named(account: Account, table: Table) -> int:
    """Delete rows that name others by their keys: while the excluded addresses, whose keys they have, exist."""
    tables = table, membership.MEMBER_EXCLUSIONS
    return account.execute(account.compose(_DELETE_NAMED, *tables, of_address=_OF_ADDRESS)).rowcount


def wait_for_erasing(connection: Connection, schema: str) -> None:
    """Wait for erasing that is in progress, and block any other until this transaction ends."""
    query = SQL("SELECT FROM {} LIMIT 0")  # takes the weakest lock that erasing waits for
    connection.execute(query.format(Identifier(schema, bookkeeping.ERASED.name)))


def erased(account: Account) -> set[str]:
    """Return the member keys of the people who were erased. Blocks further erasing until the transaction ends."""
    query = "SELECT member_key FROM {} WHERE esp_integration_id = %(account)s"
    return {member_key for (member_key,) in account.execute(query, bookkeeping.ERASED)}


def erased_addresses(account: Account) -> set[str]:
    """Return the keys of the addresses of the people who were erased."""
    query = "SELECT address_key FROM {} WHERE esp_integration_id = %(account)s"
    return {address_key for (address_key,) in account.execute(query, bookkeeping.ERASED_ADDRESSES)}


def owned(account: Account, addresses: Sequence[str]) -> set[str]:
    """Return those of the addresses, in lower case, that stored people have."""
    rows = account.execute(_OWNED, dimensions.MEMBERS, addresses=list(addresses)) if addresses else ()
    return {address for (address,) in rows}
