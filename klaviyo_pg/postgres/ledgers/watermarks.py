"""The ledger of watermarks: how far each stream has been read without a gap. The caller owns the transaction."""

from collections.abc import Collection
from datetime import datetime

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.windows import NEVER

_OUTDATED = "outdated_"


def read(account: Account) -> dict[str, datetime]:
    """Return the watermark of each stream."""
    query = "SELECT stream, watermark FROM {} WHERE esp_integration_id = %(account)s"
    return dict(account.execute(query, bookkeeping.WATERMARKS).fetchall())


def find(account: Account, stream: str) -> datetime | None:
    """Return the watermark of a stream; None if it has none."""
    query = "SELECT watermark FROM {} WHERE esp_integration_id = %(account)s AND stream = %(stream)s"
    watermark: datetime | None = account.scalar(query, bookkeeping.WATERMARKS, stream=stream)
    return watermark


def valid(account: Account) -> dict[str, datetime]:
    """Return the watermark of each stream, except of those of which everything read so far is out of date."""
    stored = read(account)
    return {stream: at for stream, at in stored.items() if stored.get(outdated(stream), NEVER) < at}


def outdated(stream: str) -> str:
    """Return the name under which watermarks record the time up to which what was read of a stream is out of date."""
    return f"{_OUTDATED}{stream}"


def outdate(account: Account, streams: Collection[str]) -> None:
    """Record that everything read so far of some streams, and of their subjects, is out of date.

    A later run reads it in full. Their watermarks stay, which the view `freshness` shows.
    """
    account.execute(
        "INSERT INTO {} AS stored (esp_integration_id, stream, watermark)"
        " SELECT esp_integration_id, %(outdated)s || stream, watermark FROM {}"
        " WHERE esp_integration_id = %(account)s AND split_part(stream, '/', 1) = ANY(%(streams)s)"
        " ON CONFLICT (esp_integration_id, stream) DO UPDATE SET"
        " watermark = greatest(stored.watermark, excluded.watermark)",
        bookkeeping.WATERMARKS,
        bookkeeping.WATERMARKS,
        outdated=_OUTDATED,
        streams=list(streams),
    )


def advance(
    account: Account,
    stream: str,
    start: datetime | None,
    until: datetime,
    table_name: str | None,
    subject: str | None = None,
) -> None:
    """Record that a stream has been read from `start` (None: from its beginning) to `until`.

    A watermark never moves back. It does not move either if `start` is after it, which would leave a gap. If `start` is
    before the recorded period, the period then starts there.

    `table_name` is the first table that the stream fills; without one, the view `freshness` leaves the stream out.
    """
    account.execute(
        "INSERT INTO {} AS stored (esp_integration_id, stream, watermark, since, subject, table_name)"
        " VALUES (%(account)s, %(stream)s, %(until)s, %(start)s, %(subject)s, %(table_name)s)"
        " ON CONFLICT (esp_integration_id, stream) DO UPDATE SET watermark = excluded.watermark,"
        " since = least(stored.since, excluded.since), subject = excluded.subject, table_name = excluded.table_name"
        " WHERE stored.watermark < excluded.watermark"
        " AND (excluded.since IS NULL OR excluded.since <= stored.watermark)",
        bookkeeping.WATERMARKS,
        stream=stream,
        start=start,
        until=until,
        subject=subject,
        table_name=table_name,
    )
