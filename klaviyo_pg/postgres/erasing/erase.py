"""Erasing people from all tables but those of events. The caller owns the transaction, and calls the steps in order.

The steps and their order are in pipeline.erasing. Each can be repeated: what is done is in the table `erasing`.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from psycopg.sql import SQL, Composable, Composed, Identifier

from klaviyo_pg.catalogue import Table, bookkeeping, dimensions, membership, on_request, segments, stored_marts
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres import accounts, claims, touched
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.load import INDEXABLE
from klaviyo_pg.postgres.patience import Patience, patiently
from klaviyo_pg.postgres.statements import row_key

CLAIM = "erasing"
"""Claimed by the process that erases the people who were requested. Others can be requested at any time."""
RECORDED_AT_ONCE = 500
"""People in the transaction that other batches have to wait for."""

_PEOPLE = "people who are erased"
_PATIENCE = Patience("2s", 1.0, 300)  # with batches in progress

# The table is read as a whole only if there are addresses to look for.
_COUNT_STORED = """
SELECT count(*) FROM (
    SELECT key FROM {members} WHERE key IN (SELECT {key} FROM unnest(%(ids)s::text[]) AS ids (id))
    UNION
    SELECT key FROM {members} WHERE cardinality(%(addresses)s::text[]) > 0
    AND esp_integration_id = %(account)s AND lower(email) = ANY(%(addresses)s)
) AS named
"""
_ADD_PROFILES = """
INSERT INTO {erasing} (esp_integration_id, kind, value, member_id, is_found)
SELECT DISTINCT %(account)s, 'profile', md5(id), id, EXISTS (SELECT FROM {members} AS member WHERE member.key = {key})
FROM unnest(%(ids)s::text[]) AS ids (id) ON CONFLICT DO NOTHING
"""
_ADD_NAMED = """
INSERT INTO {erasing} (esp_integration_id, kind, value, is_found)
SELECT DISTINCT %(account)s, 'named', lower(address), EXISTS (
    SELECT FROM {member_exclusions} AS excluded
    WHERE excluded.esp_integration_id = %(account)s AND lower(excluded.email) = lower(address)
) OR EXISTS (
    SELECT FROM {reviews} AS review
    WHERE review.esp_integration_id = %(account)s AND lower(review.email) = lower(address)
)
FROM unnest(%(addresses)s::text[]) AS addresses (address) ON CONFLICT DO NOTHING
"""
_ADD_OWNERS = """
INSERT INTO {erasing} (esp_integration_id, kind, value, member_id, is_found)
SELECT %(account)s, 'profile', member_key, id, true FROM {members}
WHERE esp_integration_id = %(account)s AND lower(email) IN {named} ON CONFLICT DO NOTHING
"""
# As with events: people without an address in members whose exclusion has a named one.
_ADD_EXCLUDED = """
INSERT INTO {erasing} (esp_integration_id, kind, value, member_id, is_found)
SELECT DISTINCT %(account)s, 'profile', md5(member_id), member_id, true FROM {member_exclusions} AS excluded
WHERE esp_integration_id = %(account)s AND lower(email) IN {named} AND member_id IS NOT NULL
AND NOT EXISTS (SELECT FROM {members} AS member WHERE member.key = {key} AND member.email IS NOT NULL)
ON CONFLICT DO NOTHING
"""
_HAVE_OWNERS = """
UPDATE {erasing} SET is_found = true
WHERE esp_integration_id = %(account)s AND kind = 'named' AND NOT is_found AND value IN (
    SELECT lower(email) FROM {members} WHERE esp_integration_id = %(account)s AND lower(email) IN {named}
)
"""
# The profiles that were merged into them, directly or by way of others.
_ADD_MERGED = """
WITH RECURSIVE merged (member_id, member_key) AS (
    SELECT member_id, value COLLATE "C" FROM {erasing} WHERE esp_integration_id = %(account)s AND kind = 'profile'
    UNION
    SELECT merge.old_member_id, merge.old_member_key
    FROM {profile_merges} AS merge JOIN merged ON merge.new_member_key = merged.member_key
    WHERE merge.esp_integration_id = %(account)s
)
INSERT INTO {erasing} (esp_integration_id, kind, value, member_id, is_found)
SELECT %(account)s, 'profile', member_key, max(member_id), true FROM merged GROUP BY member_key ON CONFLICT DO NOTHING
"""
_USED = """
SELECT email FROM {members} WHERE esp_integration_id = %(account)s AND {of_member}
UNION ALL
SELECT email FROM {member_exclusions} WHERE esp_integration_id = %(account)s AND {of_excluded}
UNION ALL
SELECT email FROM {swept_exclusions} WHERE esp_integration_id = %(account)s AND {of_excluded}
"""
# All addresses that they have had, except those that belong to someone else now. Longer ones only events can have. IS
# TRUE makes the condition a lookup in a hash table: as a join, it would be planned without statistics about people who
# have just been added.
_ADD_ADDRESSES = """
WITH used AS MATERIALIZED (
    SELECT lower(email) AS email FROM ({used}) AS used WHERE octet_length(email) <= %(longest)s
    EXCEPT SELECT value FROM {erasing} WHERE esp_integration_id = %(account)s AND kind = 'address'
), others AS MATERIALIZED (
    SELECT lower(email) AS email FROM {members} WHERE esp_integration_id = %(account)s AND EXISTS (SELECT FROM used)
    AND (lower(email) IN (SELECT email FROM used)) IS TRUE AND member_key NOT IN {profiles}
)
INSERT INTO {erasing} (esp_integration_id, kind, value)
SELECT %(account)s, 'address', email FROM (SELECT email FROM used EXCEPT SELECT email FROM others) AS theirs
ON CONFLICT DO NOTHING
"""
_RECORD = """
WITH due AS (
    SELECT value FROM {erasing} WHERE esp_integration_id = %(account)s AND kind = 'profile' AND recorded_at IS NULL
    ORDER BY value LIMIT %(limit)s
), recorded AS (
    INSERT INTO {erased} SELECT %(account)s, value, now() FROM due
    ON CONFLICT (esp_integration_id, member_key) DO UPDATE SET erased_at = excluded.erased_at
)
UPDATE {erasing} AS erasing SET recorded_at = now() FROM due
WHERE erasing.esp_integration_id = %(account)s AND erasing.kind = 'profile' AND erasing.value = due.value
"""
_RECORD_ADDRESSES = """
WITH due AS (
    UPDATE {erasing} SET recorded_at = now()
    WHERE esp_integration_id = %(account)s AND recorded_at IS NULL
    AND (kind = 'address' OR kind = 'named' AND is_found) RETURNING value
)
INSERT INTO {erased_addresses} SELECT DISTINCT %(account)s, md5(%(account)s || ':' || value), now() FROM due
ON CONFLICT (esp_integration_id, address_key) DO UPDATE SET erased_at = excluded.erased_at
"""
_UNRECORDED = """
SELECT EXISTS (
    SELECT FROM {erasing} WHERE esp_integration_id = %(account)s AND recorded_at IS NULL
    AND (kind IN ('profile', 'address') OR kind = 'named' AND is_found)
)
"""
_OF_KIND = "(SELECT value FROM {erasing} WHERE esp_integration_id = %(account)s AND kind {kind})"
_PROFILES = """
(
    SELECT {column} FROM {erasing} WHERE esp_integration_id = %(account)s AND kind = 'profile' AND {conditions}
)
"""
_HAS_ID = "member_id IS NOT NULL"
_IS_UNRECORDED = "recorded_at IS NULL"
_IS_RECORDED = "recorded_at = now()"  # in this transaction
_LISTED = """
(
    SELECT {key} FROM {erasing} AS erasing, {lists} AS list
    WHERE erasing.esp_integration_id = %(account)s AND erasing.kind = 'profile' AND erasing.member_id IS NOT NULL
    AND erasing.recorded_at = now() AND list.esp_integration_id = %(account)s
)
"""
# An id of a person is found if any table has something about it.
_DELETE = """
WITH deleted AS (
    DELETE FROM {} WHERE esp_integration_id = %(account)s AND {where} RETURNING {member_key} AS member_key
), found AS (
    UPDATE {erasing} SET is_found = true WHERE esp_integration_id = %(account)s AND kind = 'profile' AND NOT is_found
    AND value IN (SELECT member_key FROM deleted)
)
SELECT count(*) FROM deleted
"""
_OF_ADDRESS = "(lower(email) IN {addresses} OR _sync_id IN (SELECT md5(value) FROM {addresses} AS theirs (value)))"
# An address that belongs to someone else now stays excluded, without the ID of the profile that had it.
_OF_EXCLUSION = """
({of_address} OR md5(member_id) IN {profiles} AND lower(email) IN (
    SELECT lower(member.email) FROM {members} AS member
    WHERE member.esp_integration_id = %(account)s AND member.member_key NOT IN {profiles} AND (lower(member.email) IN (
        SELECT lower(email) FROM {table} WHERE esp_integration_id = %(account)s AND md5(member_id) IN {profiles}
    )) IS TRUE
) IS NOT TRUE)
"""
_DISOWN = """
UPDATE {} SET member_id = NULL, __synced_at = now() WHERE esp_integration_id = %(account)s
AND md5(member_id) IN {profiles}
"""
_OF_MISSING_ROWS = """
(md5(row_key) IN {profiles} OR row_key IN (
    SELECT _sync_id FROM {member_exclusions} WHERE esp_integration_id = %(account)s AND {of_exclusion}
))
"""
# The first part takes the lock, whatever there is to look up.
_FINISHED = """
WITH gone AS (DELETE FROM {erasing} WHERE esp_integration_id = %(account)s RETURNING kind, is_found)
SELECT count(*) FILTER (WHERE kind = 'profile' AND is_found), count(*) FILTER (WHERE kind = 'profile' AND NOT is_found),
    count(*) FILTER (WHERE kind = 'named' AND NOT is_found)
FROM gone
"""
_MEMBER_ID = Identifier("member_id")
_NO_KEY = SQL("NULL::text")
_OF_ID = SQL("md5(member_id)")
_OF_KEY = SQL("member_key")


class Finished(NamedTuple):
    """The numbers of profiles that were found and that were not, and of named addresses that were not."""

    found: int
    unknown_ids: int
    unknown_addresses: int


def stored_profiles(account: Account, addresses: Collection[str], member_ids: Collection[str]) -> int:
    """Return how many stored profiles have one of these addresses or IDs."""
    query = account.compose(_COUNT_STORED, key=row_key(Identifier("ids", "id")))
    return int(account.scalar(query, addresses=[each.lower() for each in addresses], ids=list(member_ids)))


def request(account: Account, addresses: Collection[str], member_ids: Collection[str]) -> None:
    """Add people to those who are being erased, with the profiles that were merged into them and their addresses.

    Raises BadSettings if the account is being removed from the warehouse, or has been.
    """
    lock_people(account)
    if not accounts.stays(account):
        raise BadSettings("Nothing was erased: the account is being removed from this warehouse, with all of its rows.")
    profiles = account.compose(_ADD_PROFILES, key=row_key(Identifier("ids", "id")))
    added = account.execute(profiles, ids=list(member_ids)).rowcount
    if addresses:
        parts = parts_of(account)
        added += account.execute(_ADD_NAMED, addresses=list(addresses)).rowcount
        added += account.execute(account.compose(_ADD_OWNERS, **parts)).rowcount
        excluded = account.compose(_ADD_EXCLUDED, **parts, key=row_key(Identifier("excluded", "member_id")))
        added += account.execute(excluded).rowcount
        account.execute(account.compose(_HAVE_OWNERS, **parts))
    added += add_merged(account)
    if added:
        add_addresses(account, _used(account))
        search_again(account)


def _used(account: Account) -> Composed:
    """Return the query for the addresses that tables other than those of events have of the people."""
    parts = parts_of(account)
    of_member, of_excluded = (
        account.compose(f"{key} IN {{profiles}}", **parts) for key in ("member_key", "md5(member_id)")
    )
    return account.compose(_USED, of_member=of_member, of_excluded=of_excluded)


def _used_by_unrecorded(account: Account) -> Composed:
    """Return the same query for the people who are not recorded yet. It is slow only if someone's ID is unknown."""
    if _has_unknown_ids(account, of_unrecorded=True):
        return _used(account)
    keys, ids = (_profiles(account, each, _HAS_ID, _IS_UNRECORDED) for each in (row_key(_MEMBER_ID), _MEMBER_ID))
    of_member, of_excluded = SQL("key IN {}").format(keys), SQL("member_id IN {}").format(ids)
    return account.compose(_USED, of_member=of_member, of_excluded=of_excluded)


def lock_people(account: Account) -> None:
    """Keep others from adding people to those who are being erased until this transaction ends."""
    claims.take_turns(account, _PEOPLE)


def add_merged(account: Account) -> int:
    """Add the profiles that were merged into those who are being erased, and return how many were added.

    If there are any, all event tables have to be searched again.
    """
    added = account.execute(_ADD_MERGED).rowcount
    if added:
        search_again(account)
    return added


def add_addresses(account: Account, used: Composable) -> int:
    """Add the addresses that a query returns, unless someone else has them, and return how many were added."""
    query = account.compose(_ADD_ADDRESSES, **parts_of(account), used=used)
    return account.execute(query, longest=INDEXABLE).rowcount


def search_again(account: Account) -> None:
    """Let all event tables be searched, because there are more people to erase."""
    account.execute("DELETE FROM {erasing} WHERE esp_integration_id = %(account)s AND kind = 'table'")


def parts_of(account: Account) -> dict[str, Composable]:
    """Return the parts of queries that say who is being erased: member keys, named addresses, and all addresses."""
    return {
        "profiles": _of_kind(account, "= 'profile'"),
        "named": _of_kind(account, "= 'named'"),
        "addresses": _of_kind(account, "IN ('named', 'address')"),
    }


def _of_kind(account: Account, kind: str) -> Composed:
    return account.compose(_OF_KIND, kind=SQL(kind))


def _profiles(account: Account, column: Composable, *conditions: str) -> Composed:
    """Return the query of a column of the people's profiles that meet all conditions."""
    return account.compose(_PROFILES, column=column, conditions=SQL(" AND ").join(map(SQL, conditions)))


def pending(account: Account) -> int:
    """Return the number of people whose erasing is not finished: profiles, and addresses without one so far."""
    query = (
        "SELECT greatest(1, count(*) FILTER (WHERE kind = 'profile' OR kind = 'named' AND NOT is_found)) FROM {erasing}"
        " WHERE esp_integration_id = %(account)s HAVING count(*) > 0"
    )
    return int(account.scalar(query) or 0)


def is_unrecorded(account: Account) -> bool:
    """Return whether `record` has anything to do."""
    return account.is_true(_UNRECORDED)


def record(account: Account) -> dict[str, int]:
    """Record some people as erased, and delete what says that they may be contacted. Return the numbers of rows.

    Waits for batches in progress, and adds the merged profiles and addresses that they have stored. Later ones leave
    these people out.
    """
    lock_out_batches_and_people(account)
    add_merged(account)
    add_addresses(account, _used_by_unrecorded(account))
    account.execute(_RECORD, limit=RECORDED_AT_ONCE)
    account.execute(_RECORD_ADDRESSES)
    keys = _profiles(account, SQL("value"), _IS_RECORDED)
    merged = SQL("(old_member_key IN {0} OR new_member_key IN {0})").format(keys)
    on_list = SQL("md5(list.id || ':' || erasing.member_id)")
    stored = SQL("key IN {}").format(_profiles(account, row_key(_MEMBER_ID), _HAS_ID, _IS_RECORDED))
    with_id = SQL("member_id IN {}").format(_profiles(account, _MEMBER_ID, _HAS_ID, _IS_RECORDED))
    listed = account.compose(_LISTED, key=row_key(SQL("list.id || ':' || erasing.member_id")))
    deleted = [
        (membership.STG_MEMBER_LISTS, SQL("_sync_id IN {}").format(account.compose(_LISTED, key=on_list))),
        (membership.MEMBER_LISTS, SQL("key IN {}").format(listed)),
        (membership.MEMBER_CONSENTS, with_id),
        (dimensions.MEMBERS, stored),
        (dimensions.MEMBER_ATTRIBUTES, stored),
        (membership.PROFILE_MERGES, merged),  # or its events would move
    ]
    member_key = {each.table.name: each.member_key for each in (*DELETED_FIRST, *DELETED_LAST)}
    return {table.name: _delete(account, table, where, member_key[table.name]) for table, where in deleted}


def lock_out_batches(account: Account) -> None:
    """Wait for all transactions that store people, and let others wait until this one ends.

    Raises Busy if one does not end.
    """
    lock = account.compose("LOCK TABLE {erased} IN ACCESS EXCLUSIVE MODE")
    patiently(account.connection, lock, _PATIENCE, bookkeeping.ERASED.name)


def _has_unknown_ids(account: Account, of_unrecorded: bool = False) -> bool:
    query = (
        "SELECT EXISTS (SELECT FROM {erasing} WHERE esp_integration_id = %(account)s AND kind = 'profile'"
        " AND member_id IS NULL AND (recorded_at IS NULL OR NOT %(of_unrecorded)s))"
    )
    return account.is_true(query, of_unrecorded=of_unrecorded)


class Deletion(NamedTuple):
    """The rows about the people in a table: their condition, and the member key of such a row.

    With `disowns`, those that stay because someone else has their address now lose the ID of the person.
    """

    table: Table
    where: Callable[[Account, Table], Composable]
    member_key: Composable = _NO_KEY
    disowns: bool = False


def _with_key(account: Account, table: Table) -> Composed:
    return account.compose("member_key IN {profiles}", **parts_of(account))


def _with_id(account: Account, table: Table) -> Composed:
    if _has_unknown_ids(account):
        return account.compose("md5(member_id) IN {profiles}", **parts_of(account))
    return SQL("member_id IN {}").format(_profiles(account, _MEMBER_ID, _HAS_ID))  # has an index


def _with_address(account: Account, table: Table) -> Composed:
    return account.compose("lower(email) IN {addresses}", **parts_of(account))


def _merged_into_others(account: Account, table: Table) -> Composed:
    """Return the condition of the people's merges into others. `add_merged` still needs those into the people."""
    return account.compose("old_member_key IN {profiles}", **parts_of(account))


def _with_row_key(account: Account, table: Table) -> Composed:
    excluded = _of_exclusion(account, membership.MEMBER_EXCLUSIONS)
    return account.compose(_OF_MISSING_ROWS, **parts_of(account), of_exclusion=excluded)


def _of_exclusion(account: Account, table: Table) -> Composed:
    parts = parts_of(account) | {"table": account.table(table)}
    return account.compose(_OF_EXCLUSION, **parts, of_address=account.compose(_OF_ADDRESS, **parts))


DELETED_FIRST = (
    Deletion(membership.STG_MEMBER_LISTS, _with_id, _OF_ID),
    Deletion(dimensions.MEMBERS, _with_key, _OF_KEY),
    Deletion(dimensions.MEMBER_ATTRIBUTES, _with_key, _OF_KEY),
    Deletion(membership.SWEPT_EXCLUSIONS, _of_exclusion, _OF_ID, disowns=True),
)
"""Deletions from tables that others are derived or filled from."""
DELETED_LAST = (
    Deletion(membership.MEMBER_LISTS, _with_id, _OF_ID),
    Deletion(membership.SUBSCRIPTION_CHANGES, _with_id, _OF_ID),
    Deletion(membership.LIST_SUPPRESSIONS, _with_id, _OF_ID),
    Deletion(membership.MEMBER_CONSENTS, _with_id, _OF_ID),
    Deletion(membership.MISSING_PROFILES, _with_id, _OF_ID),
    Deletion(membership.SWEPT_MEMBERS, _with_id, _OF_ID),
    Deletion(segments.SEGMENT_MEMBERS, _with_id, _OF_ID),
    Deletion(on_request.COUPON_CODES, _with_key, _OF_KEY),
    Deletion(on_request.PUSH_TOKENS, _with_key, _OF_KEY),
    Deletion(on_request.MEMBER_PREDICTIONS, _with_key, _OF_KEY),
    Deletion(stored_marts.MEMBER_ENGAGEMENT.table, _with_key, _OF_KEY),
    Deletion(membership.PROFILE_MERGES, _merged_into_others),
    Deletion(bookkeeping.MISSING_ROWS, _with_row_key),
    Deletion(bookkeeping.TOUCHED, _with_row_key),
    Deletion(membership.STG_MEMBER_EXCLUSIONS, _of_exclusion, _OF_ID, disowns=True),
    Deletion(membership.MEMBER_EXCLUSIONS, _of_exclusion, _OF_ID, disowns=True),
    Deletion(on_request.REVIEWS, _with_address),
)
"""Deletions from the other tables, in the order in which they are made."""


def delete(account: Account, deletion: Deletion) -> int:
    """Delete all rows of the people from a table, and return their number."""
    table = deletion.table
    deleted = _delete(account, table, deletion.where(account, table), deletion.member_key)
    if deletion.disowns:
        with touched.unrecorded(account):  # the addresses stay excluded
            account.execute(account.compose(_DISOWN, table, **parts_of(account)))
    return deleted


def _delete(account: Account, table: Table, where: Composable, member_key: Composable) -> int:
    query = account.compose(_DELETE, table, where=where, member_key=member_key)
    with touched.unrecorded(account):  # it concerns no other person
        return int(account.scalar(query))


def lock_out_batches_and_people(account: Account) -> None:
    """Keep batches from being stored, and people from being added, until this transaction ends.

    Batches are waited for first, because that can take minutes in which others may want to add people.
    """
    lock_out_batches(account)
    lock_people(account)


def finish(account: Account) -> Finished | None:
    """Forget the people who have been erased, and return their numbers; None if an event is left to clear."""
    query = "SELECT EXISTS (SELECT FROM {erasing_events} WHERE esp_integration_id = %(account)s)"
    if is_unrecorded(account) or account.is_true(query):
        return None
    numbers = account.execute(_FINISHED).fetchone()
    assert numbers is not None
    return Finished(*numbers)
