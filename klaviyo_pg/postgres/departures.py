"""Profiles that Klaviyo no longer has: which to look for, and the effects of their absence. The caller owns the
transaction.

A profile is missing once a request by its ID does not return it. See docs/people.md.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg.sql import SQL, Identifier

from klaviyo_pg.catalogue import Load, events, membership
from klaviyo_pg.errors import UnconfirmedLoss
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erased_people
from klaviyo_pg.postgres.losses import LEAST
from klaviyo_pg.postgres.statements import is_future, of_all_events, row_key, stage_name

_CONFIRMED = "missing.last_missing_at >= missing.missing_since + interval '1 day'"
"""Holds for a profile that was missing on two days, so that it need not be looked for again."""

# Of the profiles created in a window, those that are not among the ones found there.
_UNSEEN = f"""
SELECT member.id FROM {{members}} AS member
WHERE member.esp_integration_id = %(account)s
AND member.created_at >= coalesce(%(start)s, '-infinity'::timestamptz)
AND member.created_at < coalesce(%(end)s, 'infinity'::timestamptz)
AND member.id <> ALL(%(found)s) AND NOT EXISTS (
    SELECT FROM {{missing_profiles}} AS missing
    WHERE missing.esp_integration_id = %(account)s AND missing.member_id = member.id AND {_CONFIRMED}
) ORDER BY member.id
"""
_RETURNED = """
SELECT member_id FROM {missing_profiles} WHERE esp_integration_id = %(account)s AND member_id = ANY(%(found)s)
ORDER BY member_id
"""
# Profiles that have lost an event to another profile, and missing ones that are not marked because they were too many.
_SUSPECTED = """
SELECT suspected.id FROM (
    SELECT merge.old_member_id AS id FROM {profile_merges} AS merge
    WHERE merge.esp_integration_id = %(account)s AND merge.events_moved_at IS NULL AND NOT EXISTS (
        SELECT FROM {missing_profiles} AS missing
        WHERE missing.esp_integration_id = %(account)s AND missing.member_id = merge.old_member_id
    )
    UNION
    SELECT missing.member_id FROM {missing_profiles} AS missing JOIN {members} AS member ON member.key = {member_key}
    WHERE missing.esp_integration_id = %(account)s AND member.deleted_at IS NULL
) AS suspected
WHERE suspected.id > %(after)s ORDER BY suspected.id LIMIT %(limit)s
"""
_MONTHS = """
SELECT date_trunc('month', created_at, 'UTC') AS start, count(*) AS people FROM {members}
WHERE esp_integration_id = %(account)s AND created_at IS NOT NULL GROUP BY 1 ORDER BY 1
"""
# Missing profiles whose owner has not been asked for yet, with the last event of each. Klaviyo says when that was, so
# the primary key finds it.
_ORPHANED = """
SELECT missing.member_id, (
    SELECT event.id FROM ({near}) AS event LIMIT 1
) FROM {missing_profiles} AS missing LEFT JOIN {members} AS member ON member.key = {member_key}
WHERE missing.esp_integration_id = %(account)s AND missing.asked_at IS NULL ORDER BY missing.member_id LIMIT %(limit)s
"""
_NEAR = """
SELECT event.id FROM {} AS event WHERE event.esp_integration_id = %(account)s AND event.member_key = member.member_key
AND event.event_at >= member.last_event_date - interval '1 second'
AND event.event_at < member.last_event_date + interval '1 second'
"""
# The latest event of each of the other ones. Without an index by person, this reads all events.
_LATEST = """
SELECT DISTINCT ON (missing.member_id) missing.member_id, event.id
FROM (SELECT member_id, md5(member_id) AS member_key FROM unnest(%(ids)s::text[]) AS ids (member_id)) AS missing
JOIN ({all_events}) AS event USING (member_key)
ORDER BY missing.member_id, event.event_at DESC
"""
_EVENTS = "SELECT member_key, id, event_at FROM {} WHERE esp_integration_id = %(account)s"
# An event that is stored with one profile (old) and read again with another one (new) shows that old was merged into
# new. But if new is gone, and its events have followed merges to old, the event was read before those merges.
_DETECT = """
WITH RECURSIVE detected AS MATERIALIZED (
    SELECT DISTINCT stored.member_key AS old_member_key, stage.member_key AS new_member_key
    FROM {stage} AS stage CROSS JOIN LATERAL (
        SELECT member_key, extracted_at FROM {stored_events} AS stored
        WHERE stored.event_at = stage.event_at AND stored.key = stage.key OFFSET 0
    ) AS stored
    WHERE stored.member_key <> stage.member_key
    AND (stage.extracted_at >= stored.extracted_at OR {is_future})
), followed (gone, member_key) AS (
    SELECT merge.old_member_key, merge.new_member_key
    FROM detected JOIN {profile_merges} AS merge
        ON merge.esp_integration_id = %(account)s AND merge.old_member_key = detected.new_member_key
    JOIN {missing_profiles} AS missing
        ON missing.esp_integration_id = %(account)s AND missing.member_id = merge.old_member_id
    UNION
    SELECT followed.gone, merge.new_member_key
    FROM followed JOIN {profile_merges} AS merge
        ON merge.esp_integration_id = %(account)s AND merge.old_member_key = followed.member_key
)
INSERT INTO {profile_merges} (esp_integration_id, old_member_key, new_member_key, detected_at)
SELECT %(account)s, old_member_key, new_member_key, now() FROM detected
WHERE (new_member_key, old_member_key) NOT IN (SELECT gone, member_key FROM followed)
ON CONFLICT DO NOTHING
"""
# Most batches have thousands of members: as one text, their keys are sent and read in a tenth of the time of an array,
# and with IS TRUE they become a hash table.
_OF_MEMBERS = """
esp_integration_id = %(account)s AND (old_member_key IN (SELECT unnest(string_to_array(%(members)s, ' ')))) IS TRUE
"""
# In one order, so that batches wait for each other instead of deadlocking.
_LOCK = f"""
SELECT events_moved_at IS NOT NULL FROM {{profile_merges}} WHERE {_OF_MEMBERS}
ORDER BY old_member_key, new_member_key FOR UPDATE
"""
_FOLLOW_AGAIN = f"UPDATE {{profile_merges}} SET events_moved_at = NULL WHERE {_OF_MEMBERS}"
_IDENTIFY = """
UPDATE {profile_merges} AS merge SET
    old_member_id = coalesce(merge.old_member_id, old.id), new_member_id = coalesce(merge.new_member_id, new.id)
FROM (
    SELECT pending.old_member_key, pending.new_member_key FROM {profile_merges} AS pending
    WHERE pending.esp_integration_id = %(account)s
    AND (pending.old_member_id IS NULL OR pending.new_member_id IS NULL) AND pending.events_moved_at IS NULL
) AS pending
LEFT JOIN {members} AS old ON old.esp_integration_id = %(account)s AND old.member_key = pending.old_member_key
LEFT JOIN {members} AS new ON new.esp_integration_id = %(account)s AND new.member_key = pending.new_member_key
WHERE merge.esp_integration_id = %(account)s AND merge.old_member_key = pending.old_member_key
AND merge.new_member_key = pending.new_member_key AND (
    merge.old_member_id IS NULL AND old.id IS NOT NULL OR merge.new_member_id IS NULL AND new.id IS NOT NULL
)
"""
_FORGET_FOUND = """
DELETE FROM {missing_profiles} AS missing USING {members} AS member
WHERE missing.esp_integration_id = %(account)s AND member.key = {member_key}
AND member.updated_at > missing.last_missing_at AND NOT {is_future}
"""
_COUNT_UNCONFIRMED = """
SELECT
    (
        SELECT count(*) FROM {missing_profiles} AS missing JOIN {members} AS member ON member.key = {member_key}
        WHERE missing.esp_integration_id = %(account)s AND member.deleted_at IS NULL
        AND missing.missing_since = missing.last_missing_at
    ),
    (SELECT count(*) FROM {members} WHERE esp_integration_id = %(account)s AND deleted_at IS NULL)
WHERE EXISTS (SELECT FROM {missing_profiles} WHERE esp_integration_id = %(account)s)
"""
_MARK = """
UPDATE {members} AS member SET
    deleted_at = missing.missing_since, left_reason = missing.reason, __synced_at = now(),
    updated_at = greatest(member.updated_at, missing.last_missing_at)
FROM (
    SELECT missing.*, {member_key} AS key, CASE WHEN EXISTS (
        SELECT FROM {profile_merges} AS merge
        WHERE merge.esp_integration_id = %(account)s AND merge.old_member_key = md5(missing.member_id)
    ) THEN 'merged' ELSE 'deleted' END AS reason
    FROM {missing_profiles} AS missing WHERE missing.esp_integration_id = %(account)s
    AND NOT (%(too_many)s AND missing.missing_since = missing.last_missing_at)
) AS missing
WHERE member.key = missing.key
AND (member.deleted_at, member.left_reason) IS DISTINCT FROM (missing.missing_since, missing.reason)
"""
# All events follow once the old profile is gone and the other one is stored. Of several profiles that took events over,
# it is the one detected last. If that one is gone as well, it is the one that it was merged into.
_MERGED = """
CREATE TEMPORARY TABLE merged_profiles ON COMMIT DROP AS
WITH RECURSIVE followed AS (
    SELECT DISTINCT old_member_key, old_member_id, old_member_key AS member_key, old_member_id AS member_id,
        ARRAY[]::text[] COLLATE "C" AS passed
    FROM {profile_merges} WHERE esp_integration_id = %(account)s AND events_moved_at IS NULL
    UNION ALL
    SELECT followed.old_member_key, followed.old_member_id, next.new_member_key, next.new_member_id,
        followed.passed || followed.member_key
    FROM followed CROSS JOIN LATERAL (
        SELECT merge.new_member_key, merge.new_member_id
        FROM {profile_merges} AS merge JOIN {missing_profiles} AS missing
            ON missing.esp_integration_id = %(account)s AND missing.member_id = merge.old_member_id
        WHERE merge.esp_integration_id = %(account)s AND merge.old_member_key = followed.member_key
        AND NOT EXISTS (
            SELECT FROM {erased} WHERE esp_integration_id = %(account)s AND member_key = merge.new_member_key
        )
        ORDER BY merge.detected_at DESC LIMIT 1
    ) AS next
    WHERE next.new_member_key <> ALL(followed.passed)
)
SELECT DISTINCT ON (followed.old_member_key) followed.old_member_key, followed.old_member_id,
    member.member_key AS new_member_key, member.id AS new_member_id, member.email
FROM followed JOIN {members} AS member ON member.key = {followed_key}
WHERE followed.member_key <> followed.old_member_key
ORDER BY followed.old_member_key, cardinality(followed.passed) DESC
"""
# Batches that store events of these profiles are waited for, and later ones wait: what they store has to follow, too.
_WAIT_FOR_BATCHES = """
SELECT FROM {profile_merges} AS merge JOIN merged_profiles AS merged USING (old_member_key)
WHERE merge.esp_integration_id = %(account)s AND merge.events_moved_at IS NULL
ORDER BY merge.old_member_key, merge.new_member_key FOR UPDATE OF merge
"""
# A hashed address has no domain, so the one of the earlier address remains.
_MOVE_EVENTS = """
UPDATE {} AS event SET member_key = merged.new_member_key, email = merged.email, __synced_at = now(),
    email_domain = CASE WHEN merged.email IS NOT NULL
        THEN coalesce(lower(substring(merged.email FROM '@([^@]+)$')), event.email_domain) END
FROM merged_profiles AS merged
WHERE event.esp_integration_id = %(account)s AND event.member_key = merged.old_member_key
"""
_MOVE_CHANGES = """
WITH moved AS (
    DELETE FROM {subscription_changes} AS change USING merged_profiles AS merged
    WHERE change.esp_integration_id = %(account)s AND change.member_id = merged.old_member_id
    RETURNING change.*, merged.new_member_id
)
INSERT INTO {subscription_changes} ({columns}) SELECT {values} FROM moved ON CONFLICT DO NOTHING
"""
_MOVED = """
UPDATE {profile_merges} AS merge SET events_moved_at = now() FROM merged_profiles AS merged
WHERE merge.esp_integration_id = %(account)s AND merge.old_member_key = merged.old_member_key
AND merge.events_moved_at IS NULL
"""
_TO_ERASE = f"""
SELECT missing.member_id FROM {{missing_profiles}} AS missing JOIN {{members}} AS member ON member.key = {{member_key}}
WHERE missing.esp_integration_id = %(account)s AND member.left_reason = 'deleted' AND {_CONFIRMED}
AND missing.asked_at IS NOT NULL ORDER BY missing.member_id
"""
_MERGED_INTO_ERASED = """
SELECT DISTINCT merge.old_member_id FROM {profile_merges} AS merge
JOIN {erased} AS erased ON erased.esp_integration_id = %(account)s AND erased.member_key = merge.new_member_key
WHERE merge.esp_integration_id = %(account)s AND merge.old_member_id IS NOT NULL ORDER BY 1
"""
_KEY_OF_MISSING = row_key(Identifier("missing", "member_id"))


class Month(NamedTuple):
    """A month in which profiles were created, and how many of them are stored."""

    start: datetime
    people: int


class Orphan(NamedTuple):
    """A missing profile and one of its events, if any is stored."""

    member_id: str
    event_id: str | None


def months(account: Account) -> list[Month]:
    """Return the months (UTC) in which the stored profiles were created, in order."""
    return [Month(start, people) for start, people in account.execute(_MONTHS)]


def unseen(account: Account, start: datetime | None, end: datetime | None, found: Collection[str]) -> list[str]:
    """Return the stored profiles created in [start, end) that are not among those found at the source."""
    return account.column(_UNSEEN, start=start, end=end, found=list(found))


def returned(account: Account, found: Collection[str]) -> list[str]:
    """Return those of the profiles found at the source that are on record as missing."""
    return account.column(_RETURNED, found=list(found))


def suspected(account: Account, after: str, limit: int) -> list[str]:
    """Return profiles that may have been merged into another one, ordered by ID, starting after `after`."""
    account.execute(_IDENTIFY)
    query = account.compose(_SUSPECTED, member_key=_KEY_OF_MISSING)
    return account.column(query, after=after, limit=limit)


def has_orphans(account: Account) -> bool:
    """Return whether `orphans` would return any."""
    return account.is_true(
        "SELECT EXISTS (SELECT FROM {missing_profiles} WHERE esp_integration_id = %(account)s AND asked_at IS NULL)"
    )


def orphans(account: Account, limit: int) -> list[Orphan]:
    """Return missing profiles of which the source has not been asked for the owner of their events.

    Reads all events only if the last one of a profile, at the time that the source gives, is not stored.
    """
    query = account.compose(_ORPHANED, member_key=_KEY_OF_MISSING, near=of_all_events(account.schema, _NEAR))
    found: dict[str, str | None] = dict(account.execute(query, limit=limit).fetchall())
    if others := [member_id for member_id, event_id in found.items() if event_id is None]:
        latest = account.compose(_LATEST, all_events=of_all_events(account.schema, _EVENTS))
        found |= dict(account.execute(latest, ids=others).fetchall())
    return [Orphan(*each) for each in found.items()]


def detect_merges(account: Account, load: Load) -> None:
    """Record the profiles that lose an event to another profile when the staged events of a load are merged."""
    query = account.compose(
        _DETECT,
        stage=Identifier("pg_temp", stage_name(load)),
        stored_events=account.table(load.table),
        is_future=is_future(Identifier("stored", "extracted_at")),
    )
    account.execute(query)


def has_merges(account: Account) -> bool:
    """Return whether any profile of the account was ever merged into another one."""
    return account.is_true("SELECT EXISTS (SELECT FROM {profile_merges} WHERE esp_integration_id = %(account)s)")


def follow_again(account: Account, members: Collection[str]) -> None:
    """Let the events of those members who were merged into others follow once more.

    For a batch that has stored events of these members: it can have been read before the merge.
    """
    values = {"members": " ".join(members)}
    were_moved = account.column(_LOCK, **values)
    if any(were_moved):
        account.execute(_FOLLOW_AGAIN, **values)


def forget(account: Account, present: Sequence[str]) -> None:
    """Forget that profiles were missing, because the source has returned them by ID."""
    if present:
        query = "DELETE FROM {missing_profiles} WHERE esp_integration_id = %(account)s AND member_id = ANY(%(present)s)"
        account.execute(query, present=list(present))


def apply(account: Account, share: float) -> UnconfirmedLoss | None:
    """Mark the profiles that are missing, and let all events of merged profiles follow them.

    If more than this share of the stored profiles, and at least ten, are missing for the first time, they are not
    marked; the loss is returned, and a later run that finds them missing as well confirms it. Blocks erasing until the
    transaction ends, because erasing would miss events that are being moved.
    """
    erased_people.block_erasing(account.connection, account.schema)
    account.execute(_IDENTIFY)
    is_ahead = is_future(Identifier("member", "updated_at"))
    account.execute(account.compose(_FORGET_FOUND, member_key=_KEY_OF_MISSING, is_future=is_ahead))
    count = account.compose(_COUNT_UNCONFIRMED, member_key=_KEY_OF_MISSING)
    unconfirmed, stored = account.execute(count).fetchone() or (0, 0)
    too_many = unconfirmed >= LEAST and unconfirmed > share * stored
    account.execute(account.compose(_MARK, member_key=_KEY_OF_MISSING), too_many=too_many)
    _follow(account)
    return UnconfirmedLoss("profiles", unconfirmed, stored) if too_many else None


def _follow(account: Account) -> None:
    account.execute(account.compose(_MERGED, followed_key=row_key(Identifier("followed", "member_id"))))
    if account.execute("SELECT FROM merged_profiles LIMIT 1").rowcount:
        _move(account)
    account.execute("DROP TABLE merged_profiles")


def _move(account: Account) -> None:
    account.execute(_WAIT_FOR_BATCHES)
    for table in events.EVENT_TABLES:
        account.execute(_MOVE_EVENTS, table)
    columns = membership.SUBSCRIPTION_CHANGES.column_names
    values = [Identifier("new_member_id" if name == "member_id" else name) for name in columns]
    names = SQL(", ").join(map(Identifier, columns))
    account.execute(account.compose(_MOVE_CHANGES, columns=names, values=SQL(", ").join(values)))
    account.execute(_MOVED)


def to_erase(account: Account) -> list[str]:
    """Return the deleted profiles that were missing on two days, ordered by ID.

    Merged profiles are not among them, and neither are those that may have been merged: whose owner was not asked for.
    """
    return account.column(account.compose(_TO_ERASE, member_key=_KEY_OF_MISSING))


def merged_into_erased(account: Account) -> list[str]:
    """Return the profiles that were merged into someone who had been erased before, ordered by ID."""
    return account.column(_MERGED_INTO_ERASED)
