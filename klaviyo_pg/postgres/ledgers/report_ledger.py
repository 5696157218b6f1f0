"""The ledger of reports: which days were last read when; and what reports depend on. The caller owns the transaction.

The days are watermarks, so that each is recorded with the rows of its report.
"""

from collections.abc import Collection
from datetime import date, datetime

from klaviyo_pg.catalogue import account as tables
from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import watermarks

_TIMEZONE = "SELECT timezone FROM {} WHERE esp_integration_id = %(account)s ORDER BY __synced_at DESC LIMIT 1"
_MAPPED = """
SELECT coalesce(metric_id, custom_metric_id) FROM {}
WHERE esp_integration_id = %(account)s AND id = %(purpose)s AND deleted_at IS NULL
"""
# The rows of a day count the conversions of the metric by which it was read last.
_FORGET_OTHERS = """
DELETE FROM {} WHERE esp_integration_id = %(account)s AND starts_with(stream, %(report)s)
AND NOT starts_with(stream, %(prefix)s) AND split_part(stream, '/', 3) = ANY(%(days)s)
"""
_OF_REPORT = "esp_integration_id = %(account)s AND starts_with(stream, %(prefix)s)"


def timezone(account: Account) -> str | None:
    """Return the name of the account's time zone, as far as the source has said it."""
    name: str | None = account.scalar(_TIMEZONE, tables.ACCOUNTS)
    return name


def mapped_metric(account: Account, purpose: str) -> str | None:
    """Return the ID of the metric, or the custom metric, that the account uses for a purpose."""
    metric_id: str | None = account.scalar(_MAPPED, tables.MAPPED_METRICS, purpose=purpose)
    return metric_id


def read_days(account: Account, stream: str, metric_id: str) -> dict[date, datetime]:
    """Return when each day of a report was last read, for a metric."""
    prefix = _key(stream, metric_id, "")
    query = f"SELECT stream, watermark FROM {{}} WHERE {_OF_REPORT}"
    rows = account.execute(query, bookkeeping.WATERMARKS, prefix=prefix)
    return {date.fromisoformat(key.removeprefix(prefix)): at for key, at in rows}


def record(account: Account, stream: str, metric_id: str, days: Collection[date], at: datetime) -> None:
    """Record that days of a report were read for a metric, and for no other; freshness does not show them."""
    for day in days:
        watermarks.advance(account, _key(stream, metric_id, str(day)), None, at, None)
    values = {"report": f"{stream}/", "prefix": _key(stream, metric_id, ""), "days": list(map(str, days))}
    account.execute(_FORGET_OTHERS, bookkeeping.WATERMARKS, **values)


def forget(account: Account, stream: str, metric_id: str, days: Collection[date]) -> None:
    """Forget days of a report that are not read any more."""
    query = f"DELETE FROM {{}} WHERE {_OF_REPORT} AND stream = ANY(%(keys)s)"
    keys = [_key(stream, metric_id, str(day)) for day in days]
    account.execute(query, bookkeeping.WATERMARKS, prefix=_key(stream, metric_id, ""), keys=keys)


def forget_all(account: Account, streams: Collection[str]) -> None:
    """Forget all days of some reports, so that runs read them again."""
    query = (
        "DELETE FROM {} WHERE esp_integration_id = %(account)s AND split_part(stream, '/', 1) = ANY(%(streams)s)"
        " AND split_part(stream, '/', 3) <> ''"
    )
    account.execute(query, bookkeeping.WATERMARKS, streams=list(streams))


def _key(stream: str, metric_id: str, day: str) -> str:
    return f"{stream}/{metric_id}/{day}"
