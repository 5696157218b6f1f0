"""The names of lists over time, and the lists that events meant by a name. The caller owns the transaction.

Where personal data is protected, both are hashes: the name of a list in an event can be any text.
"""

from collections.abc import Callable

from psycopg.sql import SQL, Composable, Identifier

from klaviyo_pg.catalogue import Table, membership
from klaviyo_pg.postgres.account import Account

# A list that has been renamed had its old name until now, and can have had the new one since it was last read.
_END = """
UPDATE {list_names} AS known SET until = now()
FROM unnest(%(ids)s::text[], %(names)s::text[]) AS list (id, name)
WHERE known.esp_integration_id = %(account)s AND known.until IS NULL AND list.id = known.list_id
AND list.name <> known.name
"""
_BEGIN = """
INSERT INTO {list_names} (esp_integration_id, list_id, name, since, seen_at)
SELECT %(account)s, list.id, read.name, CASE
    WHEN EXISTS (
        SELECT FROM {list_names} AS known
        WHERE known.esp_integration_id = %(account)s AND known.list_id = list.id
    )
    THEN (SELECT watermark FROM {watermarks} WHERE esp_integration_id = %(account)s AND stream = 'lists')
    ELSE list.created_at
END, now()
FROM {lists} AS list JOIN unnest(%(ids)s::text[], %(names)s::text[]) AS read (id, name) ON read.id = list.id
WHERE list.esp_integration_id = %(account)s AND list.list_type = 'list'
AND NOT EXISTS (
    SELECT FROM {list_names} AS known
    WHERE known.esp_integration_id = %(account)s AND known.list_id = list.id AND known.until IS NULL
)
"""
_NAMES = """
SELECT id, name FROM {lists} WHERE esp_integration_id = %(account)s AND list_type = 'list' AND name IS NOT NULL
ORDER BY id
"""
_READABLE = "SELECT DISTINCT {column} FROM {table} WHERE esp_integration_id = %(account)s AND {column} !~ %(hash)s"
_REPLACE = """
UPDATE {table} AS stored SET {column} = replaced.hash
FROM unnest(%(names)s::text[], %(hashes)s::text[]) AS replaced (name, hash)
WHERE stored.esp_integration_id = %(account)s AND stored.{column} = replaced.name
"""
# The lists that had the name at the time of the event. A subscribe event means the one that the person then joined. The
# rows are found by ctid, which is fast whatever Postgres expects of an account that it has no statistics about.
RESOLVE = """
WITH meant AS MATERIALIZED (
    SELECT changes.ctid, array_agg(DISTINCT known.list_id) AS lists,
        array_agg(DISTINCT known.list_id) FILTER (
            WHERE changes.change = 'subscribed'
            AND abs(extract(epoch FROM changes.changed_at - stage.created_at)) <= %(same_moment)s
        ) AS joined
    FROM {subscription_changes} AS changes
    JOIN {list_names} AS known ON known.esp_integration_id = %(account)s AND {had_name}
    LEFT JOIN {stg_member_lists} AS stage ON stage._sync_id = md5(known.list_id || ':' || changes.member_id)
        AND stage.esp_integration_id = %(account)s
    WHERE changes.esp_integration_id = %(account)s AND changes.scope = 'list' AND changes.list_id IS NULL AND {scope}
    GROUP BY changes.ctid
)
UPDATE {subscription_changes} AS changes
SET list_id = CASE WHEN cardinality(meant.lists) = 1 THEN meant.lists[1] ELSE meant.joined[1] END
FROM meant
WHERE changes.ctid = meant.ctid AND (cardinality(meant.lists) = 1 OR cardinality(meant.joined) = 1)
"""
HAD_NAME = SQL(
    "known.name = changes.list_name AND (known.since IS NULL OR known.since <= changes.changed_at)"
    " AND (known.until IS NULL OR changes.changed_at < known.until)"
)
"""The condition that a list had, at the time of a change, the name that the change mentions."""
_ALL = SQL("true")
_HASH = "^[0-9a-f]{32}$"
_SAME_MOMENT = 5  # seconds between the event of joining a list and the list's own time of joining

Protect = Callable[[str], str]
"""Returns the hash of a text, or the text if it is one."""


def record(account: Account, protect: Protect | None = None) -> None:
    """Record the names of all lists, as they have just been read in full; hashed if `protect` is passed."""
    if protect is not None:
        _protect_stored(account, protect)
    lists = account.execute(_NAMES).fetchall()
    names = [name if protect is None else protect(name) for _, name in lists]
    for query in (_END, _BEGIN):
        account.execute(query, ids=[list_id for list_id, _ in lists], names=names)


def _protect_stored(account: Account, protect: Protect) -> None:
    """Hash the names that an earlier version stored as they are, so that they still match those of new events."""
    if _protect_column(account, membership.LIST_NAMES, "name", protect):
        _protect_column(account, membership.SUBSCRIPTION_CHANGES, "list_name", protect)


def _protect_column(account: Account, table: Table, column: str, protect: Protect) -> int:
    parts = {"table": account.table(table), "column": Identifier(column)}
    names = account.column(account.compose(_READABLE, **parts), hash=_HASH)
    query = account.compose(_REPLACE, **parts)
    return account.execute(query, names=names, hashes=[protect(name) for name in names]).rowcount


def resolve(account: Account, scope: Composable = _ALL) -> int:
    """Store the ID of the list that each change means, and return the number of changes that were resolved.

    A change stays unresolved while no list, or more than one, had its name at that time. `scope` is a condition that
    limits this to some of the `changes`.
    """
    query = account.compose(RESOLVE, had_name=HAD_NAME, scope=scope)
    return account.execute(query, same_moment=_SAME_MOMENT).rowcount
