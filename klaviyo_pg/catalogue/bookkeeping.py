"""What the project keeps about its own work: accounts, watermarks, runs, chunks, rejects."""

from klaviyo_pg.catalogue.shared import ESP_INTEGRATION_ID
from klaviyo_pg.catalogue.types import FLOAT, INTEGER, KEY, TEXT, TIMESTAMP, Column, Merge, Personal, Table

_RUN_ID = Column("run_id", TEXT, "Id of the run.")

INTEGRATIONS = Table(
    "integrations",
    "One row for each Klaviyo account in this warehouse.",
    (
        Column("name", TEXT, "What KLAVIYO_INTEGRATION calls the account."),
        Column("esp_integration_id", TEXT, "Generated once; part of every key."),
        Column("account_id", TEXT, "Klaviyo's id of the account."),
        Column("created_at", TIMESTAMP, "When the account was first synced."),
        Column("personal_data", TEXT, "What PERSONAL_DATA makes of what the rows tell of people; null: keep."),
        Column("salt_digest", TEXT, "Tells whether PERSONAL_DATA_SALT is still the same; null where it is not used."),
    ),
    primary_key=("name",),
)
WATERMARKS = Table(
    "watermarks",
    "How far each stream has been read without a gap; never later than the present.",
    (
        ESP_INTEGRATION_ID,
        Column("stream", TEXT, "events/<metric id>, list_members/<list id>, membership_sweep/<list id> or profiles."),
        Column("watermark", TIMESTAMP, "Everything that the source held up to here has been read."),
        Column("since", TIMESTAMP, "Where that stretch begins; null: with the source, or it was never noted."),
    ),
    primary_key=("esp_integration_id", "stream"),
)
RUNS = Table(
    "runs",
    "One row for each run.",
    (
        _RUN_ID,
        ESP_INTEGRATION_ID,
        Column("flow", TEXT, "daily, backfill or reconcile."),
        Column("selection", TEXT, "Digest of what the run was asked to do; the same again goes on where it stopped."),
        Column("as_of", TIMESTAMP, "The present of this run: it reads what the source holds up to here."),
        Column("started_at", TIMESTAMP, "When it started, last."),
        Column("finished_at", TIMESTAMP, "When it ended."),
        Column("state", TEXT, "running, complete, partial, to be continued or failed."),
        Column("requests", INTEGER, "Requests sent to the API."),
        Column("retries", INTEGER, "Requests that had to be sent again."),
        Column("message", TEXT, "What went wrong, if anything did."),
    ),
    primary_key=("run_id",),
)
RUN_TABLES = Table(
    "run_tables",
    "One row for each run and table, with counts of rows.",
    (
        _RUN_ID,
        ESP_INTEGRATION_ID,
        Column("table_name", TEXT, "Name of the table."),
        Column("rows_read", INTEGER, "Rows that the run read for this table."),
        Column("inserted", INTEGER, "Rows that were new."),
        Column("updated", INTEGER, "Rows that had changed."),
        Column("unchanged", INTEGER, "Rows that were there, the same."),
        Column("rejected", INTEGER, "Records that could not be stored; see rejects."),
        Column("nul_characters", INTEGER, "NUL characters taken out of text, which Postgres cannot hold."),
    ),
    primary_key=("run_id", "table_name"),
)
CHUNKS = Table(
    "chunks",
    "The parts of a run: what is read in one go. A run that stopped goes on with those that are not done.",
    (
        _RUN_ID,
        ESP_INTEGRATION_ID,
        Column("stream", TEXT, "What is read, such as events/<metric id>."),
        Column("part", TEXT, "Which window of it."),
        Column("state", TEXT, "planned or done."),
        Column("done_at", TIMESTAMP, "When its last row was committed."),
    ),
    primary_key=("run_id", "stream", "part"),
)
BACKFILL_CHUNKS = Table(
    "backfill_chunks",
    "History, cut into windows of about equal numbers of events; they cover what was asked for without a gap.",
    (
        ESP_INTEGRATION_ID,
        Column("metric_id", TEXT, "Klaviyo's id of the metric."),
        Column("window_start", TIMESTAMP, "Where the window begins."),
        Column("window_end", TIMESTAMP, "Where it ends; not part of it."),
        Column("expected", INTEGER, "Events that the source counted in it; null where it could not count them."),
        Column("loaded", INTEGER, "Events of it that have been stored."),
        Column("reached", TIMESTAMP, "Everything before this time has been stored; null before the first batch."),
        Column("state", TEXT, "planned, done or failed."),
        Column("attempts", INTEGER, "How often reading it was begun."),
        Column("seconds", FLOAT, "How long reading it took, over all attempts."),
        Column("error", TEXT, "Why it failed, if it did."),
        Column("updated_at", TIMESTAMP, "When this row last changed."),
    ),
    primary_key=("esp_integration_id", "metric_id", "window_start"),
)
RECONCILIATION = Table(
    "reconciliation",
    "What the source counts beside what is stored, by metric and day; by hour too, where a day differs.",
    (
        ESP_INTEGRATION_ID,
        Column("metric_id", TEXT, "Klaviyo's id of the metric."),
        Column("window_start", TIMESTAMP, "Where the day or hour (UTC) begins."),
        Column("window_end", TIMESTAMP, "Where it ends; not part of it."),
        Column("source_events", INTEGER, "Events that the source counts; null where it cannot count them."),
        Column("warehouse_events", INTEGER, "Events that are stored."),
        Column("difference", INTEGER, "Stored minus counted: below 0 where some are missing."),
        Column("state", TEXT, "complete, differs or uncounted."),
        Column("checked_at", TIMESTAMP, "When the two were last compared."),
        Column("read_again_at", TIMESTAMP, "When it was read again because they differed, last."),
    ),
    primary_key=("esp_integration_id", "metric_id", "window_start", "window_end"),
)
ERASED = Table(
    "erased",
    "People who were erased: what the source still tells of them is left out. Holds no address.",
    (
        ESP_INTEGRATION_ID,
        Column("member_key", KEY, "md5(profile id)"),
        Column("erased_at", TIMESTAMP, "When, last."),
    ),
    primary_key=("esp_integration_id", "member_key"),
)
RATE_LIMITS = Table(
    "rate_limits",
    "How far the API's limits are used up, shared by everything that reads the account.",
    (
        Column("integration", TEXT, "What KLAVIYO_INTEGRATION calls the account."),
        Column("endpoint", TEXT, "What is asked."),
        Column("state", TEXT, "Of the limiter: when a request would have no other one before it."),
    ),
    primary_key=("integration", "endpoint"),
)
REJECTS = Table(
    "rejects",
    "Records that could not be stored, with the reason.",
    (
        Column("key", KEY, "md5 of account, stream and record, so that a record stands here once."),
        ESP_INTEGRATION_ID,
        _RUN_ID,
        Column("table_name", TEXT, "The table that it was meant for."),
        Column("stream", TEXT, "Where it came from, such as events/<metric id>."),
        Column("reason", TEXT, "Why it could not be stored.", personal=Personal.NAME),
        Column("raw", TEXT, "The record as it came (JSON).", personal=Personal.RECORD),
        Column("rejected_at", TIMESTAMP, "When it was first rejected.", merge=Merge.KEEP),
    ),
)
