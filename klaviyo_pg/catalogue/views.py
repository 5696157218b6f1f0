"""The views that summarize the state of the warehouse."""

from klaviyo_pg.catalogue.types import FLOAT, NUMERIC, TEXT, TIMESTAMP, Column, View

FRESHNESS = View(
    "freshness",
    "How fresh and complete the data is: one row for each metric and for each other stream.",
    (
        Column("integration", TEXT, "Name of the account in this warehouse (KLAVIYO_INTEGRATION)."),
        Column("stream", TEXT, "Stream that is read, such as events/<metric id>."),
        Column("name", TEXT, "Name of the metric, list or stream."),
        Column("table_name", TEXT, "Table that the stream fills; if it fills several, the first one."),
        Column("newest_event", TIMESTAMP, "Time of the newest stored event; null if the stream has no events."),
        Column("watermark", TIMESTAMP, "Everything that the source contained at this time has been read."),
        Column(
            "last_complete_run",
            TIMESTAMP,
            "When the last complete daily run finished, with or without differences.",
        ),
        Column("last_reconciled", TIMESTAMP, "When the stored events were last compared with the source's counts."),
        Column("difference", NUMERIC, "Stored minus counted events over all compared days; 0 if nothing is missing."),
        Column("age_hours", FLOAT, "Hours since the watermark."),
        Column("count_state", TEXT, "complete, differs or uncounted; null if the counts were never compared."),
    ),
)
VIEWS = (FRESHNESS,)
