"""Clearing the events of people who are being erased, and what flow campaigns have from them. The caller owns the
transaction.

Events keep their rows without anything about the person, so that event counts stay correct.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder

from klaviyo_pg.catalogue import Table, bookkeeping, events
from klaviyo_pg.catalogue.personal import CURRENCIES, EVENT_ID, MESSAGE_ID
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erase
from klaviyo_pg.postgres.partitions import Partition, stored_partitions
from klaviyo_pg.postgres.statements import names, of_all_events, row_key

CLEARED_AT_ONCE = 2_000
"""Events in one transaction, whose rows other batches may wait for."""

_HAS_INDEX = """
SELECT EXISTS (
    SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
    WHERE indrelid = to_regclass(%(name)s) AND attname = 'member_key' AND indisvalid AND indpred IS NULL
)
"""
_SEARCHED = "SELECT value FROM {erasing} WHERE esp_integration_id = %(account)s AND kind = 'table'"
# Events without a profile are looked at again, because the addresses of the people are not complete yet.
_SEARCH = """
INSERT INTO {erasing_events} (esp_integration_id, table_name, key, event_at, member_key, email)
SELECT %(account)s, %(table_name)s, key, event_at, member_key, lower(email) FROM ({candidates}) AS event
ON CONFLICT DO NOTHING
"""
_SELECT = (
    "SELECT key, event_at, member_key, email FROM {table} WHERE esp_integration_id = %(account)s AND ({condition})"
)
_PEOPLE = "SELECT count(*) FROM {erasing} WHERE esp_integration_id = %(account)s AND kind IN ('profile', 'named')"
_RECORD_SEARCH = """
INSERT INTO {erasing} (esp_integration_id, kind, value) VALUES (%(account)s, 'table', %(name)s) ON CONFLICT DO NOTHING
"""
_FOUND = """
UPDATE {erasing} SET is_found = true WHERE esp_integration_id = %(account)s AND NOT is_found
AND (
    kind = 'named' AND value IN (SELECT email FROM {erasing_events} WHERE esp_integration_id = %(account)s)
    OR kind = 'profile' AND value IN (SELECT member_key FROM {erasing_events} WHERE esp_integration_id = %(account)s)
)
"""
# People without a row in members whose events have a named address.
_ADD_PROFILES = """
WITH candidates AS MATERIALIZED (
    SELECT DISTINCT member_key FROM {erasing_events}
    WHERE esp_integration_id = %(account)s AND email IN {named} AND member_key IS NOT NULL
)
INSERT INTO {erasing} (esp_integration_id, kind, value, is_found)
SELECT %(account)s, 'profile', member_key, true FROM (
    SELECT member_key FROM candidates EXCEPT
    SELECT member_key FROM {members}
    WHERE esp_integration_id = %(account)s AND (member_key IN (SELECT member_key FROM candidates)) IS TRUE
) AS unknown
ON CONFLICT DO NOTHING
"""
_USED = "SELECT email FROM {erasing_events} WHERE esp_integration_id = %(account)s AND member_key IN {profiles}"
_NEXT = """
SELECT key, event_at FROM {erasing_events} WHERE esp_integration_id = %(account)s AND table_name = %(table_name)s
ORDER BY event_at, key LIMIT %(limit)s
"""
_DONE = """
DELETE FROM {erasing_events} WHERE esp_integration_id = %(account)s AND table_name = %(table_name)s
AND (key, event_at) IN (SELECT * FROM unnest(%(keys)s::text[], %(times)s::timestamptz[]))
"""
_LEFT = "SELECT table_name, count(*) FROM {erasing_events} WHERE esp_integration_id = %(account)s GROUP BY 1 ORDER BY 1"
_THEIRS = (
    "(event.member_key IN {profiles} OR lower(event.email) IN {named}"
    " OR event.member_key IS NULL AND lower(event.email) IN {addresses})"
)
# The planner overestimates what the lookups cost, and would read the whole table for each batch.
_BY_KEY = """
SELECT set_config(name, 'off', true)
FROM unnest('{{enable_seqscan, enable_hashjoin, enable_mergejoin}}'::text[]) AS name
"""
_NAMED_KEYS = (
    "({names}) IN (SELECT {names} FROM unnest(%(keys)s::text[], %(times)s::timestamptz[]) AS batch (key, event_at))"
)
# In the order in which batches merge rows, so that the two wait for each other instead of deadlocking.
_LOCK = """
SELECT CASE WHEN automation_key IS NOT NULL THEN campaign_key END, id !~ %(event_id)s FROM {event} AS event
WHERE {where} AND {theirs} ORDER BY {order} FOR UPDATE
"""
_NOTE_CAMPAIGNS = """
INSERT INTO {erasing} (esp_integration_id, kind, value)
SELECT %(account)s, 'campaign', unnest(%(campaigns)s::text[]) ON CONFLICT DO NOTHING
"""
# A later batch may have stored the event with its digest already.
_DELETE_COPIES = """
DELETE FROM {event} AS event WHERE {where} AND {theirs} AND id !~ %(event_id)s
AND (SELECT true FROM {event} AS cleared WHERE cleared.key = {key} AND cleared.event_at = event.event_at LIMIT 1)
"""
# An ID that is not one, such as an address, becomes its digest or null, as in transforms.erased.
_CLEAR = """
UPDATE {event} AS event SET email = NULL, email_domain = NULL, member_key = NULL, properties = NULL,
    __synced_at = now(),
    value_currency = CASE WHEN upper(value_currency) = ANY(%(currencies)s) THEN value_currency END,
    variation = CASE WHEN variation ~ %(message_id)s THEN variation END,
    key = CASE WHEN id ~ %(event_id)s THEN key ELSE {key} END,
    id = CASE WHEN id ~ %(event_id)s THEN id ELSE md5(id) END
WHERE {where} AND {theirs}
"""
# What an event is attributed to says nothing about the person. That two events are those of one person does.
_DELETE_ODD_ATTRIBUTIONS = """
DELETE FROM {event_attributions} AS attribution
USING (SELECT event_at, key, id FROM {event} AS event WHERE {where} AND {theirs}) AS event
WHERE attribution.event_at = event.event_at AND attribution.event_key = event.key
AND (event.id !~ %(event_id)s OR attribution.id !~ %(event_id)s)
"""
_UNLINK = """
UPDATE {event_attributions} AS attribution SET attributed_event_key = NULL, __synced_at = now()
FROM (SELECT event_at, key FROM {event} AS event WHERE {where} AND {theirs}) AS event
WHERE attribution.event_at = event.event_at AND attribution.event_key = event.key
AND attribution.attributed_event_key IS NOT NULL
"""
_OF_CAMPAIGNS = (
    "SELECT campaign_key, event_at, properties FROM {} WHERE esp_integration_id = %(account)s"
    " AND campaign_key IN (SELECT unnest(%(keys)s::text[])) AND automation_key IS NOT NULL AND properties IS NOT NULL"
)
# Nearly always, the latest event has both texts: no other one is read as a document.
_LATEST = """
WITH latest AS (SELECT campaign_key, max(event_at) AS event_at FROM ({all_events}) AS event GROUP BY 1)
SELECT event.campaign_key, event.event_at, event.properties
FROM ({all_events}) AS event JOIN latest USING (campaign_key, event_at)
"""
_SAID = """
WITH said AS MATERIALIZED (
    SELECT campaign_key, event_at, nullif(properties ->> 'Campaign Name', '') AS name,
        nullif(properties ->> 'Subject', '') AS subject FROM ({campaign_events}) AS event
), names AS (
    SELECT DISTINCT ON (campaign_key) campaign_key, name FROM said WHERE name IS NOT NULL
    ORDER BY campaign_key, event_at DESC
), subjects AS (
    SELECT DISTINCT ON (campaign_key) campaign_key, subject FROM said WHERE subject IS NOT NULL
    ORDER BY campaign_key, event_at DESC
)
SELECT campaign_key, name, subject FROM names FULL JOIN subjects USING (campaign_key)
"""
_NOTED = "(SELECT value FROM {erasing} WHERE esp_integration_id = %(account)s AND kind = 'campaign')"
_CAMPAIGNS = """
SELECT campaign_key, name, subject FROM {campaigns} AS campaign
WHERE esp_integration_id = %(account)s AND automation_key IS NOT NULL AND campaign_key IN {noted}
"""
_DELETE_UNNAMEABLE = """
DELETE FROM {campaigns} WHERE esp_integration_id = %(account)s AND automation_key IS NOT NULL AND id !~ %(message_id)s
AND campaign_key IN {noted}
"""
# Events name a campaign of a flow. What only the erased events said is null until a later event says it again.
_RENAME = """
UPDATE {campaigns} AS campaign SET name = said.name, subject = said.subject, __synced_at = now()
FROM unnest(%(keys)s::text[], %(names)s::text[], %(subjects)s::text[]) AS said (campaign_key, name, subject)
WHERE campaign.esp_integration_id = %(account)s AND campaign.automation_key IS NOT NULL
AND campaign.campaign_key = said.campaign_key
AND (campaign.name, campaign.subject) IS DISTINCT FROM (said.name, said.subject)
"""

Texts = dict[str, tuple[str | None, str | None]]
"""Name and subject of campaigns, by key."""


class Discovered(NamedTuple):
    """The numbers of profiles and addresses that the events added to the people who are being erased."""

    profiles: int
    addresses: int


def to_search(account: Account) -> list[Partition]:
    """Return the tables and partitions that have not been searched for events of the people yet."""
    searched = set(account.column(_SEARCHED))
    partitions = (each for table in events.EVENT_TABLES for each in stored_partitions(account, table))
    return [partition for partition in partitions if partition.name not in searched]


def _text(account: Account, name: Identifier) -> str:
    return name.as_string(account.connection)


def search(account: Account, partition: Partition) -> None:
    """Note the events of the people in a table or partition. Locks no row.

    If people were added since it began, the table has still to be searched for them.
    """
    people = _count_people(account)
    noted = account.compose(_SEARCH, candidates=_candidates(account, partition))
    account.execute(noted, table_name=partition.table.name)
    erase.lock_people(account)
    if _count_people(account) == people:
        account.execute(_RECORD_SEARCH, name=partition.name)


def _count_people(account: Account) -> int:
    return int(account.scalar(_PEOPLE))


def _candidates(account: Account, partition: Partition) -> Composed:
    parts = erase.parts_of(account)
    table = partition.identifier
    theirs = account.compose("member_key IN {profiles}", **parts)
    conditions: list[Composable] = [theirs, SQL("member_key IS NULL AND email IS NOT NULL")]
    if _names_addresses(account):
        conditions.append(account.compose("lower(email) IN {named}", **parts))
    elif _has_index(account, table):  # each condition by the index; without one, all of them in one pass
        return SQL(" UNION ALL ").join(_select(account, table, each) for each in conditions)
    return _select(account, table, SQL(" OR ").join(conditions))


def _select(account: Account, table: Identifier, condition: Composable) -> Composed:
    return account.compose(_SELECT, table=table, condition=condition)


def _names_addresses(account: Account) -> bool:
    return account.is_true(
        "SELECT EXISTS (SELECT FROM {erasing} WHERE esp_integration_id = %(account)s AND kind = 'named')"
    )


def _has_index(account: Account, table: Identifier) -> bool:
    return account.is_true(_HAS_INDEX, name=_text(account, table))


def discover(account: Account) -> Discovered:
    """Add the profiles and addresses that the events of the people name. New profiles need another search."""
    erase.lock_people(account)
    parts = erase.parts_of(account)
    for table in (bookkeeping.ERASING, bookkeeping.ERASING_EVENTS):  # else the people are looked for one after another
        account.execute("ANALYZE {}", table)
    account.execute(_FOUND)
    profiles = account.execute(account.compose(_ADD_PROFILES, **parts)).rowcount + erase.add_merged(account)
    if profiles:
        erase.search_again(account)
    return Discovered(profiles, erase.add_addresses(account, account.compose(_USED, **parts)))


def left(account: Account) -> dict[str, int]:
    """Return the number of events that have still to be looked at, by table."""
    return dict(account.execute(_LEFT).fetchall())


def clear(account: Account, table: Table) -> tuple[int, int]:
    """Clear some events of a table, and return how many were looked at and how many were cleared."""
    values = {"table_name": table.name, "limit": CLEARED_AT_ONCE}
    batch: Sequence[tuple[str, datetime]] = account.execute(_NEXT, **values).fetchall()
    if not batch:
        return 0, 0
    keys, times = (list(each) for each in zip(*batch, strict=True))
    account.execute(_BY_KEY)
    where = account.compose(_NAMED_KEYS, names=names(table.primary_key))
    cleared = _clear(account, table, where, keys=keys, times=times)
    account.execute(_DONE, **values, keys=keys, times=times)
    return len(batch), cleared


def clear_moved(account: Account, table: Table, metric_id: str) -> None:
    """Clear the events of a metric that have just been moved into a table, if people are being erased."""
    if account.is_true("SELECT EXISTS (SELECT FROM {erasing} WHERE esp_integration_id = %(account)s)"):
        where = SQL("metric_key = {}").format(row_key(Placeholder("metric_id")))
        _clear(account, table, where, metric_id=metric_id)


def _clear(account: Account, table: Table, where: Composable, **values: object) -> int:
    parts = erase.parts_of(account)
    parts |= {
        "event": account.table(table),
        "where": SQL("event.esp_integration_id = %(account)s AND {}").format(where),
        "theirs": account.compose(_THEIRS, **parts),
        "order": names(table.primary_key),
        "key": row_key(SQL("md5(event.id)")),
    }
    values |= {"currencies": sorted(CURRENCIES), "event_id": EVENT_ID, "message_id": MESSAGE_ID}
    locked = account.execute(account.compose(_LOCK, **parts), **values).fetchall()
    if not locked:
        return 0
    campaigns = sorted({campaign for campaign, _ in locked if campaign})
    account.execute(_NOTE_CAMPAIGNS, campaigns=campaigns)
    for query in (_DELETE_ODD_ATTRIBUTIONS, _UNLINK):
        account.execute(account.compose(query, **parts), **values)
    if any(is_odd for _, is_odd in locked):
        account.execute(account.compose(_DELETE_COPIES, **parts), **values)
    account.execute(account.compose(_CLEAR, **parts), **values)
    return len(locked)


def rename_campaigns(account: Account) -> int:
    """Take the names of flow campaigns that sent to the people from events of others. Return how many changed."""
    noted = account.compose(_NOTED)
    unnameable = account.compose(_DELETE_UNNAMEABLE, noted=noted)
    deleted = account.execute(unnameable, message_id=MESSAGE_ID).rowcount
    stored = _texts(account, account.compose(_CAMPAIGNS, noted=noted))
    if not stored:
        return deleted
    all_events = of_all_events(account.schema, _OF_CAMPAIGNS)
    latest = account.compose(_LATEST, all_events=all_events)
    said = _texts(account, account.compose(_SAID, campaign_events=latest), keys=list(stored))
    unsaid = [key for key, texts in stored.items() if _lacks(said.get(key, (None, None)), texts)]
    if unsaid:
        said |= _texts(account, account.compose(_SAID, campaign_events=all_events), keys=unsaid)
    texts = [said.get(key, (None, None)) for key in stored]
    names, subjects = (list(each) for each in zip(*texts, strict=True))
    values = {"keys": list(stored), "names": names, "subjects": subjects}
    return deleted + account.execute(_RENAME, **values).rowcount


def _texts(account: Account, query: Composed, **values: object) -> Texts:
    return {key: (name, subject) for key, name, subject in account.execute(query, **values)}


def _lacks(said: tuple[str | None, str | None], stored: tuple[str | None, str | None]) -> bool:
    return any(new is None and old is not None for new, old in zip(said, stored, strict=True))
