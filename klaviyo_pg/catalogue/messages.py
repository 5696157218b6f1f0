"""The messages of campaigns and flows, and the actions of flows. Knows no events."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, ORIGIN
from klaviyo_pg.catalogue.types import BOOLEAN, JSON, KEY, TEXT, TIMESTAMP, Column, Table

_MESSAGE_KEY = Column(
    "message_key",
    KEY,
    "md5(id); joins to campaign_key of the event tables, which is md5($message).",
    "computed",
    "computed",
    personal=Harmless.KEY,
)

CAMPAIGN_MESSAGES = Table(
    "campaign_messages",
    "One row for each message of a campaign. A campaign that tests variants has several.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the message.", "included campaign-message", "", personal=Harmless.ID),
        Column("campaign_id", TEXT, "ID of the campaign.", "relationships.campaign", "", personal=Harmless.ID),
        Column(
            "campaign_key",
            KEY,
            "md5(campaign id); joins to campaigns.campaign_key.",
            "computed",
            "",
            personal=Harmless.KEY,
        ),
        _MESSAGE_KEY,
        Column("channel", TEXT, "email, sms, mobile_push, ...", "definition.channel", "", personal=Personal.CHECKED),
        Column("label", TEXT, "Name of the message.", "definition.label", "", personal=Personal.CHECKED),
        Column(
            "subject",
            TEXT,
            "Subject line of an email, title of a push notification.",
            "definition.content.subject | title",
            "",
            personal=Personal.CHECKED,
        ),
        Column("preview_text", TEXT, "Preview text.", "definition.content.preview_text", "", personal=Personal.CHECKED),
        Column(
            "body",
            TEXT,
            "Text of a text message or of a push notification; null for emails, whose text is in the template.",
            "definition.content.body",
            "",
            personal=Personal.CHECKED,
        ),
        Column(
            "from_email",
            TEXT,
            "Email address of the sender.",
            "definition.content.from_email",
            "",
            personal=Harmless.SENDER,
        ),
        Column("from_name", TEXT, "Name of the sender.", "definition.content.from_label", "", personal=Harmless.SENDER),
        Column(
            "reply_to_email",
            TEXT,
            "Email address that replies go to, if it is not the sender's.",
            "definition.content.reply_to_email",
            "",
            personal=Harmless.SENDER,
        ),
        Column(
            "template_id",
            TEXT,
            "ID of the template; null where the list of campaigns does not include it.",
            "relationships.template",
            "",
            personal=Harmless.ID,
        ),
        Column("status", TEXT, "Status of the campaign.", "campaign status", "", personal=Personal.CHECKED),
        Column("send_at", TIMESTAMP, "First time at which the message is or was to be sent.", "send_times", ""),
        Column("last_send_at", TIMESTAMP, "Last of these times.", "send_times", ""),
        Column("is_local", BOOLEAN, "True if these are local times of each recipient.", "send_times", ""),
        Column(
            "variation_of",
            TEXT,
            "ID of the message that this is a variation of; null for a message.",
            "campaign-variation (revision 2026-10-15)",
            "",
            personal=Harmless.ID,
        ),
        Column("created_at", TIMESTAMP, "When the message was created.", "created_at", ""),
        Column("updated_at", TIMESTAMP, "When the message last changed.", "updated_at", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)

_FLOW_ID = Column("flow_id", TEXT, "ID of the flow.", "relationships.flow", "", personal=Harmless.ID)
_AUTOMATION_KEY = Column(
    "automation_key",
    KEY,
    "md5(flow id); joins to automations.automation_key.",
    "computed",
    "",
    personal=Harmless.KEY,
)


def _next(name: str, description: str, link: str) -> Column:
    return Column(name, TEXT, description, f"definition.links.{link}", "", personal=Harmless.ID)


FLOW_ACTIONS = Table(
    "flow_actions",
    "One row for each action (step) of a flow: a message, a delay, a split, ...",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the action.", "included flow-action", "", personal=Harmless.ID),
        _FLOW_ID,
        _AUTOMATION_KEY,
        Column(
            "action_type",
            TEXT,
            "send-email, time-delay, conditional-split, ...",
            "definition.type",
            "",
            personal=Personal.CHECKED,
        ),
        Column(
            "status",
            TEXT,
            "draft, manual or live; null for actions that send nothing.",
            "definition.data.status",
            "",
            personal=Personal.CHECKED,
        ),
        _next("next_id", "ID of the next action; null at the end of the flow and before a split.", "next"),
        _next("next_if_true_id", "ID of the next action for people who meet the condition of a split.", "next_if_true"),
        _next("next_if_false_id", "ID of the next action for all others.", "next_if_false"),
        Column(
            "definition",
            JSON,
            "Everything that Klaviyo says about the action, such as the time of a delay.",
            "definition",
            "",
            personal=Personal.JSON,
        ),
        Column("created_at", TIMESTAMP, "When the action was created.", "created", ""),
        Column("updated_at", TIMESTAMP, "When the action last changed.", "updated", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)

_OF_MESSAGE = "definition.data.message"


def _of_message(name: str, description: str, source: str, personal: Personal | Harmless) -> Column:
    return Column(name, TEXT, description, f"{_OF_MESSAGE}.{source}", "", personal=personal)


FLOW_MESSAGES = Table(
    "flow_messages",
    "One row for each message of a flow. An action that tests variants has several.",
    (
        KEY_OF_ID,
        _of_message("id", "Klaviyo's ID of the message.", "id", Harmless.ID),
        _FLOW_ID,
        _AUTOMATION_KEY,
        Column(
            "flow_action_id",
            TEXT,
            "ID of the action that sends it; see flow_actions.",
            "included flow-action",
            "",
            personal=Harmless.ID,
        ),
        _MESSAGE_KEY,
        Column("channel", TEXT, "email, sms, mobile_push, ...", "definition.type", "", personal=Personal.CHECKED),
        _of_message("name", "Name of the message.", "name", Personal.CHECKED),
        _of_message(
            "subject",
            "Subject line of an email, title of a push notification.",
            "subject_line | title",
            Personal.CHECKED,
        ),
        _of_message("preview_text", "Preview text.", "preview_text", Personal.CHECKED),
        _of_message("body", "Text of a text message or of a push notification.", "body", Personal.CHECKED),
        _of_message("from_email", "Email address of the sender.", "from_email", Harmless.SENDER),
        _of_message("from_name", "Name of the sender.", "from_label", Harmless.SENDER),
        _of_message(
            "reply_to_email",
            "Email address that replies go to, if it is not the sender's.",
            "reply_to_email",
            Harmless.SENDER,
        ),
        _of_message("template_id", "ID of the template.", "template_id", Harmless.ID),
        Column("status", TEXT, "draft, manual or live.", "definition.data.status", "", personal=Personal.CHECKED),
        Column(
            "is_transactional",
            BOOLEAN,
            "True if it is also sent to people who unsubscribed.",
            f"{_OF_MESSAGE}.transactional",
            "",
        ),
        Column(
            "uses_smart_sending",
            BOOLEAN,
            "True if it is not sent to people who got another message recently.",
            f"{_OF_MESSAGE}.smart_sending_enabled",
            "",
        ),
        Column("is_variation", BOOLEAN, "True if it is a variant of a test.", "definition", ""),
        Column("created_at", TIMESTAMP, "When the action was created.", "created", ""),
        Column("updated_at", TIMESTAMP, "When the action last changed.", "updated", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)
