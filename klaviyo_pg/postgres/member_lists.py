"""member_lists, derived in the database from the extracted tables. The caller owns the transaction.

Only the rows of people who are concerned by a change (`klaviyo_pg.postgres.touched`) are derived again. No rule depends
on the present, so that no row changes by the passing of time.
"""

from collections.abc import Callable
from datetime import timedelta
from hashlib import md5
from typing import NamedTuple

from psycopg.sql import SQL, Composable, Identifier, Placeholder

from klaviyo_pg.catalogue import membership
from klaviyo_pg.catalogue.shared import ESP_SOURCE
from klaviyo_pg.postgres import claims, list_names, touched
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.dropped_rows import check_stored
from klaviyo_pg.postgres.erasing.erased_people import block_erasing
from klaviyo_pg.postgres.membership_sweeps import SWEEPS
from klaviyo_pg.postgres.statements import row_key

# The rules are those of docs/people.md. A change of one list concerns the list that it was resolved to; an unsubscribe
# that could not be resolved, because several lists had the name at that time, concerns each of them. A source with a
# status for each list has exclusions by address only, so that nothing is known about a person without one. Of another
# source, such a person cannot be emailed, unless PERSONAL_DATA drops all addresses.
#
# What is known about a person and a list is grouped, not joined: where Postgres has no statistics about an account, it
# expects one row of it, and would compare all rows of one table with all of another. The other joins are by key.
_DERIVE = """
WITH facts (
    list_id, member_id, is_staged, created_at, is_subscribed, absent_since, change, changed_at, is_suppressed,
    suppressed_at
) AS (
    SELECT stage.list_id, stage.member_id, true, stage.created_at, stage.is_subscribed, stage.absent_since,
        NULL::text, NULL::timestamptz, false, NULL::timestamptz
    FROM {stg_member_lists} AS stage
    WHERE stage.esp_integration_id = %(account)s AND {of_staged}
    UNION ALL
    SELECT CASE changes.scope WHEN 'list' THEN changes.list_id END, changes.member_id, false, NULL, NULL, NULL,
        changes.change, changes.changed_at, false, NULL
    FROM {subscription_changes} AS changes
    WHERE changes.esp_integration_id = %(account)s
    AND (changes.scope = 'all' OR changes.scope = 'list' AND changes.list_id IS NOT NULL) AND {of_changes}
    UNION ALL
    SELECT known.list_id, changes.member_id, false, NULL, NULL, NULL, changes.change, changes.changed_at, false, NULL
    FROM {subscription_changes} AS changes
    JOIN {list_names} AS known ON known.esp_integration_id = %(account)s AND {had_name}
    WHERE changes.esp_integration_id = %(account)s AND changes.scope = 'list' AND changes.list_id IS NULL
    AND changes.change = 'unsubscribed' AND {of_changes}
    UNION ALL
    SELECT suppressed.list_id, suppressed.member_id, false, NULL, NULL, NULL, NULL, NULL, true,
        coalesce(suppressed.suppressed_at, suppressed.__synced_at)
    FROM {list_suppressions} AS suppressed
    WHERE suppressed.esp_integration_id = %(account)s AND suppressed.lifted_at IS NULL AND {of_suppressed}
), by_list AS (
    SELECT member_id, list_id, bool_or(is_staged) AS is_staged, max(created_at) AS created_at,
        bool_or(is_subscribed) AS is_subscribed, max(absent_since) AS absent_since,
        max(changed_at) FILTER (WHERE change = 'subscribed') AS subscribed,
        max(changed_at) FILTER (WHERE change = 'unsubscribed') AS unsubscribed,
        bool_or(is_suppressed) AS is_suppressed, max(suppressed_at) AS suppressed_at
    FROM facts GROUP BY member_id, list_id
), by_person AS (
    SELECT *, max(subscribed) FILTER (WHERE list_id IS NULL) OVER person AS subscribed_to_all,
        max(unsubscribed) FILTER (WHERE list_id IS NULL) OVER person AS unsubscribed_from_all
    FROM by_list WINDOW person AS (PARTITION BY member_id)
), excluded AS MATERIALIZED (
    SELECT lower(email) AS address FROM {member_exclusions}
    WHERE esp_integration_id = %(account)s AND %(has_status)s AND removed_at IS NULL
), current AS (
    SELECT known.list_id, known.member_id, coalesce(known.subscribed, known.created_at) AS subscribed,
        greatest(known.subscribed, known.created_at) AS joined_at,
        coalesce(CASE WHEN %(has_status)s THEN known.is_subscribed END, member.consent = 'SUBSCRIBED') AS is_subscribed,
        list.deleted_at AS list_deleted_at, member.deleted_at AS profile_deleted_at, member.email,
        known.is_suppressed, known.suppressed_at,
        CASE WHEN known.unsubscribed >= joined.at THEN known.unsubscribed END AS left_list_at,
        CASE WHEN known.unsubscribed_from_all >= greatest(joined.at, known.subscribed_to_all)
            THEN known.unsubscribed_from_all END AS left_all_at,
        CASE WHEN known.absent_since >= joined.at THEN known.absent_since END AS absent_at
    FROM by_person AS known
    LEFT JOIN {lists} AS list ON list.key = {list_key}
    LEFT JOIN {members} AS member ON member.key = {member_key}
    CROSS JOIN LATERAL (
        SELECT coalesce(greatest(known.subscribed, known.created_at), '-infinity'::timestamptz) AS at
    ) AS joined
    WHERE known.is_staged
), decided AS (
    SELECT *, CASE
        WHEN left_list_at IS NOT NULL OR left_all_at IS NOT NULL THEN 'event'
        WHEN is_suppressed THEN 'suppressed'
        WHEN absent_at IS NOT NULL THEN 'absent'
        WHEN list_deleted_at IS NOT NULL THEN 'list_deleted'
        WHEN profile_deleted_at IS NOT NULL THEN 'profile_deleted'
    END AS left_reason
    FROM current
), derived AS (
    SELECT {key} AS key, list_id || ':' || member_id AS id, list_id, member_id, subscribed, joined_at, left_reason,
        CASE left_reason
            WHEN 'event' THEN greatest(left_list_at, left_all_at)
            WHEN 'suppressed' THEN suppressed_at
            WHEN 'absent' THEN absent_at
            WHEN 'list_deleted' THEN list_deleted_at
            WHEN 'profile_deleted' THEN profile_deleted_at
        END AS unsubscribed_at,
        CASE
            WHEN left_reason IS NOT NULL THEN false
            WHEN EXISTS (
                SELECT FROM {member_exclusions} AS exclusions
                WHERE exclusions.esp_integration_id = %(account)s AND exclusions._sync_id = md5(decided.email)
                AND exclusions.removed_at IS NULL
            ) OR EXISTS (
                SELECT FROM {member_exclusions} AS exclusions
                WHERE exclusions.esp_integration_id = %(account)s AND exclusions.member_id = decided.member_id
                AND exclusions.removed_at IS NULL
            ) OR lower(decided.email) IN (SELECT address FROM excluded) THEN false
            WHEN decided.is_subscribed IS NOT TRUE OR decided.email IS NOT NULL THEN decided.is_subscribed
            WHEN %(has_status)s THEN NULL
            ELSE (SELECT personal_data = 'drop' FROM {integrations} WHERE esp_integration_id = %(account)s) IS TRUE
        END AS is_subscribed
    FROM decided
), changed AS MATERIALIZED (
    SELECT derived.* FROM derived LEFT JOIN {member_lists} AS existing ON existing.key = derived.key
    WHERE existing.key IS NULL
    OR (existing.subscribed, existing.joined_at, existing.unsubscribed_at, existing.is_subscribed, existing.left_reason)
        IS DISTINCT FROM
        (derived.subscribed, derived.joined_at, derived.unsubscribed_at, derived.is_subscribed, derived.left_reason)
), merged AS (
    INSERT INTO {member_lists} AS stored (
        key, id, list_id, member_id, subscribed, joined_at, unsubscribed_at, is_subscribed, left_reason,
        esp_source, esp_integration_id, __synced_at
    )
    SELECT key, id, list_id, member_id, subscribed, joined_at, unsubscribed_at, is_subscribed, left_reason,
        %(esp_source)s, %(account)s, now()
    FROM changed ORDER BY key
    ON CONFLICT (key) DO UPDATE SET
        subscribed = excluded.subscribed, joined_at = excluded.joined_at, unsubscribed_at = excluded.unsubscribed_at,
        is_subscribed = excluded.is_subscribed, left_reason = excluded.left_reason, __synced_at = excluded.__synced_at
    RETURNING xmax = 0 AS is_new
)
SELECT (SELECT count(*) FROM derived), (SELECT count(*) FROM changed),
    count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new)
FROM merged
"""
# A sweep that did not find a person counts even if an event says that the person joined again before the sweep.
_ABSENT_AGAIN = """
UPDATE {stg_member_lists} AS stored SET absent_since = sweep.watermark, __synced_at = now()
FROM {subscription_changes} AS changes, {watermarks} AS sweep
WHERE stored.esp_integration_id = %(account)s AND stored.absent_since < changes.changed_at
AND changes.esp_integration_id = %(account)s AND changes.member_id = stored.member_id
AND changes.list_id = stored.list_id AND changes.change = 'subscribed'
AND stored._sync_id = md5(changes.list_id || ':' || changes.member_id)
AND sweep.esp_integration_id = %(account)s AND sweep.stream = %(sweeps)s || '/' || stored.list_id
AND sweep.watermark >= changes.changed_at AND {limit}
"""
# The people that the changes concern. An address concerns those who have it, and a list its members and those who left
# a list of one of its names. The index of addresses does not find one that is written in capitals: exclusions without a
# profile always concern those.
#
# Arrays of what to look up let Postgres use indexes. It would join tables in an order that depends on how many rows of
# the account it expects: one, if it has no statistics about it.
_TAKE = """
WITH recorded AS (
    DELETE FROM {touched} WHERE esp_integration_id = %(account)s RETURNING kind, row_key
), taken AS MATERIALIZED (
    SELECT DISTINCT kind, row_key FROM recorded
), addresses AS MATERIALIZED (
    SELECT email FROM {member_exclusions}
    WHERE _sync_id = ANY (ARRAY(SELECT row_key FROM taken WHERE kind = 'address')) AND esp_integration_id = %(account)s
), names AS MATERIALIZED (
    SELECT name FROM {list_names}
    WHERE list_id = ANY (ARRAY(SELECT row_key FROM taken WHERE kind = 'list')) AND esp_integration_id = %(account)s
)
INSERT INTO pg_temp.deriving (member_id)
SELECT row_key AS member_id FROM taken WHERE kind = 'member'
UNION SELECT id FROM {members}
WHERE email = ANY (ARRAY(SELECT email FROM addresses UNION ALL SELECT lower(email) FROM addresses))
AND esp_integration_id = %(account)s
UNION SELECT id FROM {members}
WHERE esp_integration_id = %(account)s AND %(has_status)s AND email <> lower(email)
UNION SELECT member_id FROM {stg_member_lists}
WHERE list_id = ANY (ARRAY(SELECT row_key FROM taken WHERE kind = 'list')) AND esp_integration_id = %(account)s
UNION SELECT member_id FROM {subscription_changes}
WHERE list_id IS NULL AND list_name = ANY (ARRAY(SELECT name FROM names))
AND esp_integration_id = %(account)s AND scope = 'list'
"""
_FORGET = "DELETE FROM {touched} WHERE esp_integration_id = %(account)s"
_WAS_DERIVED = """
SELECT EXISTS (
    SELECT FROM {derivations}
    WHERE esp_integration_id = %(account)s AND rules = %(rules)s AND derived_at > now() - %(age)s
)
"""
_RECORD = """
INSERT INTO {derivations} (esp_integration_id, rules, derived_at) VALUES (%(account)s, %(rules)s, now())
ON CONFLICT (esp_integration_id) DO UPDATE SET rules = excluded.rules, derived_at = excluded.derived_at
"""
_RULES = "".join((_DERIVE, _ABSENT_AGAIN, list_names.RESOLVE, list_names.HAD_NAME.as_string(None)))
WHOLE_AGAIN = timedelta(days=30)
"""After this time, member_lists is derived as a whole, in case a change was made while triggers were disabled."""
_ALL = SQL("true")
_ARE_DERIVED = SQL("{}.member_id IN (SELECT member_id FROM pg_temp.deriving)")


class Derived(NamedTuple):
    """Row counts of a derivation."""

    rows_read: int
    inserted: int
    updated: int


def derive_member_lists(account: Account, whole: bool = False, has_status: bool = True) -> Derived:
    """Bring member_lists up to date with the tables that it is derived from. Rows that do not change are not written.

    Derives the rows of people who are concerned by a change since the last time; all rows if `whole`, if the rules have
    changed, or if the last derivation of all rows is not recorded or long ago. `has_status` says that the source
    returns for each list if a person is subscribed; otherwise, what another source has returned does not count. Blocks
    erasing until the transaction ends, because erasing would miss rows that are being derived.
    """
    block_erasing(account.connection, account.schema)
    with account.connection.transaction():
        claims.take_turns(account, "member_lists")  # one that begins now would overwrite newer rows with older ones
        if whole or not _was_derived(account, has_status):
            return _derive_all(account, has_status)
        return _derive_changed(account, has_status)


def derive_whole_next(account: Account) -> None:
    """Let the next derivation be one of all rows."""
    account.execute("DELETE FROM {derivations} WHERE esp_integration_id = %(account)s")


def _was_derived(account: Account, has_status: bool) -> bool:
    return account.is_true(_WAS_DERIVED, rules=_rules(has_status), age=WHOLE_AGAIN)


def _rules(has_status: bool) -> str:
    return md5(f"{_RULES}{has_status}".encode()).hexdigest()


def _derive_all(account: Account, has_status: bool) -> Derived:
    account.execute(_FORGET)
    derived = _derive(account, lambda alias: _ALL, has_status)
    account.execute(_RECORD, rules=_rules(has_status))
    return derived


def _derive_changed(account: Account, has_status: bool) -> Derived:
    """Derive the rows of the people who are concerned by the changes that have been recorded."""
    account.connection.execute("CREATE TEMPORARY TABLE deriving (member_id text PRIMARY KEY) ON COMMIT DROP")
    derived = Derived(0, 0, 0)
    if account.execute(_TAKE, has_status=has_status).rowcount:
        account.connection.execute("ANALYZE pg_temp.deriving")
        derived = _derive(account, lambda alias: _ARE_DERIVED.format(Identifier(alias)), has_status)
    account.connection.execute("DROP TABLE pg_temp.deriving")
    return derived


def _derive(account: Account, limited: Callable[[str], Composable], has_status: bool) -> Derived:
    """Derive rows. `limited` returns the condition that limits the rows of an alias to the people concerned."""
    with touched.unrecorded(account):
        list_names.resolve(account, limited("changes"))
        _mark_absent_again(account, limited("stored"))
    query = account.compose(
        _DERIVE,
        had_name=list_names.HAD_NAME,
        key=row_key(SQL("list_id || ':' || member_id")),
        list_key=row_key(Identifier("known", "list_id")),
        member_key=row_key(Identifier("known", "member_id")),
        of_staged=limited("stage"),
        of_changes=limited("changes"),
        of_suppressed=limited("suppressed"),
    )
    row = account.execute(query, esp_source=ESP_SOURCE, has_status=has_status).fetchone()
    assert row is not None
    rows, written, inserted, updated = row
    check_stored(account, membership.MEMBER_LISTS, written, inserted + updated)
    return Derived(rows, inserted, updated)


def mark_absent_again(account: Account, list_id: str) -> None:
    """Mark as absent, once a sweep of a list is recorded, those who joined it again before the sweep and are gone."""
    _mark_absent_again(account, SQL("stored.list_id = {}").format(Placeholder("list_id")), list_id=list_id)


def _mark_absent_again(account: Account, limit: Composable, **values: object) -> None:
    query = account.compose(_ABSENT_AGAIN, limit=limit)
    account.execute(query, sweeps=SWEEPS, **values)
