"""member_lists, derived in the database from the extracted tables, and the sweeps of lists. The caller owns the
transaction.
"""

from typing import NamedTuple

from psycopg.sql import SQL, Identifier, Placeholder

from klaviyo_pg.catalogue import dimensions, membership
from klaviyo_pg.catalogue.shared import ESP_SOURCE
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erase import wait_for_erasing
from klaviyo_pg.postgres.losses import Guard, Missing, is_believed
from klaviyo_pg.postgres.statements import row_key

# Events name their list, and two lists may have the same name. So an event counts for a list only if the list's name is
# unique, or if the event happened when the person joined that list. A change without a list counts for all lists.
_DERIVE = """
WITH named AS (
    SELECT id, name, count(*) OVER (PARTITION BY name) = 1 AS is_unique
    FROM {lists} WHERE esp_integration_id = %(account)s AND list_type = 'list'
), staged AS (
    SELECT stage.list_id, stage.member_id, stage.created_at, stage.is_subscribed, stage.absent_since,
        named.name, named.is_unique
    FROM {stage} AS stage LEFT JOIN named ON named.id = stage.list_id
    WHERE stage.esp_integration_id = %(account)s
), changed AS (
    SELECT staged.list_id, staged.member_id,
        max(changes.changed_at) FILTER (WHERE changes.change = 'subscribed') AS subscribed,
        max(changes.changed_at) FILTER (WHERE changes.change = 'unsubscribed') AS unsubscribed,
        max(changes.changed_at) FILTER (WHERE changes.change = 'suppressed') AS suppressed
    FROM staged JOIN {changes} AS changes
        ON changes.esp_integration_id = %(account)s AND changes.member_id = staged.member_id
        AND CASE
            WHEN changes.list_id IS NOT NULL THEN changes.list_id = staged.list_id
            WHEN changes.list_name IS NULL THEN changes.change <> 'subscribed'
            ELSE changes.list_name = staged.name AND (
                staged.is_unique
                OR changes.change = 'subscribed'
                    AND abs(extract(epoch FROM changes.changed_at - staged.created_at)) <= %(same_moment)s
            )
        END
    GROUP BY staged.list_id, staged.member_id
), current AS (
    SELECT list_id, member_id, is_subscribed, coalesce(subscribed, created_at) AS subscribed, unsubscribed, suppressed,
        CASE
            WHEN greatest(unsubscribed, suppressed) >= coalesce(greatest(subscribed, created_at), '-infinity')
            THEN greatest(unsubscribed, suppressed)
            WHEN absent_since >= coalesce(greatest(subscribed, created_at), '-infinity') THEN absent_since
        END AS unsubscribed_at
    FROM staged LEFT JOIN changed USING (list_id, member_id)
), derived AS (
    SELECT
        {key} AS key,
        list_id || ':' || member_id AS id,
        list_id, member_id, current.subscribed, unsubscribed_at,
        CASE
            WHEN unsubscribed_at IS NOT NULL THEN false
            WHEN current.is_subscribed IS NOT NULL THEN current.is_subscribed
            WHEN EXISTS (
                SELECT FROM {exclusions} AS exclusions
                WHERE exclusions.esp_integration_id = %(account)s
                AND exclusions._sync_id = md5(members.email) AND exclusions.removed_at IS NULL
            ) THEN false
            ELSE members.consent = 'SUBSCRIBED'
        END AS is_subscribed,
        CASE
            WHEN unsubscribed_at IS NULL THEN NULL
            WHEN unsubscribed_at = unsubscribed THEN 'event'
            WHEN unsubscribed_at = suppressed THEN 'suppressed'
            ELSE 'absent'
        END AS left_reason
    FROM current LEFT JOIN {members} AS members ON members.key = {member_key}
), merged AS (
    INSERT INTO {member_lists} AS stored (
        key, id, list_id, member_id, subscribed, unsubscribed_at, is_subscribed, left_reason,
        esp_source, esp_integration_id, __synced_at
    )
    SELECT key, id, list_id, member_id, subscribed, unsubscribed_at, is_subscribed, left_reason,
        %(esp_source)s, %(account)s, now()
    FROM derived ORDER BY key
    ON CONFLICT (key) DO UPDATE SET
        subscribed = excluded.subscribed, unsubscribed_at = excluded.unsubscribed_at,
        is_subscribed = excluded.is_subscribed, left_reason = excluded.left_reason, __synced_at = excluded.__synced_at
    WHERE (stored.subscribed, stored.unsubscribed_at, stored.is_subscribed, stored.left_reason)
        IS DISTINCT FROM
        (excluded.subscribed, excluded.unsubscribed_at, excluded.is_subscribed, excluded.left_reason)
    RETURNING xmax = 0 AS is_new
)
SELECT (SELECT count(*) FROM derived), count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM merged
"""
# Someone who joined again after an absence, according to an event, but is not on the list, becomes absent again.
# EXCEPT and a join by key are fast even right after the table was filled, when Postgres has no statistics about it.
_LEFT = """
WITH missing AS MATERIALIZED (
    (
        SELECT member_id FROM {stage} AS stored
        WHERE stored.esp_integration_id = %(account)s AND stored.list_id = %(list_id)s AND NOT %(only_looked_up)s
        UNION ALL {answered} 'asked' AND %(only_looked_up)s
    )
    EXCEPT {answered} 'found'
)
SELECT stored._sync_id, stored.member_id AS row_key FROM {stage} AS stored, missing
WHERE stored._sync_id = md5(%(list_id)s || ':' || missing.member_id)
AND stored.esp_integration_id = %(account)s AND {is_present}
"""
_IS_PRESENT = """
(stored.absent_since IS NULL OR EXISTS (
    SELECT FROM {member_lists} AS current WHERE current.key = {key} AND current.unsubscribed_at IS NULL
))
"""
_STORED = """
SELECT count(*) FROM {stage} AS stored
WHERE stored.esp_integration_id = %(account)s AND stored.list_id = %(list_id)s AND {is_present}
"""
_END_SWEEP = """
UPDATE {} AS stored SET absent_since = now(), __synced_at = now() FROM ({left}) AS gone
WHERE stored._sync_id = gone._sync_id AND stored.esp_integration_id = %(account)s
"""
_ANSWERED = """
    SELECT member_id FROM {} AS swept
    WHERE swept.esp_integration_id = %(account)s AND swept.list_id = %(list_id)s AND swept.sweep = %(sweep)s
    AND swept.answer =
"""
_SAME_MOMENT = 5  # seconds between the event of joining a list and the list's own time of joining


class Derived(NamedTuple):
    """Row counts of a derivation."""

    rows_read: int
    inserted: int
    updated: int


def derive_member_lists(account: Account) -> Derived:
    """Bring member_lists up to date with stg_member_lists, subscription_changes, members and member_exclusions.

    Blocks erasing until the transaction ends, because erasing would miss rows that are being derived.
    """
    wait_for_erasing(account.connection, account.schema)
    query = account.compose(
        _DERIVE,
        lists=account.table(dimensions.LISTS),
        members=account.table(dimensions.MEMBERS),
        stage=account.table(membership.STG_MEMBER_LISTS),
        changes=account.table(membership.SUBSCRIPTION_CHANGES),
        exclusions=account.table(membership.MEMBER_EXCLUSIONS),
        member_lists=account.table(membership.MEMBER_LISTS),
        key=row_key(SQL("list_id || ':' || member_id")),
        member_key=row_key(Identifier("current", "member_id")),
    )
    row = account.execute(query, esp_source=ESP_SOURCE, same_moment=_SAME_MOMENT).fetchone()
    assert row is not None
    return Derived(*row)


def _left(account: Account) -> Missing:
    """Return what a sweep did not find. Its queries need `list_id`, `sweep` and `only_looked_up`."""
    stage = account.table(membership.STG_MEMBER_LISTS)
    is_present = account.compose(
        _IS_PRESENT,
        member_lists=account.table(membership.MEMBER_LISTS),
        key=row_key(SQL("{} || ':' || stored.member_id").format(Placeholder("list_id"))),
    )
    answered = account.compose(_ANSWERED, membership.SWEPT_MEMBERS)
    left = account.compose(_LEFT, stage=stage, answered=answered, is_present=is_present)
    return Missing(membership.STG_MEMBER_LISTS, left, account.compose(_STORED, stage=stage, is_present=is_present))


def is_sweep_believed(account: Account, guard: Guard, list_id: str, sweep: str, only_looked_up: bool) -> bool:
    """Return whether the members that a complete sweep did not find may be marked as absent.

    Raises UnconfirmedLoss if they are more than the guard believes.
    """
    left = _left(account)
    missing = left._replace(rows=account.compose("SELECT row_key FROM ({left}) AS gone", left=left.rows))
    return is_believed(account, guard, missing, list_id=list_id, sweep=sweep, only_looked_up=only_looked_up)


def end_sweep(account: Account, list_id: str, sweep: str, only_looked_up: bool) -> int:
    """Mark as absent the members of a list that a complete sweep did not find, and return how many are newly absent.

    `only_looked_up` limits this to people that the sweep looked up by address, for a source that returns no others.
    """
    query = account.compose(_END_SWEEP, membership.STG_MEMBER_LISTS, left=_left(account).rows)
    return account.execute(query, list_id=list_id, sweep=sweep, only_looked_up=only_looked_up).rowcount


def delete_sweeps(account: Account, list_id: str) -> None:
    """Delete the answers of all sweeps of a list, including interrupted ones."""
    query = "DELETE FROM {} WHERE esp_integration_id = %(account)s AND list_id = %(list_id)s"
    account.execute(query, membership.SWEPT_MEMBERS, list_id=list_id)
