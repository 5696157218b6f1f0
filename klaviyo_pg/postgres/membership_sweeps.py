"""Sweeps of lists: what they have found, and who has left a list according to a complete one.

What a sweep of a segment finds is kept in the same table. The caller owns the transaction.
"""

from psycopg.sql import SQL, Composed, Literal, Placeholder

from klaviyo_pg.catalogue import membership
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard, Missing, is_believed
from klaviyo_pg.postgres.statements import row_key

SWEEPS = "membership_sweep"
"""The name under which watermarks record when all members of a list were last read."""

# Someone who joined again after an absence, according to an event, but is not on the list, becomes absent again.
# EXCEPT and a join by key are fast even right after the table was filled, when Postgres has no statistics about it.
_LEFT = """
WITH missing AS MATERIALIZED (
    (
        SELECT member_id FROM {stg_member_lists} AS stored
        WHERE stored.esp_integration_id = %(account)s AND stored.list_id = %(list_id)s AND NOT %(only_looked_up)s
        UNION ALL SELECT member_id FROM {asked} AS asked WHERE %(only_looked_up)s
    )
    EXCEPT SELECT member_id FROM {found} AS found
)
SELECT stored._sync_id, stored.member_id AS row_key FROM {stg_member_lists} AS stored, missing
WHERE stored._sync_id = md5(%(list_id)s || ':' || missing.member_id)
AND stored.esp_integration_id = %(account)s AND {is_present}
"""
_IS_PRESENT = """
(stored.absent_since IS NULL OR EXISTS (
    SELECT FROM {member_lists} AS current WHERE current.key = {key} AND current.unsubscribed_at IS NULL
))
"""
_STORED = """
SELECT count(*) FROM {stg_member_lists} AS stored
WHERE stored.esp_integration_id = %(account)s AND stored.list_id = %(list_id)s AND {is_present}
"""
_MARK = """
UPDATE {stg_member_lists} AS stored SET absent_since = now(), __synced_at = now() FROM ({left}) AS gone
WHERE stored._sync_id = gone._sync_id AND stored.esp_integration_id = %(account)s
"""
_ANSWERED = """
(
    SELECT member_id FROM {swept_members} AS swept
    WHERE swept.esp_integration_id = %(account)s AND swept.list_id = %(list_id)s AND swept.sweep = %(sweep)s
    AND swept.answer = {answer}
)
"""
_LIFT = """
UPDATE {list_suppressions} AS stored SET lifted_at = now(), __synced_at = now()
WHERE stored.esp_integration_id = %(account)s AND stored.list_id = %(list_id)s AND stored.lifted_at IS NULL
AND NOT EXISTS (
    SELECT FROM {swept_members} AS swept
    WHERE swept.esp_integration_id = %(account)s AND swept.list_id = %(list_id)s AND swept.sweep = %(sweep)s
    AND swept.member_id = stored.member_id AND swept.answer = 'suppressed'
)
"""


def end_sweep(account: Account, guard: Guard, list_id: str, sweep: str, only_looked_up: bool) -> bool:
    """Mark the members of a list that a complete sweep did not find, and return whether their absence is believed.

    `only_looked_up` limits this to people that the sweep looked up by address, for a source that returns no others.
    Raises UnconfirmedLoss if they are more than the guard believes.
    """
    key = row_key(SQL("{} || ':' || stored.member_id").format(Placeholder("list_id")))
    is_present = account.compose(_IS_PRESENT, key=key)
    asked, found = (_answered(account, answer) for answer in ("asked", "found"))
    left = account.compose(_LEFT, asked=asked, found=found, is_present=is_present)
    missing = Missing(
        membership.STG_MEMBER_LISTS,
        SQL("SELECT row_key FROM ({}) AS gone").format(left),
        account.compose(_STORED, is_present=is_present),
    )
    values = {"list_id": list_id, "sweep": sweep, "only_looked_up": only_looked_up}
    if not is_believed(account, guard, missing, **values):
        return False
    account.execute(account.compose(_MARK, left=left), **values)
    return True


def _answered(account: Account, answer: str) -> Composed:
    """Return the query of the members with this answer in a sweep. It needs `list_id` and `sweep`."""
    return account.compose(_ANSWERED, answer=Literal(answer))


def count_found(account: Account, list_id: str, sweep: str) -> int:
    """Return how many members a sweep of a list or segment has found so far."""
    query = account.compose("SELECT count(*) FROM {found} AS found", found=_answered(account, "found"))
    return int(account.scalar(query, list_id=list_id, sweep=sweep))


def lift_suppressions(account: Account, list_id: str, sweep: str) -> int:
    """Mark as lifted the suppressions from a list that a complete sweep did not find, and return their number."""
    return account.execute(_LIFT, list_id=list_id, sweep=sweep).rowcount


def delete_sweeps(account: Account, list_id: str) -> None:
    """Delete the answers of all sweeps of a list or segment, including interrupted ones."""
    query = "DELETE FROM {swept_members} WHERE esp_integration_id = %(account)s AND list_id = %(list_id)s"
    account.execute(query, list_id=list_id)
