"""What the warehouse tells of itself, as views."""

from klaviyo_pg.catalogue.types import FLOAT, NUMERIC, TEXT, TIMESTAMP, Column, View

FRESHNESS = View(
    "freshness",
    "How fresh and how complete everything is: one row for each metric, and for each other stream that is read.",
    (
        Column("integration", TEXT, "What this warehouse calls the account."),
        Column("stream", TEXT, "What is read, such as events/<metric id>."),
        Column("name", TEXT, "Name of the metric, list or stream."),
        Column("table_name", TEXT, "The table that it fills."),
        Column("newest_event", TIMESTAMP, "The latest event that is stored; null where it is not about events."),
        Column("watermark", TIMESTAMP, "Everything that the source held up to here has been read."),
        Column("last_complete_run", TIMESTAMP, "When a daily run of the account was last complete."),
        Column("last_reconciled", TIMESTAMP, "When counts were last compared with the source's."),
        Column("difference", NUMERIC, "Stored minus counted, over all days that were compared; 0: nothing is missing."),
        Column("age_hours", FLOAT, "Hours since the watermark."),
    ),
)
VIEWS = (FRESHNESS,)
