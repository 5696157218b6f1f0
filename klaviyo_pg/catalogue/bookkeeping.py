"""The tables that record the project's own work: accounts, watermarks, runs, chunks, counts and rejects."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import ESP_INTEGRATION_ID
from klaviyo_pg.catalogue.types import BOOLEAN, FLOAT, INTEGER, KEY, TEXT, TIMESTAMP, Column, Merge, Table

_RUN_ID = Column("run_id", TEXT, "ID of the run.", personal=Harmless.OWN)

INTEGRATIONS = Table(
    "integrations",
    "One row for each Klaviyo account in this warehouse.",
    (
        Column("name", TEXT, "Name of the account in this warehouse (KLAVIYO_INTEGRATION).", personal=Harmless.SETTING),
        Column("esp_integration_id", TEXT, "Generated once; part of every row key.", personal=Harmless.OWN),
        Column("account_id", TEXT, "Klaviyo's ID of the account.", personal=Harmless.ID),
        Column("created_at", TIMESTAMP, "When the account was first synced."),
        Column(
            "personal_data", TEXT, "PERSONAL_DATA mode of the stored rows; null means keep.", personal=Harmless.SETTING
        ),
        Column(
            "salt_digest",
            TEXT,
            "Digest that detects a changed PERSONAL_DATA_SALT; null if no salt is used.",
            personal=Harmless.OWN,
        ),
        Column(
            "readable_digest",
            TEXT,
            "Digest that detects changed READABLE_PROPERTIES; null if names are kept, or if no run has recorded it.",
            personal=Harmless.OWN,
        ),
        Column(
            "removing_since",
            TIMESTAMP,
            "When removing the account from this warehouse began, which is not finished; null otherwise.",
        ),
    ),
    primary_key=("name",),
)
WATERMARKS = Table(
    "watermarks",
    "How far each stream has been read without a gap. Never in the future.",
    (
        ESP_INTEGRATION_ID,
        Column(
            "stream",
            TEXT,
            "Name of the stream, followed by /<metric id> or /<list id> if it has a subject.",
            personal=Harmless.OWN,
        ),
        Column("watermark", TIMESTAMP, "Everything that the source contained at this time has been read."),
        Column(
            "since",
            TIMESTAMP,
            "Start of the period that has been read; null if it starts with the source or was not recorded.",
        ),
        Column(
            "subject",
            TEXT,
            "ID of the metric or list that the stream is limited to; null if it has none.",
            personal=Harmless.ID,
        ),
        Column(
            "table_name",
            TEXT,
            "Table that the stream fills; if it fills several, the first one. Null hides the row from freshness.",
            personal=Harmless.OWN,
        ),
    ),
    primary_key=("esp_integration_id", "stream"),
    internal=True,
)
RUNS = Table(
    "runs",
    "One row for each run, including those that failed before they began.",
    (
        _RUN_ID,
        ESP_INTEGRATION_ID,
        Column("flow", TEXT, "daily, backfill or reconcile.", personal=Harmless.OWN),
        Column(
            "selection",
            TEXT,
            "Digest of the run's arguments; a run resumes an unfinished one with the same digest. Null if no run may.",
            personal=Harmless.OWN,
        ),
        Column(
            "is_limited",
            BOOLEAN,
            "True if arguments limited what the run read, such as --tables or --metrics; null for runs that failed "
            "before they began, and for those of earlier versions.",
        ),
        Column("as_of", TIMESTAMP, "Point in time up to which the run reads the source."),
        Column("started_at", TIMESTAMP, "When the run started or was last resumed."),
        Column("finished_at", TIMESTAMP, "When the run finished."),
        Column(
            "state",
            TEXT,
            "running, complete, complete with differences, partial, to be continued, stopped or failed.",
            personal=Harmless.OWN,
        ),
        Column(
            "restarted_at",
            TIMESTAMP,
            "When a backfill with --restart dropped what the ledger had of its window; a rerun that resumes keeps it.",
        ),
        Column(
            "session_id",
            TEXT,
            "The process that started or last resumed the run; null once another run of the flow has started.",
            personal=Harmless.OWN,
        ),
        Column("requests", INTEGER, "Requests sent to the API; null if the run failed before it began."),
        Column("retries", INTEGER, "Requests that were retries."),
        Column(
            "message",
            TEXT,
            "Errors, differences, what could not be counted, and that it resumed another run; null if there are none.",
            personal=Harmless.OWN,
        ),
    ),
    primary_key=("run_id",),
)
RUN_TABLES = Table(
    "run_tables",
    "Row counts for each run and table.",
    (
        _RUN_ID,
        ESP_INTEGRATION_ID,
        Column("table_name", TEXT, "Name of the table.", personal=Harmless.OWN),
        Column("rows_read", INTEGER, "Rows that the run read for this table."),
        Column("inserted", INTEGER, "Rows that were new."),
        Column("updated", INTEGER, "Rows that had changed."),
        Column("unchanged", INTEGER, "Rows that were already stored with the same values."),
        Column("rejected", INTEGER, "Records that could not be stored; see rejects."),
        Column("nul_characters", INTEGER, "NUL characters removed from text, because Postgres cannot store them."),
        Column(
            "replaced_values",
            INTEGER,
            "Values replaced because Postgres cannot hold them. The rows are stored, the originals are in rejects.",
        ),
    ),
    primary_key=("run_id", "table_name"),
)
CHUNKS = Table(
    "chunks",
    "The chunks of a run: windows of a stream that are read and resumed as a unit.",
    (
        _RUN_ID,
        ESP_INTEGRATION_ID,
        Column("stream", TEXT, "Stream that is read, such as events/<metric id>.", personal=Harmless.OWN),
        Column("part", TEXT, "Window of the stream.", personal=Harmless.OWN),
        Column("state", TEXT, "planned or done.", personal=Harmless.OWN),
        Column("done_at", TIMESTAMP, "When its last row was committed."),
        Column("reached", TIMESTAMP, "Checkpoint: everything before this time is stored; null before the first one."),
    ),
    primary_key=("run_id", "stream", "part"),
    internal=True,
)
BACKFILL_CHUNKS = Table(
    "backfill_chunks",
    "The history to load, divided into windows with about equal numbers of events. They cover it without gaps.",
    (
        ESP_INTEGRATION_ID,
        Column("metric_id", TEXT, "Klaviyo's ID of the metric.", personal=Harmless.ID),
        Column("window_start", TIMESTAMP, "Start of the window."),
        Column("window_end", TIMESTAMP, "End of the window, exclusive."),
        Column("expected", INTEGER, "Events in the window according to the source; null if it cannot count them."),
        Column("loaded", INTEGER, "Events of the window that have been stored."),
        Column("reached", TIMESTAMP, "Checkpoint: everything before this time is stored; null before the first batch."),
        Column("state", TEXT, "planned, done or failed.", personal=Harmless.OWN),
        Column("attempts", INTEGER, "Number of times that reading the chunk was started."),
        Column("seconds", FLOAT, "Time spent on reading, in all attempts."),
        Column("error", TEXT, "Error of the last attempt; null if it did not fail.", personal=Harmless.OWN),
        Column("updated_at", TIMESTAMP, "When this row last changed."),
        Column(
            "counted_by",
            TEXT,
            "ID of the run that last asked the source for the number of events.",
            personal=Harmless.OWN,
        ),
        Column(
            "planned_by",
            TEXT,
            "ID of the run that planned the chunk. What was spooled for an earlier plan is not loaded.",
            personal=Harmless.OWN,
        ),
        Column(
            "group_name",
            TEXT,
            "Name that chunks share which one run of a distributed backfill reads; null if no such run was started.",
            personal=Harmless.OWN,
        ),
    ),
    primary_key=("esp_integration_id", "metric_id", "window_start"),
    internal=True,
)
RECONCILIATION = Table(
    "reconciliation",
    "Events counted by the source and events stored, by metric and day, and by hour where a day differs.",
    (
        ESP_INTEGRATION_ID,
        Column("metric_id", TEXT, "Klaviyo's ID of the metric.", personal=Harmless.ID),
        Column("window_start", TIMESTAMP, "Start of the day or hour (UTC)."),
        Column("window_end", TIMESTAMP, "End of the day or hour, exclusive."),
        Column("source_events", INTEGER, "Events according to the source; null if it cannot count them."),
        Column("warehouse_events", INTEGER, "Events that are stored."),
        Column("difference", INTEGER, "Stored minus counted events; negative if some are missing."),
        Column("state", TEXT, "complete, differs or uncounted.", personal=Harmless.OWN),
        Column("checked_at", TIMESTAMP, "When the counts were last compared."),
        Column("uncounted_at", TIMESTAMP, "When the source last could not count what it had counted at checked_at."),
        Column("read_again_at", TIMESTAMP, "When the window was last read again because the counts differed."),
    ),
    primary_key=("esp_integration_id", "metric_id", "window_start", "window_end"),
)
RECONCILED_HISTORY = Table(
    "reconciled_history",
    "When history older than RECONCILE_DAYS was last compared, by metric and year. Its differences are in"
    " reconciliation.",
    (
        ESP_INTEGRATION_ID,
        Column("metric_id", TEXT, "Klaviyo's ID of the metric.", personal=Harmless.ID),
        Column("window_start", TIMESTAMP, "Start of the window."),
        Column("window_end", TIMESTAMP, "End of the window, exclusive; at most 365 days later."),
        Column("state", TEXT, "complete, differs or uncounted.", personal=Harmless.OWN),
        Column("checked_at", TIMESTAMP, "When the counts were last compared."),
    ),
    primary_key=("esp_integration_id", "metric_id", "window_start"),
    internal=True,
)
ERASED = Table(
    "erased",
    "People who were erased. Runs ignore what the source still has about them. Contains no addresses.",
    (
        ESP_INTEGRATION_ID,
        Column("member_key", KEY, "md5(profile id)", personal=Harmless.KEY),
        Column("erased_at", TIMESTAMP, "When the person was last erased."),
    ),
    primary_key=("esp_integration_id", "member_key"),
    internal=True,
)
ERASED_ADDRESSES = Table(
    "erased_addresses",
    "Addresses of people who were erased, as digests, to recognise what the source returns without a profile.",
    (
        ESP_INTEGRATION_ID,
        Column(
            "address_key",
            KEY,
            "md5(esp_integration_id || ':' || lower(address)), of the address as it was stored.",
            personal=Harmless.KEY,
        ),
        Column("erased_at", TIMESTAMP, "When the address was last erased."),
    ),
    primary_key=("esp_integration_id", "address_key"),
    internal=True,
)
ERASING = Table(
    "erasing",
    "Erasing that is in progress: the people, and what has been done. Empty otherwise.",
    (
        ESP_INTEGRATION_ID,
        Column(
            "kind",
            TEXT,
            "'profile'; 'named', an address that was named; 'address', another one of theirs; 'campaign', a flow"
            " campaign that sent to them; or 'table', an event table that has been searched.",
            personal=Harmless.OWN,
        ),
        Column("value", TEXT, "The member key, address, campaign key or table.", personal=Personal.TEXT),
        Column("member_id", TEXT, "Klaviyo's ID of the profile; null if it is unknown.", personal=Harmless.ID),
        Column("is_found", BOOLEAN, "True if the warehouse had anything about the profile or the named address."),
        Column("recorded_at", TIMESTAMP, "When later batches began to leave the person out; null before."),
    ),
    primary_key=("esp_integration_id", "kind", "value"),
    internal=True,
)
ERASING_EVENTS = Table(
    "erasing_events",
    "Events that erasing in progress has still to clear. Empty otherwise.",
    (
        ESP_INTEGRATION_ID,
        Column("table_name", TEXT, "Table that contains the event.", personal=Harmless.OWN),
        Column("key", KEY, "Key of the event.", personal=Harmless.KEY),
        Column("event_at", TIMESTAMP, "When the event happened."),
        Column("member_key", KEY, "md5(profile id)", personal=Harmless.KEY),
        Column("email", TEXT, "Email address of the event, in lower case.", personal=Personal.TEXT),
    ),
    primary_key=("esp_integration_id", "table_name", "key", "event_at"),
    internal=True,
)
MISSING_ROWS = Table(
    "missing_rows",
    "Stored rows that a full read lacked, where they are too many to believe it (MAX_LOSS_PERCENT). A later run that "
    "misses them, too, marks them; one that finds them removes them from here.",
    (
        ESP_INTEGRATION_ID,
        Column(
            "stream", TEXT, "Stream that was read, such as campaigns or list_members/<list id>.", personal=Harmless.OWN
        ),
        Column("table_name", TEXT, "Table that contains the row.", personal=Harmless.OWN),
        Column(
            "row_key",
            TEXT,
            "Key of the row; of a member of a list, Klaviyo's ID of the profile.",
            personal=Harmless.KEY,
        ),
        Column("missed_at", TIMESTAMP, "When a read first lacked the row."),
    ),
    primary_key=("esp_integration_id", "stream", "table_name", "row_key"),
)
SWEEPS = Table(
    "sweeps",
    "Full reads that are stored batch by batch. What they have found so far is in swept_members, "
    "swept_exclusions and swept_rows, which are lost together with this table if Postgres crashes.",
    (
        ESP_INTEGRATION_ID,
        Column("stream", TEXT, "Stream that is read, such as list_members/<list id>.", personal=Harmless.OWN),
        Column("sweep", TEXT, "ID of the run.", personal=Harmless.OWN),
        Column("part", TEXT, "Window of the stream.", personal=Harmless.OWN),
        Column("is_complete", BOOLEAN, "True if each record was readable; null until it is read to its end."),
        Column("has_unreadable", BOOLEAN, "True once a record was unreadable; a resumed read may not meet it again."),
        Column("found", INTEGER, "Rows that a complete read found; null before."),
    ),
    primary_key=("esp_integration_id", "stream", "sweep", "part"),
    unlogged=True,
    internal=True,
)
SWEPT_ROWS = Table(
    "swept_rows",
    "Rows found so far by a full read that is stored batch by batch. Empty when none is in progress.",
    (
        ESP_INTEGRATION_ID,
        Column("stream", TEXT, "Stream that is read, such as coupon_codes/<coupon id>.", personal=Harmless.OWN),
        Column("sweep", TEXT, "ID of the run.", personal=Harmless.OWN),
        Column("table_name", TEXT, "Table of the row.", personal=Harmless.OWN),
        Column("row_key", KEY, "Key of the row.", personal=Harmless.KEY),
    ),
    primary_key=("esp_integration_id", "stream", "sweep", "table_name", "row_key"),
    unlogged=True,
    internal=True,
)
TOUCHED = Table(
    "touched",
    "Changes since member_lists was last derived, as triggers of the tables that it is derived from record them.",
    (
        Column("transaction", INTEGER, "Transaction that made the change."),
        ESP_INTEGRATION_ID,
        Column("kind", TEXT, "member, list or address.", personal=Harmless.OWN),
        Column(
            "row_key",
            TEXT,
            "Klaviyo's ID of the profile or list; of an address, the key of its exclusion.",
            personal=Harmless.KEY,
        ),
    ),
    primary_key=("transaction", "esp_integration_id", "kind", "row_key"),
    unlogged=True,
    internal=True,
)
DERIVATIONS = Table(
    "derivations",
    "When member_lists was last derived as a whole. Without a row, the next run does so; delete it to have that.",
    (
        ESP_INTEGRATION_ID,
        Column("rules", KEY, "Digest of the rules by which it was derived.", personal=Harmless.OWN),
        Column("derived_at", TIMESTAMP, "When it was derived as a whole."),
    ),
    primary_key=("esp_integration_id",),
    unlogged=True,
    internal=True,
)
STORED_MARTS = Table(
    "stored_marts",
    "The marts that are stored for an account (STORED_MARTS), and as of when.",
    (
        ESP_INTEGRATION_ID,
        Column("mart", TEXT, "Name of the mart; its rows are in <mart>_stored.", personal=Harmless.OWN),
        Column("as_of", TIMESTAMP, "Time as of which the rows were last derived; null if they never were."),
        Column(
            "is_outdated",
            BOOLEAN,
            "True if a run has found that the rows have to be derived again, and has not finished that.",
        ),
        Column(
            "origin",
            KEY,
            "Digest of the query that the rows were derived by, and of the files of the tables that it reads.",
            personal=Harmless.OWN,
        ),
    ),
    primary_key=("esp_integration_id", "mart"),
)
MART_CHANGES = Table(
    "mart_changes",
    "Tables that were changed since a run last looked if stored marts are out of date, as triggers record them.",
    (
        Column("transaction", INTEGER, "Transaction that made the change."),
        ESP_INTEGRATION_ID,
        Column("table_name", TEXT, "Name of the changed table.", personal=Harmless.OWN),
    ),
    primary_key=("transaction", "esp_integration_id", "table_name"),
    internal=True,
)
COMMITS = Table(
    "commits",
    "The last transaction that each thread of a run has committed, in case the answer of the database was lost.",
    (
        Column("writer", TEXT, "The thread: session_id of the run, and a number.", personal=Harmless.OWN),
        Column("token", TEXT, "Random name of the transaction.", personal=Harmless.OWN),
        Column("left_at", TIMESTAMP, "When the transaction began."),
        ESP_INTEGRATION_ID,
    ),
    primary_key=("writer",),
    internal=True,
)
RATE_LIMITS = Table(
    "rate_limits",
    "How much of the API's rate limits is used up, shared by all processes that read the account.",
    (
        Column(
            "integration",
            TEXT,
            "Name of the account in this warehouse (KLAVIYO_INTEGRATION).",
            personal=Harmless.SETTING,
        ),
        Column("endpoint", TEXT, "Endpoint that the limit applies to.", personal=Harmless.OWN),
        Column("state", TEXT, "State of the rate limiter.", personal=Harmless.OWN),
    ),
    primary_key=("integration", "endpoint"),
    internal=True,
)
PAGE_SIZES = Table(
    "page_sizes",
    "Page sizes of endpoints that refused larger pages. After a week, the larger size is tried again.",
    (
        Column(
            "integration",
            TEXT,
            "Name of the account in this warehouse (KLAVIYO_INTEGRATION).",
            personal=Harmless.SETTING,
        ),
        Column("endpoint", TEXT, "Name of the endpoint, such as events.", personal=Harmless.OWN),
        Column("page_size", INTEGER, "Largest number of rows on a page that the API accepts."),
        Column("learned_at", TIMESTAMP, "When the API last refused a larger page."),
    ),
    primary_key=("integration", "endpoint"),
    internal=True,
)
REJECTS = Table(
    "rejects",
    "Records that could not be stored as they are, with the reason. It says if the record was stored in part.",
    (
        Column(
            "key", KEY, "md5 of account, stream and record, so that each record has one row.", personal=Harmless.KEY
        ),
        ESP_INTEGRATION_ID,
        _RUN_ID,
        Column("table_name", TEXT, "Table that the record was meant for.", personal=Harmless.OWN),
        Column("stream", TEXT, "Stream that it was read from, such as events/<metric id>.", personal=Harmless.OWN),
        Column("reason", TEXT, "Why it could not be stored.", personal=Personal.SENTENCE),
        Column("raw", TEXT, "The record as received (JSON).", personal=Personal.RECORD),
        Column("rejected_at", TIMESTAMP, "When it was first rejected.", merge=Merge.KEEP),
    ),
)
