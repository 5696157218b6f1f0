"""Klaviyo's own reports: the performance of each message of campaigns and flows, by the day on which it was sent."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, ORIGIN
from klaviyo_pg.catalogue.types import DATE, FLOAT, INTEGER, KEY, NUMERIC, TEXT, Column, Table, Type

_COMPUTED = "computed"


def _statistic(name: str, type_: Type, description: str) -> Column:
    return Column(name, type_, description, f"statistics.{name}", "")


STATISTICS = (
    _statistic("recipients", INTEGER, "Messages sent."),
    _statistic("delivered", INTEGER, "Messages delivered."),
    _statistic("bounced", INTEGER, "Messages that bounced."),
    _statistic("failed", INTEGER, "Messages that failed."),
    _statistic("bounced_or_failed", INTEGER, "Messages that bounced or failed."),
    _statistic("opens", INTEGER, "Times that the message was opened."),
    _statistic("opens_unique", INTEGER, "People who opened it."),
    _statistic("clicks", INTEGER, "Times that a link was clicked."),
    _statistic("clicks_unique", INTEGER, "People who clicked."),
    _statistic("unsubscribes", INTEGER, "Times that somebody unsubscribed."),
    _statistic("unsubscribe_uniques", INTEGER, "People who unsubscribed."),
    _statistic("spam_complaints", INTEGER, "Spam complaints."),
    _statistic("conversions", INTEGER, "Events of the conversion metric that are attributed to the message."),
    _statistic("conversion_uniques", INTEGER, "People who converted."),
    _statistic("conversion_value", NUMERIC, "Value of the conversions, in the currency of the account."),
    _statistic("average_order_value", NUMERIC, "Value for each conversion."),
    _statistic("revenue_per_recipient", NUMERIC, "Value for each recipient."),
    _statistic("delivery_rate", FLOAT, "Share of delivered messages, from 0 to 1, as are all rates."),
    _statistic("bounce_rate", FLOAT, "Share of bounced messages."),
    _statistic("failed_rate", FLOAT, "Share of failed messages."),
    _statistic("bounced_or_failed_rate", FLOAT, "Share of messages that bounced or failed."),
    _statistic("open_rate", FLOAT, "Share of people who opened it."),
    _statistic("click_rate", FLOAT, "Share of people who clicked."),
    _statistic("click_to_open_rate", FLOAT, "Share of those who opened it who clicked."),
    _statistic("conversion_rate", FLOAT, "Share of people who converted."),
    _statistic("unsubscribe_rate", FLOAT, "Share of people who unsubscribed."),
    _statistic("spam_complaint_rate", FLOAT, "Share of people who complained about spam."),
    _statistic("message_segment_count_sum", INTEGER, "Segments of text messages."),
    _statistic("text_message_credit_usage_amount", NUMERIC, "Credits used for text messages."),
    _statistic("text_message_spend", NUMERIC, "Cost of text messages."),
    _statistic("text_message_roi", FLOAT, "Value of the conversions for each unit of that cost."),
)
"""The columns of all statistics that Klaviyo's reports have, under Klaviyo's names."""
DIMENSIONS = ("sent_on", "owner_id", "message_id", "send_channel", "variation_id")
"""The columns of `rows.Report` that a key is made of, in order."""


def _id(name: str, description: str, current: str) -> Column:
    return Column(name, TEXT, description, f"groupings.{current}", "", personal=Harmless.ID)


def _key(name: str, description: str) -> Column:
    return Column(name, KEY, description, _COMPUTED, "", personal=Harmless.KEY)


def _table(name: str, description: str, owner: tuple[Column, ...], message: str) -> Table:
    owner_id, owner_key, message_id = owner
    return Table(
        name,
        description,
        (
            _key(
                "key",
                f"md5(esp_source || ':' || esp_integration_id || ':' || sent_on || ':' || {owner_id.name} || ':' || "
                f"{message_id.name} || ':' || send_channel || ':' || variation_id), where null counts as empty.",
            ),
            Column("sent_on", DATE, "Day of sending, in the account's time zone (accounts.timezone).", "timeframe", ""),
            owner_id,
            owner_key,
            message_id,
            _key("message_key", f"md5({message_id.name}); joins to message_key of {message}."),
            Column(
                "send_channel",
                TEXT,
                "email, sms, push-notification or whatsapp.",
                "groupings.send_channel",
                "",
                personal=Personal.CHECKED,
            ),
            _id("variation_id", "ID of the variation of a test; null without one.", "variation"),
            Column(
                "conversion_metric_id",
                TEXT,
                "ID of the metric by which conversions are counted. See REPORT_METRIC.",
                "conversion_metric_id",
                "",
                personal=Harmless.ID,
            ),
            _key(
                "conversion_metric_key",
                "Key of that metric; joins to metrics.key, or to custom_metrics.key for a custom metric.",
            ),
            *STATISTICS,
            *ORIGIN,
            DELETED_AT,
        ),
        indexes=(("sent_on",),),
    )


CAMPAIGN_REPORTS = _table(
    "campaign_reports",
    "Klaviyo's report on campaigns: one row for each message, channel and variation, and each day of sending.",
    (
        _id("campaign_id", "ID of the campaign.", "campaign_id"),
        _key("campaign_key", "md5(campaign_id); joins to campaign_key of campaigns."),
        _id("campaign_message_id", "ID of the message of the campaign.", "campaign_message_id"),
    ),
    "campaign_messages",
)
FLOW_REPORTS = _table(
    "flow_reports",
    "Klaviyo's report on flows: one row for each message, channel and variation, and each day of sending.",
    (
        _id("flow_id", "ID of the flow.", "flow_id"),
        _key("automation_key", "md5(flow_id); joins to automation_key of automations."),
        _id("flow_message_id", "ID of the message of the flow.", "flow_message_id"),
    ),
    "flow_messages",
)
