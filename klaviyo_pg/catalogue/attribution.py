"""The attributions of events to the messages that caused them."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import ORIGIN
from klaviyo_pg.catalogue.types import KEY, TEXT, TIMESTAMP, Column, Merge, Table


def _related(name: str, noun: str, joins: str, relationship: str, key_name: str | None = None) -> tuple[Column, Column]:
    """Return the ID of something that an event is attributed to, and the key for joins."""
    return (
        Column(
            f"{name}_id",
            TEXT,
            f"Klaviyo's ID of the {noun}; null if it is attributed to none.",
            f"relationships.{relationship}",
            "",
            personal=Harmless.ID,
        ),
        Column(key_name or f"{name}_key", KEY, f"md5({name}_id){joins}.", "computed", "", personal=Harmless.KEY),
    )


EVENT_ATTRIBUTIONS = Table(
    "event_attributions",
    "One row for each attribution of an event, such as an order, to the campaign or flow that Klaviyo credits with it.",
    (
        Column(
            "key",
            KEY,
            "md5(esp_source || ':' || esp_integration_id || ':' || event id || ':' || id)",
            "computed",
            "",
            personal=Harmless.KEY,
        ),
        Column("id", TEXT, "Klaviyo's ID of the attribution.", "id", "", personal=Personal.EVENT_ID),
        Column(
            "event_key",
            KEY,
            "Key of the attributed event; with event_at, joins to all_events.key.",
            "relationships.event",
            "",
            personal=Harmless.KEY,
        ),
        Column("event_at", TIMESTAMP, "When that event happened.", "timestamp of the event", ""),
        Column(
            "attributed_event_key",
            KEY,
            "Key of the event that it is attributed to, such as a click; joins to all_events.key. Null for "
            "people who were erased.",
            "relationships.attributed-event",
            "",
            personal=Harmless.KEY,
        ),
        *_related("campaign", "campaign", "; joins to campaign_key of campaigns", "campaign"),
        *_related(
            "campaign_message",
            "message of the campaign",
            "; joins to messages.message_key, which has no messages of campaigns that Klaviyo does not list",
            "campaign-message",
        ),
        *_related("flow", "flow", "; joins to automation_key of automations", "flow", "automation_key"),
        *_related("flow_message", "message of the flow", "; joins to messages.message_key", "flow-message"),
        *_related("variation", "variation of that message", "", "flow-message-variation"),
        *ORIGIN,
        Column(
            "extracted_at",
            TIMESTAMP,
            "Time of the extraction that last changed this row.",
            "extraction",
            "",
            Merge.STAMP,
        ),
    ),
    # What is attributed lies in the index as its event does, and is found by the event's time and key.
    primary_key=("event_at", "event_key", "key"),
    ordered_by="event_at",
)
