"""Frames for the reports on campaigns and flows."""

from collections.abc import Sequence
from datetime import date

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import Load
from klaviyo_pg.catalogue.reports import DIMENSIONS, STATISTICS
from klaviyo_pg.catalogue.types import INTEGER, NUMERIC
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import md5, row_key

_SCHEMA = {
    "sent_on": pl.Date(),
    **dict.fromkeys((*DIMENSIONS[1:], "conversion_metric_id"), pl.String()),
    **{column.name: column.type.polars for column in STATISTICS},
}
_OWNER_KEYS = {"campaign": "campaign_key", "flow": "automation_key"}


def reports(read: Sequence[rows.Report], days: Sequence[date], load: Load, kind: str, integration_id: str) -> Cleaned:
    """Return the frame for the load of a report, of which these days were read as a whole.

    `kind` is campaign or flow. Each day also has a row without a key, so that what is stored of a day and not in the
    report counts as absent.
    """
    values = [(*row[:6], *_statistics(row)) for row in read]
    raw = pl.DataFrame(values, _SCHEMA, orient="row").pipe(cleaned)
    texts = [pl.col(name).cast(pl.String).fill_null("") for name in DIMENSIONS]
    frame = (
        raw.frame.pipe(last_by, *DIMENSIONS)
        .with_columns(
            key=row_key(integration_id, pl.concat_str(texts, separator=":")),
            message_key=md5(pl.col("message_id")),
            conversion_metric_key=row_key(integration_id, pl.col("conversion_metric_id")),
            **{_OWNER_KEYS[kind]: md5(pl.col("owner_id"))},
        )
        .rename({"owner_id": f"{kind}_id", "message_id": f"{kind}_message_id"})
    )
    marks = pl.DataFrame({"sent_on": list(days)}, {"sent_on": pl.Date()})
    return Cleaned(pl.concat([conformed(frame, load), conformed(marks, load)]), raw.nul_characters)


def _statistics(row: rows.Report) -> list[int | float | str | None]:
    """Return the statistics in the order and the types of their columns. A number with a fraction is no count."""
    made: list[int | float | str | None] = []
    for column in STATISTICS:
        value = row.statistics.get(column.name)
        if value is None:
            made.append(None)
        elif column.type is NUMERIC:
            made.append(str(value))
        elif column.type is INTEGER:
            made.append(int(value) if value == int(value) else None)
        else:
            made.append(float(value))
    return made
