"""The seven event tables: one shape, told apart by the names of the metrics that they receive."""

from klaviyo_pg.catalogue.shared import KEY_OF_ID, ORIGIN
from klaviyo_pg.catalogue.types import JSON, KEY, NUMERIC, TEXT, TIMESTAMP, Column, Personal, Table

_COLUMNS = (
    KEY_OF_ID,
    Column("id", TEXT, "Klaviyo's id of the event.", "id", "id"),
    Column(
        "campaign_key", KEY, "md5($message): join campaigns.", "event_properties.$message", "event_properties.$message"
    ),
    Column("automation_key", KEY, "md5($flow): join automations.", "event_properties.$flow", "event_properties.$flow"),
    Column("member_key", KEY, "md5(profile id): join members.", "relationships.profile", "person.id"),
    Column("list_key", TEXT, "Always null.", "", ""),
    Column("email", TEXT, "The person's address.", "included profile email", "person.$email", personal=Personal.TEXT),
    Column("event_at", TIMESTAMP, "When it happened.", "timestamp", "timestamp"),
    *ORIGIN,
    Column("metric_key", KEY, "metrics.key of the event's metric.", "relationships.metric", "statistic_id"),
    Column("event_name", TEXT, "The metric's name when the event was read.", "metric name", "event_name"),
    Column("value", NUMERIC, "The event's value, if it has one.", "event_properties.$value", "event_properties.$value"),
    Column("value_currency", TEXT, "Currency of the value.", "event_properties.$value_currency", "$value_currency"),
    Column(
        "properties",
        JSON,
        "All properties of the event.",
        "event_properties",
        "event_properties",
        personal=Personal.JSON,
    ),
)

# For the newest event of a metric, and counts by metric and day; what that costs: docs/decisions.md.
_INDEXES = (("metric_key", "event_at"),)


def _event_table(name: str, description: str, *metric_names: str) -> Table:
    return Table(name, description, _COLUMNS, metric_names=frozenset(metric_names), indexes=_INDEXES)


SENDS = _event_table("sends", "E-mails that were delivered.", "Received Email")
BOUNCES = _event_table("bounces", "E-mails that bounced.", "Bounced Email")
OPENS = _event_table("opens", "E-mails that were opened.", "Opened Email")
CLICKS = _event_table(
    "clicks",
    "Links that were clicked in e-mails and text messages.",
    "Clicked Email",
    "Clicked SMS",
    "Clicked Text Message",  # Clicked SMS until July 2026
)
SPAMS = _event_table("spams", "E-mails that were marked as spam.", "Marked Email as Spam")
UNSUBSCRIBES = _event_table(
    "unsubscribes",
    "People who unsubscribed from e-mail marketing or from one list.",
    "Unsubscribed",
    "Unsubscribed from Email Marketing",  # Unsubscribed until its renaming
    "Unsubscribed from List",
)
EVENTS = _event_table("events", "Every event of a metric that has no table of its own.")

EVENT_TABLES = (SENDS, BOUNCES, OPENS, CLICKS, SPAMS, UNSUBSCRIBES, EVENTS)

_TABLE_OF_METRIC_NAME = {name: table.name for table in EVENT_TABLES for name in table.metric_names}


def destination(metric_name: str | None) -> str:
    """The event table that receives a metric of this name."""
    return _TABLE_OF_METRIC_NAME.get(metric_name or "", EVENTS.name)
