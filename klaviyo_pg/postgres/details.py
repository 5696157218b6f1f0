"""The digests of people's details: custom properties, consents and list suppressions, of which a person has many.

A digest is stored with the details that it belongs to, or not at all. The caller owns the transaction.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import polars as pl
from psycopg.sql import Identifier

from klaviyo_pg.catalogue import Load, dimensions, loads
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import watermarks
from klaviyo_pg.postgres.statements import row_key

_PROFILES = "profiles"
_PERSON = {"member_attributes": "id", "member_consents": "member_id", "list_suppressions": "member_id"}
_KEY = row_key(Identifier("ids", "id"))
# People are looked up one by one in the index, as in a merge: OFFSET 0 sees to that.
_STORED = """
SELECT member.id, CASE WHEN NOT {is_outdated} THEN member.details_digest END, member.created_at IS NOT NULL
FROM unnest(%(ids)s::text[]) AS ids (id) CROSS JOIN LATERAL (SELECT * FROM {} WHERE key = {key} OFFSET 0) AS member
"""
_IS_OUTDATED = """
(
    SELECT EXISTS (
        SELECT FROM {watermarks} AS outdated JOIN {watermarks} AS profiles USING (esp_integration_id)
        WHERE esp_integration_id = %(account)s AND outdated.stream = %(outdated)s AND profiles.stream = %(profiles)s
        AND outdated.watermark >= profiles.watermark
    )
)
"""
# Where a record that was read later is stored, the merge has kept its digest.
_OUTDATED = """
SELECT member.id FROM unnest(%(keys)s::text[], %(values)s::bigint[]) AS loaded (key, digest)
CROSS JOIN LATERAL (SELECT * FROM {} WHERE key = loaded.key OFFSET 0) AS member
WHERE member.details_digest IS DISTINCT FROM loaded.digest
"""
# Pages of events have no digest, but the time of reading, which the merge keeps in the same way.
_MET_BEFORE = """
SELECT member.id FROM unnest(%(keys)s::text[], %(values)s::timestamptz[]) AS loaded (key, read_at)
CROSS JOIN LATERAL (SELECT * FROM {} WHERE key = loaded.key OFFSET 0) AS member
WHERE member.updated_at > loaded.read_at
"""
_CLEAR = """
UPDATE {} SET details_digest = NULL
WHERE key IN (SELECT {key} FROM unnest(%(ids)s::text[]) AS ids (id)) AND details_digest IS NOT NULL
"""


class Stored(NamedTuple):
    """A stored person: the digest, if there is one, and if the record is complete."""

    digest: int | None
    is_complete: bool


def stored(account: Account, ids: Sequence[str]) -> dict[str, Stored]:
    """Return what is stored of people, by profile ID. Nobody has details before their record is complete.

    Only another dialect can have stored some. While all people are read again, digests do not count: everything is
    compared.
    """
    query = account.compose(_STORED, dimensions.MEMBERS, key=_KEY, is_outdated=account.compose(_IS_OUTDATED))
    values = {"ids": list(ids), "profiles": _PROFILES, "outdated": watermarks.outdated(_PROFILES)}
    return {each: Stored(digest, is_complete) for each, digest, is_complete in account.execute(query, **values)}


def outdated(account: Account, load: Load, frame: pl.DataFrame) -> set[str]:
    """Return the IDs of merged people whose stored row is newer, so that their details must not be stored."""
    if load is loads.CONSENTING_EVENT_MEMBERS:
        return _ids(account, _MET_BEFORE, frame.select("key", "updated_at"))
    if load in (loads.MEMBERS, loads.MEMBERS_WITHOUT_CONSENT):
        return _ids(account, _OUTDATED, frame.select("key", "details_digest").drop_nulls())
    return set()


def _ids(account: Account, query: str, loaded: pl.DataFrame) -> set[str]:
    """Return the IDs that a query finds by the keys of merged people and the values that belong to them."""
    if loaded.is_empty():
        return set()
    keys, values = (column.to_list() for column in loaded.get_columns())
    return set(account.column(query, dimensions.MEMBERS, keys=keys, values=values))


def without(load: Load, frame: pl.DataFrame, ids: Collection[str]) -> pl.DataFrame:
    """Remove the details of these people from a frame."""
    if not ids or load not in loads.DETAILS:
        return frame
    return frame.filter(~pl.col(_PERSON[load.table.name]).is_in(list(ids)))


def record_outdated(account: Account, until: datetime | None = None) -> None:
    """Record that profiles that were read up to a time (None: now) are out of date. A later run reads all again.

    Klaviyo has not changed them, but another dialect has overwritten some, or other properties stay readable now.
    Unlike deleting their watermark, this also counts for a run in progress, which will write the watermark.
    """
    watermarks.advance(account, watermarks.outdated(_PROFILES), None, until or datetime.now(UTC), None)


def clear(account: Account, load: Load, frame: pl.DataFrame) -> None:
    """Clear the digests of the people of a frame, because not all of their details could be stored."""
    if load in loads.DETAILS:
        ids = frame.get_column(_PERSON[load.table.name]).unique().to_list()
        account.execute(account.compose(_CLEAR, dimensions.MEMBERS, key=_KEY), ids=ids)
