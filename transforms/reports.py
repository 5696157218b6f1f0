"""Frames for the reports on campaigns and flows."""

from collections.abc import Sequence
from datetime import date

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import Load
from klaviyo_pg.catalogue.reports import DIMENSIONS, STATISTICS
from klaviyo_pg.catalogue.types import DATE, INTEGER, NUMERIC, TEXT, Column, Type
from transforms.clean import Cleaned, cleaned_rows, conformed, last_by, same
from transforms.keys import md5, row_key

_REPORT = {
    "sent_on": ("day", DATE),
    **same(TEXT, "owner_id", "message_id", "variation_id"),
    "send_channel": ("channel", TEXT),
    "conversion_metric_id": ("metric_id", TEXT),
}
_OWNER_KEYS = {"campaign": "campaign_key", "flow": "automation_key"}


def reports(read: Sequence[rows.Report], days: Sequence[date], load: Load, kind: str, integration_id: str) -> Cleaned:
    """Return the frame for the load of a report, of which these days were read as a whole.

    `kind` is campaign or flow. Each day also has a row without a key, so that what is stored of a day and not in the
    report counts as absent.
    """
    raw = cleaned_rows(read, _REPORT)
    texts = [pl.col(name).cast(TEXT.polars).fill_null("") for name in DIMENSIONS]
    frame = (
        raw.frame.with_columns(_statistic(read, column) for column in STATISTICS)
        .pipe(last_by, *DIMENSIONS)
        .with_columns(
            key=row_key(integration_id, pl.concat_str(texts, separator=":")),
            message_key=md5(pl.col("message_id")),
            conversion_metric_key=row_key(integration_id, pl.col("conversion_metric_id")),
            **{_OWNER_KEYS[kind]: md5(pl.col("owner_id"))},
        )
        .rename({"owner_id": f"{kind}_id", "message_id": f"{kind}_message_id"})
    )
    markers = pl.DataFrame({"sent_on": list(days)}, {"sent_on": DATE.polars})
    return raw._replace(frame=pl.concat([conformed(frame, load), conformed(markers, load)]))


def _statistic(read: Sequence[rows.Report], column: Column) -> pl.Series:
    values = [_number(row.statistics.get(column.name), column.type) for row in read]
    return pl.Series(column.name, values, column.type.polars)


def _number(value: int | float | None, type_: Type) -> int | float | str | None:
    """Return a number as a column of a type takes it. One with a fraction is no count."""
    if value is None:
        return None
    if type_ is NUMERIC:
        return str(value)
    if type_ is INTEGER:
        return int(value) if value == int(value) else None
    return float(value)
