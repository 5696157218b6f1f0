"""The list changes of metrics that DESTINATIONS assigns to `unsubscribes`, or to another table again, once events of
them are stored. The caller owns the transaction.

Newly read events bring their list changes along, by the same rules: `transforms.events.subscription_changes`.
"""

from typing import Any

from psycopg.sql import Composed, Placeholder

from klaviyo_pg.catalogue import Table, events
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import row_key

# The list is in the properties of the event, except with PERSONAL_DATA=drop: then the change concerns all lists.
_ADD = """
WITH unsubscribed AS MATERIALIZED (
    SELECT id, member_key, event_at, nullif(properties ->> 'List', '') AS list_name FROM {events} AS event
    WHERE {assigned}
), people AS MATERIALIZED (
    SELECT id AS member_id, member_key FROM {members}
    WHERE esp_integration_id = %(account)s AND (member_key IN (SELECT member_key FROM unsubscribed)) IS TRUE
    UNION SELECT member_id, md5(member_id) FROM {stg_member_lists}
    WHERE esp_integration_id = %(account)s AND (md5(member_id) IN (SELECT member_key FROM unsubscribed)) IS TRUE
)
INSERT INTO {subscription_changes}
    (esp_integration_id, member_id, change, id, list_name, scope, changed_at, __synced_at)
SELECT %(account)s, member_id, 'unsubscribed', id, list_name,
    CASE WHEN list_name IS NULL THEN 'all' ELSE 'list' END, event_at, now()
FROM unsubscribed JOIN people USING (member_key)
ON CONFLICT DO NOTHING
"""
_WITHDRAW = """
DELETE FROM {subscription_changes} AS change USING {events} AS event
WHERE change.esp_integration_id = %(account)s AND change.change = 'unsubscribed' AND change.id = event.id AND {assigned}
"""
# Events of the other names imply a change, or none, whatever their table is.
_ASSIGNED = "event.metric_key = {metric_key} AND coalesce(event.event_name, '') <> ALL(%(fixed)s)"
_FIXED = sorted(events.UNSUBSCRIBES.metric_names | events.NOT_OF_EMAIL)


def add(account: Account, metric_id: str) -> None:
    """Record that the people of a metric's events, which are in `unsubscribes` now, have unsubscribed."""
    account.execute(_composed(account, _ADD, events.UNSUBSCRIBES), **_values(metric_id))


def withdraw(account: Account, metric_id: str, table: Table) -> None:
    """Delete the list changes of a metric's events, which are in another table now."""
    account.execute(_composed(account, _WITHDRAW, table), **_values(metric_id))


def _composed(account: Account, query: str, table: Table) -> Composed:
    assigned = account.compose(_ASSIGNED, metric_key=row_key(Placeholder("metric_id")))
    return account.compose(query, events=account.table(table), assigned=assigned)


def _values(metric_id: str) -> dict[str, Any]:
    return {"metric_id": metric_id, "fixed": _FIXED}
