"""The seven event tables. All have the same columns; each receives the events of certain metrics, by metric name."""

from collections.abc import Mapping
from enum import Enum

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import KEY_OF_ID, ORIGIN
from klaviyo_pg.catalogue.types import BOOLEAN, JSON, KEY, NUMERIC, TEXT, TIMESTAMP, Column, Merge, Table

_OPENED_BY_MACHINE = "event_properties.machine_open | Machine Open | Apple Privacy Open"
_COLUMNS = (
    KEY_OF_ID,
    Column("id", TEXT, "Klaviyo's ID of the event.", "id", "id", personal=Personal.EVENT_ID),
    Column(
        "campaign_key",
        KEY,
        "md5($message); joins to messages.message_key. For the campaign, join messages.campaign_key to "
        "campaigns.campaign_key.",
        "event_properties.$message",
        "event_properties.$message",
        personal=Harmless.KEY,
    ),
    Column(
        "automation_key",
        KEY,
        "md5($flow); joins to automations.automation_key.",
        "event_properties.$flow",
        "event_properties.$flow",
        personal=Harmless.KEY,
    ),
    Column(
        "member_key",
        KEY,
        "md5(profile id); joins to members.member_key.",
        "relationships.profile",
        "person.id",
        personal=Harmless.KEY,
    ),
    Column("list_key", TEXT, "Always null.", "", "", personal=Harmless.EMPTY),
    Column(
        "email",
        TEXT,
        "Email address of the person.",
        "included profile email",
        "person.$email",
        personal=Personal.ADDRESS,
    ),
    Column("event_at", TIMESTAMP, "When the event happened.", "timestamp", "timestamp"),
    *ORIGIN,
    Column(
        "metric_key",
        KEY,
        "Key of the metric; joins to metrics.key.",
        "relationships.metric",
        "statistic_id",
        personal=Harmless.KEY,
    ),
    Column(
        "event_name",
        TEXT,
        "Name of the metric when the event was read.",
        "metric name",
        "event_name",
        personal=Personal.CHECKED,
    ),
    Column(
        "value",
        NUMERIC,
        "Value of the event; null if it has none.",
        "event_properties.$value",
        "event_properties.$value",
    ),
    Column(
        "value_currency",
        TEXT,
        "Currency of the value.",
        "event_properties.$value_currency",
        "$value_currency",
        personal=Personal.CURRENCY,
    ),
    Column(
        "properties",
        JSON,
        "All properties of the event.",
        "event_properties",
        "event_properties",
        personal=Personal.JSON,
    ),
    Column(
        "extracted_at",
        TIMESTAMP,
        "Time of the extraction that last changed this row.",
        "extraction",
        "extraction",
        Merge.STAMP,
    ),
    Column(
        "is_machine_open",
        BOOLEAN,
        "True if a mail program opened the email by itself; null if the event does not say, as all but opens.",
        _OPENED_BY_MACHINE,
        _OPENED_BY_MACHINE,
    ),
    Column(
        "is_bot_click",
        BOOLEAN,
        "True if a bot clicked, such as a security scanner; null if the event does not say, as all but clicks.",
        "event_properties.Bot Click",
        "event_properties.Bot Click",
    ),
    Column(
        "variation",
        TEXT,
        "ID of the variation of the message that the person got; null if the message has no variations.",
        "event_properties.$variation",
        "event_properties.$variation",
        personal=Personal.MESSAGE_ID,
    ),
    Column(
        "email_domain",
        TEXT,
        "Domain of the person's address, in lower case; without an address, the domain that Klaviyo says.",
        "email | event_properties.Email Domain",
        "email | event_properties.Email Domain",
        personal=Personal.TEXT,  # a private domain can name a person
    ),
    Column(
        "channel",
        TEXT,
        "'email', 'sms' or 'push', by the name of the metric; null for metrics that belong to no channel.",
        "from the name",
        "from the name",
        personal=Harmless.OWN,
    ),
)

# The key alone is unique, because it contains the event's ID. The time comes first so that new rows share pages of the
# index; a key is random, and would touch a page for each row. docs/decisions.md has the figures.
_PRIMARY_KEY = ("event_at", "key")
# Serves the newest event of a metric, counts by metric and day, and the search for events whose time has changed.
_INDEXES = (("metric_key", "event_at"),)


def _event_table(name: str, description: str, *metric_names: str) -> Table:
    return Table(name, description, _COLUMNS, _PRIMARY_KEY, frozenset(metric_names), _INDEXES, _PRIMARY_KEY[0])


SENDS = _event_table("sends", "Emails that were delivered.", "Received Email")
BOUNCES = _event_table("bounces", "Emails that bounced.", "Bounced Email")
OPENS = _event_table("opens", "Emails that were opened.", "Opened Email")
CLICKS = _event_table(
    "clicks",
    "Links that were clicked in emails and text messages.",
    "Clicked Email",
    "Clicked SMS",
    "Clicked Text Message",  # the name of Clicked SMS since July 2026
)
SPAMS = _event_table("spams", "Emails that were marked as spam.", "Marked Email as Spam")
UNSUBSCRIBES = _event_table(
    "unsubscribes",
    "People who unsubscribed from email marketing or from a list.",
    "Unsubscribed",
    "Unsubscribed from Email Marketing",  # the later name of Unsubscribed
    "Unsubscribed from List",
)
EVENTS = _event_table("events", "Events of all other metrics.")

EVENT_TABLES = (SENDS, BOUNCES, OPENS, CLICKS, SPAMS, UNSUBSCRIBES, EVENTS)


class Activity(Enum):
    """The meaning of an event in the table `events` for a message. Those of email have separate tables."""

    DELIVERED = "delivered"
    BOUNCED = "bounced"
    OPENED = "opened"
    UNSUBSCRIBED = "unsubscribed"


_METRICS_BY_CHANNEL: Mapping[str, Mapping[str, Activity | None]] = {
    "email": dict.fromkeys(
        (
            *("Received Email", "Bounced Email", "Dropped Email", "Opened Email", "Clicked Email"),
            *("Marked Email as Spam", "Subscribed to Email Marketing", "Unsubscribed"),
            *("Unsubscribed from Email Marketing", "Updated Email Preferences"),
        )
    ),
    "sms": {
        "Sent SMS": None,
        "Received SMS": Activity.DELIVERED,
        "Clicked SMS": None,
        "Failed to Deliver SMS": Activity.BOUNCED,
        "Received Automated Response SMS": None,
        "Failed to Deliver Automated Response SMS": None,
        "Consented to Receive SMS": None,
        "Subscribed to SMS Marketing": None,
        "Unsubscribed from SMS": Activity.UNSUBSCRIBED,
        "Unsubscribed from SMS Marketing": None,
        "Sent Text Message": None,
        "Received Text Message": Activity.DELIVERED,
        "Opened Text": None,
        "Clicked Text Message": None,
        "Failed to Deliver Text Message": Activity.BOUNCED,
        "Subscribed to Text Message Marketing": None,
        "Unsubscribed from Text Message Marketing": Activity.UNSUBSCRIBED,
        "Subscribed to Text Messaging Marketing": None,
        "Unsubscribed from Text Messaging Marketing": None,
    },
    "push": {
        "Received Push": Activity.DELIVERED,
        "Bounced Push": Activity.BOUNCED,
        "Opened Push": Activity.OPENED,
    },
}
ACTIVITY_OF_METRIC_NAME = {
    name: activity for metrics in _METRICS_BY_CHANNEL.values() for name, activity in metrics.items() if activity
}
"""The activity of each metric of text messages and push notifications that counts as one."""
_CHANNEL_OF_METRIC_NAME = {name: channel for channel, metrics in _METRICS_BY_CHANNEL.items() for name in metrics}
UNSUBSCRIBED_FROM_SMS = frozenset(name for name in _METRICS_BY_CHANNEL["sms"] if name.startswith("Unsubscribed"))
"""The metrics of people who unsubscribe from text messages."""
NOT_OF_EMAIL = frozenset(name for name, channel in _CHANNEL_OF_METRIC_NAME.items() if channel != "email")
"""The metrics of other channels."""
_TABLE_OF_METRIC_NAME = {name: table.name for table in EVENT_TABLES for name in table.metric_names}


def destination(metric_name: str | None) -> str:
    """Return the name of the event table that receives a metric with this name."""
    return _TABLE_OF_METRIC_NAME.get(metric_name or "", EVENTS.name)


def channel(metric_name: str | None) -> str | None:
    """Return the channel of the messages that a metric with this name is about; None if it is about no channel."""
    return _CHANNEL_OF_METRIC_NAME.get(metric_name or "")
