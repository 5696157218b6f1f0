"""The ledger of watermarks: how far each stream has been read without a gap. The caller owns the transaction."""

from datetime import datetime

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account


def read(account: Account) -> dict[str, datetime]:
    """Return the watermark of each stream."""
    query = "SELECT stream, watermark FROM {} WHERE esp_integration_id = %(account)s"
    return dict(account.execute(query, bookkeeping.WATERMARKS).fetchall())


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
