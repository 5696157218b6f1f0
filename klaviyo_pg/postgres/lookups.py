"""Lookups of stored metrics, lists and people that a run needs. The caller owns the transaction."""

from datetime import datetime
from typing import NamedTuple

from psycopg.sql import Identifier

from klaviyo_pg.catalogue import Table, dimensions, membership, on_request
from klaviyo_pg.postgres.account import Account

DIGITS = "0123456789abcdef"
"""The digits of keys."""
_TABLES = (dimensions.MEMBERS, membership.MISSING_PROFILES)
# An index walk in the order of the IDs: a batch costs as much as it has rows, however many people there are. Only with
# the time among the columns to order by does the planner see that the index has this order.
_INCOMPLETE = """
SELECT member.id FROM {} AS member LEFT JOIN {} AS missing
    ON missing.esp_integration_id = %(account)s AND missing.member_id = member.id
WHERE member.esp_integration_id = %(account)s AND member.created_at IS NULL AND member.id > %(after)s
AND member.key >= %(first)s AND member.key < %(end)s
AND CASE
    WHEN missing.member_id IS NULL THEN member.updated_at IS NULL OR member.updated_at >= %(since)s::timestamptz
    ELSE missing.last_missing_at < missing.missing_since + interval '1 day'
        AND missing.last_missing_at < now() - interval '1 day'
END
ORDER BY member.created_at, member.id LIMIT %(limit)s
"""
# A walk along the index of the metrics: it costs as much as there are metrics, however many events they have.
_HAS_UNLISTED_EVENTS = """
WITH RECURSIVE stored (metric_key) AS (
    SELECT min(metric_key) FROM {events}
    UNION ALL
    SELECT (SELECT min(event.metric_key) FROM {events} AS event WHERE event.metric_key > stored.metric_key) FROM stored
    WHERE stored.metric_key IS NOT NULL
), unlisted AS (
    SELECT metric_key FROM stored WHERE metric_key IS NOT NULL AND NOT EXISTS (
        SELECT FROM {metrics} AS metric WHERE metric.key = stored.metric_key AND metric.deleted_at IS NULL
    )
)
SELECT EXISTS (
    SELECT FROM {events} WHERE esp_integration_id = %(account)s AND metric_key IS NULL AND event_at >= %(since)s
) OR EXISTS (
    SELECT FROM unlisted CROSS JOIN LATERAL (
        SELECT FROM {events} AS event WHERE event.metric_key = unlisted.metric_key AND event.event_at >= %(since)s
        AND event.esp_integration_id = %(account)s LIMIT 1
    ) AS recent
)
"""


_NAMES = "SELECT id, name FROM {} WHERE esp_integration_id = %(account)s AND name IS NOT NULL"


class StoredMetric(NamedTuple):
    """A metric as stored: `destination` is the table of its events."""

    id: str
    name: str | None
    destination: str
    is_deleted: bool = False
    created_at: datetime | None = None


def metrics(account: Account) -> list[StoredMetric]:
    """Return the account's metrics, including those that the source has deleted, ordered by ID.

    The source still returns the events of a deleted metric among those of all metrics, but refuses to list them alone.
    """
    return account.select(
        StoredMetric,
        "SELECT id, name, destination, deleted_at IS NOT NULL AS is_deleted, created_at FROM {}"
        " WHERE esp_integration_id = %(account)s ORDER BY id",
        dimensions.METRICS,
    )


def has_unlisted_events(account: Account, since: datetime) -> bool:
    """Return whether events since then are stored whose metric the source does not list, or which have none."""
    return account.is_true(_HAS_UNLISTED_EVENTS, since=since)


def rows(account: Account, table: Table) -> int:
    """Return the number of the account's rows in a table."""
    return int(account.scalar("SELECT count(*) FROM {} WHERE esp_integration_id = %(account)s", table))


def rows_by_subject(account: Account, table: Table, column: str) -> dict[str, int]:
    """Return the number of the account's rows in a table for each value of a column."""
    query = "SELECT {column}, count(*) FROM {} WHERE esp_integration_id = %(account)s GROUP BY 1"
    return dict(account.execute(account.compose(query, table, column=Identifier(column))).fetchall())


def list_ids(account: Account) -> list[str]:
    """Return the IDs of the account's lists, in order. Segments and deleted lists are left out."""
    query = (
        "SELECT id FROM {} WHERE esp_integration_id = %(account)s AND list_type = 'list' AND deleted_at IS NULL"
        " ORDER BY id"
    )
    return account.column(query, dimensions.LISTS)


def coupon_ids(account: Account) -> list[str]:
    """Return the IDs of the account's coupons, in order. Deleted ones are left out."""
    query = "SELECT id FROM {} WHERE esp_integration_id = %(account)s AND deleted_at IS NULL ORDER BY id"
    return account.column(query, on_request.COUPONS)


def subscribers(account: Account, since: datetime | None, after: str, limit: int) -> list[tuple[str, str | None]]:
    """Return people whose joining of a list was stored since then: (profile ID, email address or else phone number).

    Ordered by ID, starting after the ID `after`. The addresses are as stored: hashed or null unless PERSONAL_DATA is
    keep.
    """
    return account.execute(
        "SELECT member.id, coalesce(member.email, member.phone_number) FROM {} AS member"
        " WHERE member.esp_integration_id = %(account)s AND member.id > %(after)s"
        " AND EXISTS (SELECT FROM {} AS change"
        " WHERE change.esp_integration_id = member.esp_integration_id AND change.member_id = member.id"
        " AND change.change = 'subscribed' AND change.__synced_at >= coalesce(%(since)s, '-infinity'::timestamptz))"
        " ORDER BY member.id LIMIT %(limit)s",
        dimensions.MEMBERS,
        membership.SUBSCRIPTION_CHANGES,
        since=since,
        after=after,
        limit=limit,
    ).fetchall()


def count_subscribers(account: Account) -> int:
    """Return how many people ever joined a list, each counted once. It reads one index, not the table."""
    query = (
        "SELECT count(*) FROM (SELECT DISTINCT member_id FROM {}"
        " WHERE esp_integration_id = %(account)s AND change = 'subscribed') AS people"
    )
    return int(account.scalar(query, membership.SUBSCRIPTION_CHANGES))


def incomplete_members(account: Account, since: datetime | None, digits: str, after: str, limit: int) -> list[str]:
    """Return the profile IDs of members whose complete record has not been stored, ordered, starting after `after`.

    Every complete record has the time of its creation. With `since`, records that were stored since then without it
    count as well: little more is known of them than an ID and an address. `digits` are the first digits of the keys to
    look at, without a gap, so that several readers can share the work. A profile that the source does not return is
    looked for again after a day, and after that no more.
    """
    values = {"since": since, "first": digits[0], "end": chr(ord(digits[-1]) + 1), "after": after, "limit": limit}
    return account.column(_INCOMPLETE, *_TABLES, **values)


def count_incomplete(account: Account, most: int) -> int:
    """Return how many members `incomplete_members` would return, at most `most`."""
    query = f"SELECT count(*) FROM ({_INCOMPLETE}) AS incomplete"
    return int(account.scalar(query, *_TABLES, since=None, first="0", end="g", after="", limit=most))


def names(account: Account) -> dict[str, str]:
    """Return the names of metrics, lists and segments by ID, as they are stored."""
    return {
        row[0]: row[1] for table in (dimensions.METRICS, dimensions.LISTS) for row in account.execute(_NAMES, table)
    }
