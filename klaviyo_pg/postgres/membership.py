"""member_lists, derived in the database from what was extracted. The caller owns the transaction."""

from typing import NamedTuple

from psycopg import Connection
from psycopg.sql import SQL, Identifier

from klaviyo_pg.catalogue import dimensions, membership
from klaviyo_pg.postgres.erase import wait_for_erasing
from klaviyo_pg.postgres.statements import ESP_SOURCE

# An event names its list, and two lists may share a name: it counts for a list only where its name is unique, or where
# it happened when the person joined. A change without any list concerns all of them.
_DERIVE = """
WITH named AS (
    SELECT id, name, count(*) OVER (PARTITION BY name) = 1 AS is_unique
    FROM {lists} WHERE esp_integration_id = %(integration_id)s AND list_type = 'list'
), staged AS (
    SELECT stage.list_id, stage.member_id, stage.created_at, stage.is_subscribed, stage.absent_since,
        named.name, named.is_unique
    FROM {stage} AS stage LEFT JOIN named ON named.id = stage.list_id
    WHERE stage.esp_integration_id = %(integration_id)s
), changed AS (
    SELECT staged.list_id, staged.member_id,
        max(changes.changed_at) FILTER (WHERE changes.change = 'subscribed') AS subscribed,
        max(changes.changed_at) FILTER (WHERE changes.change = 'unsubscribed') AS unsubscribed,
        max(changes.changed_at) FILTER (WHERE changes.change = 'suppressed') AS suppressed
    FROM staged JOIN {changes} AS changes
        ON changes.esp_integration_id = %(integration_id)s AND changes.member_id = staged.member_id
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
), stands AS (
    SELECT list_id, member_id, is_subscribed, coalesce(subscribed, created_at) AS subscribed, unsubscribed, suppressed,
        CASE
            WHEN greatest(unsubscribed, suppressed) >= coalesce(greatest(subscribed, created_at), '-infinity')
            THEN greatest(unsubscribed, suppressed)
            WHEN absent_since >= coalesce(greatest(subscribed, created_at), '-infinity') THEN absent_since
        END AS unsubscribed_at
    FROM staged LEFT JOIN changed USING (list_id, member_id)
), derived AS (
    SELECT
        md5(%(esp_source)s || ':' || %(integration_id)s || ':' || list_id || ':' || member_id) AS key,
        list_id || ':' || member_id AS id,
        list_id, member_id, stands.subscribed, unsubscribed_at,
        CASE
            WHEN unsubscribed_at IS NOT NULL THEN false
            WHEN stands.is_subscribed IS NOT NULL THEN stands.is_subscribed
            WHEN EXISTS (
                SELECT FROM {exclusions} AS exclusions
                WHERE exclusions.esp_integration_id = %(integration_id)s
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
    FROM stands LEFT JOIN {members} AS members
        ON members.key = md5(%(esp_source)s || ':' || %(integration_id)s || ':' || stands.member_id)
), merged AS (
    INSERT INTO {member_lists} AS stored (
        key, id, list_id, member_id, subscribed, unsubscribed_at, is_subscribed, left_reason,
        esp_source, esp_integration_id, __synced_at
    )
    SELECT key, id, list_id, member_id, subscribed, unsubscribed_at, is_subscribed, left_reason,
        %(esp_source)s, %(integration_id)s, now()
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
# Who joined again after an earlier absence, of which only an event tells, and is not there: absent anew.
# By EXCEPT and then by key: a plan that stays good for a table that was filled a moment ago, of which nothing is known.
_END_SWEEP = """
WITH missing AS MATERIALIZED (
    (
        SELECT member_id FROM {stage} AS stored
        WHERE stored.esp_integration_id = %(integration_id)s AND stored.list_id = %(list_id)s AND NOT %(only_asked)s
        UNION ALL {answered} 'asked' AND %(only_asked)s
    )
    EXCEPT {answered} 'found'
)
UPDATE {stage} AS stored SET absent_since = now(), __synced_at = now()
FROM missing
WHERE stored._sync_id = md5(%(list_id)s || ':' || missing.member_id)
AND stored.esp_integration_id = %(integration_id)s
AND (stored.absent_since IS NULL OR EXISTS (
    SELECT FROM {member_lists} AS stands
    WHERE stands.key = md5(%(esp_source)s || ':' || %(integration_id)s || ':' || %(list_id)s || ':' || stored.member_id)
    AND stands.unsubscribed_at IS NULL
))
"""
_ANSWERED = """
    SELECT member_id FROM {swept} AS swept
    WHERE swept.esp_integration_id = %(integration_id)s AND swept.list_id = %(list_id)s AND swept.sweep = %(sweep)s
    AND swept.answer =
"""
_FORGET_SWEEPS = "DELETE FROM {} WHERE esp_integration_id = %s AND list_id = %s"
_SAME_MOMENT = 5  # seconds between the event of joining a list and the time of joining that the list itself gives


class Derived(NamedTuple):
    """Counts of rows."""

    rows_read: int
    inserted: int
    updated: int


def derive_member_lists(connection: Connection, schema: str, integration_id: str) -> Derived:
    """Bring member_lists up to stg_member_lists, subscription_changes, members and member_exclusions.

    Nobody is erased meanwhile: a row made from what was there before would stay.
    """
    wait_for_erasing(connection, schema)
    query = SQL(_DERIVE).format(
        lists=Identifier(schema, dimensions.LISTS.name),
        members=Identifier(schema, dimensions.MEMBERS.name),
        stage=Identifier(schema, membership.STG_MEMBER_LISTS.name),
        changes=Identifier(schema, membership.SUBSCRIPTION_CHANGES.name),
        exclusions=Identifier(schema, membership.MEMBER_EXCLUSIONS.name),
        member_lists=Identifier(schema, membership.MEMBER_LISTS.name),
    )
    values = {"integration_id": integration_id, "esp_source": ESP_SOURCE, "same_moment": _SAME_MOMENT}
    row = connection.execute(query, values).fetchone()
    assert row is not None
    return Derived(*row)


def end_sweep(
    connection: Connection, schema: str, integration_id: str, list_id: str, sweep: str, only_asked: bool
) -> int:
    """Note whom a complete sweep of a list has not found, with `only_asked` of those alone whom it asked for.

    Answers how many are absent that were not before.
    """
    swept = Identifier(schema, membership.SWEPT_MEMBERS.name)
    query = SQL(_END_SWEEP).format(
        stage=Identifier(schema, membership.STG_MEMBER_LISTS.name),
        member_lists=Identifier(schema, membership.MEMBER_LISTS.name),
        answered=SQL(_ANSWERED).format(swept=swept),
    )
    values = {
        "integration_id": integration_id,
        "esp_source": ESP_SOURCE,
        "list_id": list_id,
        "sweep": sweep,
        "only_asked": only_asked,
    }
    return connection.execute(query, values).rowcount


def forget_sweeps(connection: Connection, schema: str, integration_id: str, list_id: str) -> None:
    """Throw away what sweeps of a list have noted, those that broke off included."""
    query = SQL(_FORGET_SWEEPS).format(Identifier(schema, membership.SWEPT_MEMBERS.name))
    connection.execute(query, [integration_id, list_id])
