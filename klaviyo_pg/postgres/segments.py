"""The stored segments, and who has left one according to a full read of it. The caller owns the transaction."""

from typing import NamedTuple

from psycopg.sql import SQL, Placeholder

from klaviyo_pg.catalogue import segments
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard, Missing, is_believed
from klaviyo_pg.postgres.statements import row_key

SWEEPS = "segment_sweep"
"""The name under which watermarks record when all members of a segment were last read."""
_EXISTING = "SELECT id, name FROM {} WHERE esp_integration_id = %(account)s AND deleted_at IS NULL ORDER BY id"
_IS_PROCESSING = "SELECT is_processing FROM {} WHERE esp_integration_id = %(account)s AND id = %(segment_id)s"
_PRESENT = "esp_integration_id = %(account)s AND segment_id = %(segment_id)s AND left_at IS NULL"
# EXCEPT and keys are fast even right after the table was filled, when Postgres has no statistics about it.
_LEFT = f"""
SELECT member_id AS row_key FROM {{segment_members}} WHERE {_PRESENT}
EXCEPT SELECT member_id FROM {{swept_members}}
WHERE esp_integration_id = %(account)s AND list_id = %(segment_id)s AND sweep = %(sweep)s AND answer = 'found'
"""
_MARK = """
UPDATE {segment_members} AS stored SET left_at = now(), __synced_at = now() FROM ({left}) AS gone
WHERE stored.key = {key}
"""


class StoredSegment(NamedTuple):
    """A segment as stored."""

    id: str
    name: str | None


def existing(account: Account) -> list[StoredSegment]:
    """Return the segments that the source has, ordered by ID."""
    return [StoredSegment(*row) for row in account.execute(_EXISTING, segments.SEGMENTS)]


def is_processing(account: Account, segment_id: str) -> bool:
    """Return whether the source was computing the members of a segment when the segment was last read."""
    return account.is_true(_IS_PROCESSING, segments.SEGMENTS, segment_id=segment_id)


def end_sweep(account: Account, guard: Guard, segment_id: str, sweep: str) -> bool:
    """Mark the people that a complete sweep of a segment did not find, and return whether their absence is believed.

    Raises UnconfirmedLoss if they are more than the guard believes.
    """
    left = account.compose(_LEFT)
    stored = account.compose(f"SELECT count(*) FROM {{segment_members}} WHERE {_PRESENT}")
    values = {"segment_id": segment_id, "sweep": sweep}
    if not is_believed(account, guard, Missing(segments.SEGMENT_MEMBERS, left, stored), **values):
        return False
    key = row_key(SQL("{} || ':' || gone.row_key").format(Placeholder("segment_id")))
    account.execute(account.compose(_MARK, left=left, key=key), **values)
    return True
