"""The messages of campaigns: what was sent under which subject, by whom and when. Knows no events."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, ORIGIN
from klaviyo_pg.catalogue.types import BOOLEAN, KEY, TEXT, TIMESTAMP, Column, Table

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
        Column("created_at", TIMESTAMP, "When the message was created.", "created_at", ""),
        Column("updated_at", TIMESTAMP, "When the message last changed.", "updated_at", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)
