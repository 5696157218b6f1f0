"""Erasing the rejected records that mention people, some of them in each transaction. The caller owns the transaction.

A record mentions a person if its text or its reason contains the profile's ID, the member key or an address.
"""

from typing import NamedTuple

import polars as pl

from klaviyo_pg.postgres.account import Account

COMPARED_AT_ONCE = 1_000
"""Records in one transaction."""

_WORDS = """
SELECT lower(value) FROM {erasing}
WHERE esp_integration_id = %(account)s AND kind IN ('profile', 'named', 'address') AND value <> ''
UNION
SELECT lower(member_id) FROM {erasing} WHERE esp_integration_id = %(account)s AND member_id <> ''
"""
_NEXT = r"""
SELECT key, regexp_replace(lower(concat(raw, ' ', reason)), '%%40|\\u0040', '@', 'g') FROM {rejects}
WHERE esp_integration_id = %(account)s AND key > %(after)s ORDER BY key LIMIT %(limit)s
"""
_DELETE = "DELETE FROM {rejects} WHERE esp_integration_id = %(account)s AND key = ANY(%(keys)s)"


class Deleted(NamedTuple):
    """The number of records that were deleted, and the key of the last one that was compared; None at the end."""

    records: int
    last: str | None


def delete(account: Account, after: str) -> Deleted:
    """Delete those of the next records, in the order of their keys, that mention someone who is being erased."""
    records = account.execute(_NEXT, after=after, limit=COMPARED_AT_ONCE).fetchall()
    if not records:
        return Deleted(0, None)
    words = account.column(_WORDS)
    frame = pl.DataFrame(records, {"key": pl.String(), "text": pl.String()}, orient="row")
    mentions = pl.col("text").str.contains_any(words)  # looks for all of them in one pass
    keys = frame.filter(mentions).get_column("key").to_list()
    return Deleted(account.execute(_DELETE, keys=keys).rowcount, frame.item(-1, "key"))
