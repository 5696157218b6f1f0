"""Lookups of stored metrics, lists and people that a run needs. The caller owns the transaction."""

from datetime import datetime
from typing import NamedTuple

from psycopg.sql import Identifier

from klaviyo_pg.catalogue import dimensions, membership
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import row_key


class StoredMetric(NamedTuple):
    """A metric as stored: `destination` is the table of its events."""

    id: str
    name: str | None
    destination: str
    is_deleted: bool = False


def metrics(account: Account) -> list[StoredMetric]:
    """Return the account's metrics, including those that the source has deleted, ordered by ID.

    The source still returns the events of a deleted metric among those of all metrics, but refuses to list them alone.
    """
    return account.select(
        StoredMetric,
        "SELECT id, name, destination, deleted_at IS NOT NULL AS is_deleted FROM {}"
        " WHERE esp_integration_id = %(account)s ORDER BY id",
        dimensions.METRICS,
    )


def list_ids(account: Account) -> list[str]:
    """Return the IDs of the account's lists, in order. Segments and deleted lists are left out."""
    query = (
        "SELECT id FROM {} WHERE esp_integration_id = %(account)s AND list_type = 'list' AND deleted_at IS NULL"
        " ORDER BY id"
    )
    return [list_id for (list_id,) in account.execute(query, dimensions.LISTS)]


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


def unknown_members(account: Account, after: str, limit: int) -> list[str]:
    """Return the profile IDs in lists and subscription changes that members lacks, ordered, starting after `after`."""
    query = account.compose(
        "SELECT DISTINCT named.member_id FROM (SELECT member_id, esp_integration_id FROM {} UNION"
        " SELECT member_id, esp_integration_id FROM {}) AS named"
        " WHERE named.esp_integration_id = %(account)s AND named.member_id > %(after)s"
        " AND NOT EXISTS (SELECT FROM {} AS member WHERE member.key = {key}) ORDER BY 1 LIMIT %(limit)s",
        membership.STG_MEMBER_LISTS,
        membership.SUBSCRIPTION_CHANGES,
        dimensions.MEMBERS,
        key=row_key(Identifier("named", "member_id")),
    )
    return [member_id for (member_id,) in account.execute(query, after=after, limit=limit)]


def incomplete_members(account: Account, since: datetime, after: str, limit: int) -> list[str]:
    """Return the profile IDs of members stored since then without the time of their creation, starting after `after`.

    Every complete record has that time, so little more is known of them than an ID and an address.
    """
    query = (
        "SELECT id FROM {} WHERE esp_integration_id = %(account)s AND id > %(after)s AND created_at IS NULL"
        " AND updated_at >= %(since)s ORDER BY id LIMIT %(limit)s"
    )
    rows = account.execute(query, dimensions.MEMBERS, since=since, after=after, limit=limit)
    return [member_id for (member_id,) in rows]
