"""The views for analysts: campaigns, flows, people, lists and deliverability. Knows no SQL."""

from klaviyo_pg.catalogue.types import DATE, INTEGER, JSON, KEY, NUMERIC, TEXT, TIMESTAMP, Column, View

_ACCOUNT = (
    Column("integration", TEXT, "Name of the account in this warehouse (KLAVIYO_INTEGRATION)."),
    Column("esp_integration_id", TEXT, "ID of the Klaviyo account in this warehouse; see integrations."),
)
_DAY = Column("day", DATE, "Day in the account's time zone (account_time_zones.timezone).")
_REVENUE = (
    Column(
        "revenue",
        NUMERIC,
        "Sum of the values of these orders; null without orders, and if they have several currencies.",
    ),
    Column("revenue_currency", TEXT, "Currency of revenue; null if the orders have none, or several."),
    Column(
        "revenue_by_currency",
        JSON,
        'Revenue for each currency, such as {"EUR": 12.5}; null without orders. "unknown" is that of orders without a '
        "currency.",
    ),
)
_PERFORMANCE = (
    Column("recipients", INTEGER, "Messages sent: delivered and bounced ones."),
    Column("delivered", INTEGER, "Messages delivered."),
    Column("bounces", INTEGER, "Messages that bounced, and text messages that could not be delivered."),
    Column("opens", INTEGER, "Times that a message was opened, by people and by machines."),
    Column("machine_opens", INTEGER, "Of these, times that a mail program opened it by itself (machine_open)."),
    Column("unique_opens", INTEGER, "People whose message was opened, by themselves or by a machine."),
    Column("unique_opens_by_people", INTEGER, "People who opened it themselves, at least once."),
    Column("clicks", INTEGER, "Times that somebody clicked a link, without clicks of bots."),
    Column("unique_clicks", INTEGER, "People who clicked, without clicks of bots."),
    Column("bot_clicks", INTEGER, "Clicks of bots, such as security scanners (Bot Click)."),
    Column("unsubscribes", INTEGER, "Times that somebody unsubscribed from marketing. Leaving a list does not count."),
    Column("complaints", INTEGER, "Times that somebody marked it as spam."),
    Column("orders", INTEGER, "Attributed events of the conversion metric."),
    *_REVENUE,
    Column("first_event_at", TIMESTAMP, "Time of the first of all these events."),
    Column("last_event_at", TIMESTAMP, "Time of the latest of all these events."),
    Column("unique_recipients", INTEGER, "People who were sent a message, delivered or bounced, at least once."),
)

CAMPAIGN_PERFORMANCE = View(
    "campaign_performance",
    "One row for each campaign that has events: deliveries, opens, clicks and attributed orders, of all its messages.",
    (
        *_ACCOUNT,
        Column(
            "campaign_key",
            KEY,
            "Key of the campaign (campaigns.campaign_key). If Klaviyo does not list it, md5($message) for its events, "
            "and md5(campaign id) for its orders.",
        ),
        Column(
            "campaign_id",
            TEXT,
            "Klaviyo's ID of the campaign, or the $message of events whose campaign Klaviyo does not list; null if "
            "campaigns has no row for it.",
        ),
        Column("campaign_name", TEXT, "Name of the campaign; null if Klaviyo does not list it."),
        Column("channel", TEXT, "Channel (current dialect) or campaign type (legacy dialect)."),
        Column("sent_at", TIMESTAMP, "When the campaign was sent."),
        *_PERFORMANCE,
    ),
)
FLOW_PERFORMANCE = View(
    "flow_performance",
    "One row for each message of a flow that has events: deliveries, opens, clicks and attributed orders.",
    (
        *_ACCOUNT,
        Column("automation_key", KEY, "Key of the flow (automations.automation_key)."),
        Column("flow_id", TEXT, "Klaviyo's ID of the flow; null if the warehouse does not have it."),
        Column("flow_name", TEXT, "Name of the flow."),
        Column("flow_status", TEXT, "draft, manual or live."),
        Column("message_key", KEY, "md5($message); see the view messages. Null for events and orders without one."),
        Column("message_id", TEXT, "Klaviyo's ID of the message; null if the warehouse does not have it."),
        Column("message_name", TEXT, "Name of the message."),
        Column("channel", TEXT, "Channel, such as email; null if it is not known."),
        *_PERFORMANCE,
    ),
)


def _activity(name: str, noun: str) -> tuple[Column, ...]:
    return (
        Column(f"first_{name}_at", TIMESTAMP, f"Time of the first {noun}; null without one."),
        Column(f"last_{name}_at", TIMESTAMP, f"Time of the latest {noun}. In the future if it is dated so."),
        Column(f"{name}s", INTEGER, f"Number of times: {noun}."),
        Column(f"{name}s_30_days", INTEGER, "Of these, within the last 30 days, not in the future."),
        Column(f"{name}s_90_days", INTEGER, "Of these, within the last 90 days, not in the future."),
    )


MEMBER_ENGAGEMENT = View(
    "member_engagement",
    "One row for each person with a send, open, click or order. Does not say who may be contacted: see member_lists.",
    (
        *_ACCOUNT,
        Column("member_key", KEY, "Key of the person (members.member_key)."),
        Column("member_id", TEXT, "Klaviyo's ID of the profile; null if the warehouse does not have it."),
        Column("deleted_at", TIMESTAMP, "When the profile was first missing in Klaviyo; null while it exists."),
        *_activity("send", "email that was delivered"),
        *_activity("open", "open by the person, not by a machine"),
        *_activity("click", "click by the person, not by a bot"),
        *_activity("order", "event of the conversion metric, attributed or not"),
        *_REVENUE,
    ),
)
LIST_GROWTH = View(
    "list_growth",
    "One row for each list and each day on which somebody joined or left it.",
    (
        *_ACCOUNT,
        Column("list_key", KEY, "Key of the list (lists.key)."),
        Column("list_id", TEXT, "Klaviyo's ID of the list."),
        Column("list_name", TEXT, "Name of the list; null if the warehouse does not have it."),
        _DAY,
        Column("people_joined", INTEGER, "People who last joined the list on this day."),
        Column(
            "people_left",
            INTEGER,
            "People who left the list on this day and have not joined it again. A suppression that is older than the "
            "joining counts on the day of joining.",
        ),
        Column("people_on_list", INTEGER, "People on the list at the end of the day, of those."),
        Column(
            "joined_and_subscribed",
            INTEGER,
            "Of the people who joined on this day, those who may be emailed through the list now "
            "(member_lists.is_subscribed).",
        ),
    ),
)
DELIVERABILITY = View(
    "deliverability",
    "One row for each domain of email addresses and each day with sends, bounces, opens or complaints.",
    (
        *_ACCOUNT,
        _DAY,
        Column(
            "domain",
            TEXT,
            "Domain of the address, in lower case; a hash with PERSONAL_DATA=hash. Null with drop, and for people who "
            "were erased.",
        ),
        Column("sends", INTEGER, "Emails that were delivered."),
        Column("bounces", INTEGER, "Emails that bounced."),
        Column("hard_bounces", INTEGER, "Of these, for good (Bounce Type is Hard). 0 if properties are not readable."),
        Column("soft_bounces", INTEGER, "Of these, for now (Bounce Type is Soft). 0 if properties are not readable."),
        Column("opens", INTEGER, "Times that emails were opened, by people and by machines."),
        Column("machine_opens", INTEGER, "Of these, times that a mail program opened it by itself (machine_open)."),
        Column("complaints", INTEGER, "Emails that were marked as spam."),
    ),
)
MARTS = (CAMPAIGN_PERFORMANCE, FLOW_PERFORMANCE, MEMBER_ENGAGEMENT, LIST_GROWTH, DELIVERABILITY)
