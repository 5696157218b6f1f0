"""The queries of the views in `catalogue.marts`, composed from the catalogue. Knows no connection.

They read the tables as they are, so they are right at any time. Filters on a campaign, message, person or day reach the
event tables, where indexes can serve them.
"""

from collections.abc import Mapping

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from klaviyo_pg.catalogue import Table, events
from klaviyo_pg.catalogue.shared import ESP_SOURCE
from klaviyo_pg.postgres.statements import filled, qualified
from klaviyo_pg.postgres.views import conversions

_DELIVERED, _BOUNCED, _OPENED, _MACHINE, _CLICKED, _BOT, _UNSUBSCRIBED, _COMPLAINED, _ORDERED = range(1, 10)
# Events that were loaded before the columns existed have only the properties, which the loader reads in the same way.
_BY_MACHINE = """coalesce(is_machine_open, 'true' IN (lower(properties ->> 'machine_open'),
        lower(properties ->> 'Machine Open'), lower(properties ->> 'Apple Privacy Open')))"""
_BY_BOT = "coalesce(is_bot_click, lower(properties ->> 'Bot Click') = 'true')"
# What the events of a table count as.
_KINDS = {
    events.SENDS: f"{_DELIVERED}",
    events.BOUNCES: f"{_BOUNCED}",
    events.OPENS: f"CASE WHEN {_BY_MACHINE} THEN {_MACHINE} ELSE {_OPENED} END",
    events.CLICKS: f"CASE WHEN {_BY_BOT} THEN {_BOT} ELSE {_CLICKED} END",
    events.SPAMS: f"{_COMPLAINED}",
    events.UNSUBSCRIBES: f"CASE WHEN event_name IS DISTINCT FROM 'Unsubscribed from List' THEN {_UNSUBSCRIBED} END",
}
_ACTIVITIES_OF_EVENTS = {
    events.Activity.DELIVERED: _DELIVERED,
    events.Activity.BOUNCED: _BOUNCED,
    events.Activity.OPENED: _OPENED,
    events.Activity.UNSUBSCRIBED: _UNSUBSCRIBED,
}
# Without a condition, so that an index of each table can serve a join.
_OF_MESSAGES = """
    SELECT esp_integration_id, campaign_key, automation_key, member_key, event_at, {kind} AS kind FROM {table}
"""
_OF_OTHER_CHANNELS = """
    SELECT esp_integration_id, campaign_key, automation_key, member_key, event_at, CASE event_name {kinds} END AS kind
    FROM {events} WHERE metric_key = ANY (ARRAY(SELECT key FROM {metrics} WHERE name IN ({names})))
"""
_CAMPAIGN_COLUMNS = """campaign.id AS campaign_id, campaign.name AS campaign_name, campaign.campaign_type AS channel,
        campaign.sent_at"""
# Messages of flows are left out after grouping: Postgres would expect that a condition here leaves hardly any rows, and
# join them one by one.
_OF_CAMPAIGN = f"""
    SELECT event.esp_integration_id, coalesce(message.campaign_key, event.campaign_key) AS campaign_key,
        {_CAMPAIGN_COLUMNS}, event.member_key, event.event_at, event.kind, NULL::numeric AS value,
        NULL::text AS value_currency, message.automation_key AS flow_key
    FROM ({{happened}}) AS event
    LEFT JOIN {{messages}} AS message
        ON message.message_key = event.campaign_key AND message.esp_integration_id = event.esp_integration_id
    LEFT JOIN {{campaigns}} AS campaign
        ON campaign.campaign_key = message.campaign_key AND campaign.esp_integration_id = event.esp_integration_id
    WHERE event.automation_key IS NULL AND event.campaign_key IS NOT NULL
"""
_OF_FLOW = """
    SELECT event.esp_integration_id, coalesce(event.automation_key, message.automation_key) AS automation_key,
        event.campaign_key AS message_key, event.member_key, event.event_at, event.kind, NULL::numeric AS value,
        NULL::text AS value_currency, NULL::text AS flow_key
    FROM ({happened}) AS event
    LEFT JOIN {messages} AS message
        ON message.message_key = event.campaign_key AND message.esp_integration_id = event.esp_integration_id
    WHERE coalesce(event.automation_key, message.automation_key) IS NOT NULL
"""
# An order counts once for each campaign or message of a flow, however often it is attributed to it. Postgres expects
# hardly any, so what is joined next needs an index.
_ORDERED_BY_CAMPAIGN = f"""
    SELECT attributed.esp_integration_id, attributed.campaign_key, {_CAMPAIGN_COLUMNS}, event.member_key,
        event.event_at, {_ORDERED} AS kind, event.value, event.value_currency, NULL::text AS flow_key
    FROM (
        SELECT DISTINCT esp_integration_id, event_at, event_key, campaign_key, campaign_id FROM {{event_attributions}}
        WHERE campaign_key IS NOT NULL
    ) AS attributed
    JOIN ({{all_events}}) AS event ON event.event_at = attributed.event_at AND event.key = attributed.event_key
    LEFT JOIN {{campaigns}} AS campaign ON campaign.key = {{key_of_campaign}}
    WHERE event.metric_key = ANY (ARRAY({{conversions}}))
"""
_ORDERED_BY_FLOW = f"""
    SELECT attributed.esp_integration_id, attributed.automation_key, attributed.flow_message_key AS message_key,
        event.member_key, event.event_at, {_ORDERED} AS kind, event.value, event.value_currency,
        NULL::text AS flow_key
    FROM (
        SELECT DISTINCT esp_integration_id, event_at, event_key, automation_key, flow_message_key
        FROM {{event_attributions}} WHERE automation_key IS NOT NULL
    ) AS attributed
    JOIN ({{all_events}}) AS event ON event.event_at = attributed.event_at AND event.key = attributed.event_key
    WHERE event.metric_key = ANY (ARRAY({{conversions}}))
"""
# DESTINATIONS can bring the events of any metric into any table. Postgres does not look into a table without any.
_OF_ANY_TABLE = "SELECT event_at, key, metric_key, member_key, value, value_currency FROM {table} WHERE {kind}"
# First by person, because counting distinct people would sort all events; then by currency.
_PERFORMANCE = f"""
SELECT {{owner}}, sum(delivered + bounced)::bigint AS recipients, sum(delivered)::bigint AS delivered,
    sum(bounced)::bigint AS bounces, sum(opened + machine)::bigint AS opens, sum(machine)::bigint AS machine_opens,
    sum(people_opened)::bigint AS unique_opens, sum(people_opened_themselves)::bigint AS unique_opens_by_people,
    sum(clicked)::bigint AS clicks, sum(people_clicked)::bigint AS unique_clicks, sum(bot)::bigint AS bot_clicks,
    sum(unsubscribed)::bigint AS unsubscribes, sum(complained)::bigint AS complaints, sum(ordered)::bigint AS orders,
    CASE WHEN count(*) FILTER (WHERE ordered > 0) = 1 THEN sum(revenue) END AS revenue,
    CASE WHEN count(*) FILTER (WHERE ordered > 0) = 1 THEN max(value_currency) FILTER (WHERE ordered > 0)
    END AS revenue_currency,
    jsonb_object_agg(coalesce(value_currency, 'unknown'), coalesce(revenue, 0)) FILTER (WHERE ordered > 0)
        AS revenue_by_currency,
    min(first_at) AS first_event_at, max(last_at) AS last_event_at, sum(people_sent)::bigint AS unique_recipients
FROM (
    SELECT {{owner}}, value_currency, sum(delivered) AS delivered, sum(bounced) AS bounced, sum(opened) AS opened,
        sum(machine) AS machine, sum(clicked) AS clicked, sum(bot) AS bot, sum(unsubscribed) AS unsubscribed,
        sum(complained) AS complained, sum(ordered) AS ordered, sum(revenue) AS revenue,
        count(member_key) FILTER (WHERE delivered + bounced > 0) AS people_sent,
        count(member_key) FILTER (WHERE opened + machine > 0) AS people_opened,
        count(member_key) FILTER (WHERE opened > 0) AS people_opened_themselves,
        count(member_key) FILTER (WHERE clicked > 0) AS people_clicked, min(first_at) AS first_at,
        max(last_at) AS last_at, max(flow_key) AS flow_key
    FROM (
        SELECT {{owner}}, member_key, value_currency,
            count(*) FILTER (WHERE kind = {_DELIVERED}) AS delivered,
            count(*) FILTER (WHERE kind = {_BOUNCED}) AS bounced,
            count(*) FILTER (WHERE kind = {_OPENED}) AS opened,
            count(*) FILTER (WHERE kind = {_MACHINE}) AS machine,
            count(*) FILTER (WHERE kind = {_CLICKED}) AS clicked,
            count(*) FILTER (WHERE kind = {_BOT}) AS bot,
            count(*) FILTER (WHERE kind = {_UNSUBSCRIBED}) AS unsubscribed,
            count(*) FILTER (WHERE kind = {_COMPLAINED}) AS complained,
            count(*) FILTER (WHERE kind = {_ORDERED}) AS ordered,
            sum(value) AS revenue, min(event_at) AS first_at, max(event_at) AS last_at, max(flow_key) AS flow_key
        FROM ({{events}}) AS event WHERE kind IS NOT NULL GROUP BY {{owner}}, member_key, value_currency
    ) AS person GROUP BY {{owner}}, value_currency
) AS currency GROUP BY {{owner}} HAVING max(flow_key) IS NULL
"""
_NUMBERS = """
    performance.recipients, performance.delivered, performance.bounces, performance.opens, performance.machine_opens,
    performance.unique_opens, performance.unique_opens_by_people, performance.clicks, performance.unique_clicks,
    performance.bot_clicks, performance.unsubscribes, performance.complaints, performance.orders, performance.revenue,
    performance.revenue_currency, performance.revenue_by_currency, performance.first_event_at,
    performance.last_event_at, performance.unique_recipients
"""
_CAMPAIGN_OWNER = "campaign_key, esp_integration_id, campaign_id, campaign_name, channel, sent_at"
_CAMPAIGNS = f"""
SELECT integrations.name AS integration, performance.esp_integration_id, performance.campaign_key,
    performance.campaign_id, performance.campaign_name, performance.channel, performance.sent_at, {_NUMBERS.strip()}
FROM ({{performance}}) AS performance
JOIN {{integrations}} AS integrations ON integrations.esp_integration_id = performance.esp_integration_id
"""
_FLOW_OWNER = "message_key, automation_key, esp_integration_id"
_FLOWS = f"""
SELECT integrations.name AS integration, performance.esp_integration_id, performance.automation_key,
    flow.id AS flow_id, flow.name AS flow_name, flow.status AS flow_status, performance.message_key,
    message.message_id, message.name AS message_name, message.channel, {_NUMBERS.strip()}
FROM ({{performance}}) AS performance
JOIN {{integrations}} AS integrations ON integrations.esp_integration_id = performance.esp_integration_id
LEFT JOIN {{automations}} AS flow ON flow.automation_key = performance.automation_key
    AND flow.esp_integration_id = performance.esp_integration_id
LEFT JOIN {{messages}} AS message ON message.message_key = performance.message_key
    AND message.esp_integration_id = performance.esp_integration_id
"""
_RECENT = "event_at > now() - interval '{hours} hours' AND event_at <= now()"
_30_DAYS, _90_DAYS = _RECENT.format(hours=720), _RECENT.format(hours=2160)
# Orders are few. Those of a person are added up by currency, which would take too long for all events.
_ENGAGEMENT = f"""
SELECT integrations.name AS integration, esp_integration_id, member_key, member.id AS member_id, member.deleted_at,
    {{columns}}, customer.first_order_at, customer.last_order_at, coalesce(customer.orders, 0) AS orders,
    coalesce(customer.orders_30_days, 0) AS orders_30_days, coalesce(customer.orders_90_days, 0) AS orders_90_days,
    customer.revenue, customer.revenue_currency, customer.revenue_by_currency
FROM (
    SELECT esp_integration_id, member_key, {{aggregates}}
    FROM ({{events}}) AS event WHERE member_key IS NOT NULL AND kind IS NOT NULL GROUP BY 1, 2
) AS person
FULL JOIN (
    SELECT esp_integration_id, member_key, min(first_at) AS first_order_at, max(last_at) AS last_order_at,
        sum(orders)::bigint AS orders, sum(in_30_days)::bigint AS orders_30_days,
        sum(in_90_days)::bigint AS orders_90_days, CASE WHEN count(*) = 1 THEN sum(revenue) END AS revenue,
        CASE WHEN count(*) = 1 THEN max(value_currency) END AS revenue_currency,
        jsonb_object_agg(coalesce(value_currency, 'unknown'), coalesce(revenue, 0)) AS revenue_by_currency
    FROM (
        SELECT esp_integration_id, member_key, value_currency, min(event_at) AS first_at, max(event_at) AS last_at,
            count(*) AS orders, count(*) FILTER (WHERE {_30_DAYS}) AS in_30_days,
            count(*) FILTER (WHERE {_90_DAYS}) AS in_90_days, sum(value) AS revenue
        FROM ({{orders}}) AS event WHERE member_key IS NOT NULL GROUP BY 1, 2, 3
    ) AS currency GROUP BY 1, 2
) AS customer USING (esp_integration_id, member_key)
JOIN {{integrations}} AS integrations USING (esp_integration_id)
LEFT JOIN {{members}} AS member USING (esp_integration_id, member_key)
"""
_OF_PERSON = """
    SELECT esp_integration_id, member_key, event_at, {kind} AS kind FROM {table}
"""
_ORDERS_OF_PERSON = """
    SELECT esp_integration_id, member_key, event_at, value, value_currency FROM {table}
    WHERE metric_key = ANY (ARRAY({conversions})) AND {kind}
"""
_ACTIVITIES = {"send": _DELIVERED, "open": _OPENED, "click": _CLICKED}
_TIMES = {
    "first_{}_at": "min(event_at) FILTER (WHERE kind = {})",
    "last_{}_at": "max(event_at) FILTER (WHERE kind = {})",
}
_NUMBERS_OF_TIMES = {
    "{}s": "count(*) FILTER (WHERE kind = {})",
    "{}s_30_days": f"count(*) FILTER (WHERE kind = {{}} AND {_30_DAYS})",
    "{}s_90_days": f"count(*) FILTER (WHERE kind = {{}} AND {_90_DAYS})",
}
# People without a time of joining were on the list before the first day. A person can have left before joining: by a
# suppression that is older, and still applies. Rows of earlier versions have no `joined_at` until a run derives them.
_GROWTH = """
WITH zone AS MATERIALIZED (SELECT esp_integration_id, timezone FROM {account_time_zones})
SELECT integrations.name AS integration, change.esp_integration_id, list.key AS list_key, change.list_id,
    list.name AS list_name, change.day, change.people_joined, change.people_left, change.people_on_list,
    change.joined_and_subscribed
FROM (
    SELECT esp_integration_id, list_id, day, sum(joined)::bigint AS people_joined, sum(has_left)::bigint AS people_left,
        sum(sum(joined - has_left)) OVER (
            PARTITION BY esp_integration_id, list_id ORDER BY day NULLS FIRST
        )::bigint AS people_on_list,
        sum(each.subscribed)::bigint AS joined_and_subscribed
    FROM (
        SELECT esp_integration_id, list_id, joined_on, left_on, count(*) AS people,
            count(*) FILTER (WHERE is_subscribed) AS subscribed
        FROM (
            SELECT current.esp_integration_id, current.list_id, current.is_subscribed,
                (coalesce(current.joined_at, current.subscribed) AT TIME ZONE zone.timezone)::date AS joined_on,
                (CASE WHEN current.unsubscribed_at IS NOT NULL
                    THEN greatest(current.unsubscribed_at, current.subscribed, current.joined_at)
                END AT TIME ZONE zone.timezone)::date AS left_on
            FROM {member_lists} AS current
            JOIN zone ON zone.esp_integration_id = current.esp_integration_id
        ) AS person GROUP BY 1, 2, 3, 4
    ) AS membership
    CROSS JOIN LATERAL (VALUES (joined_on, people, 0, subscribed), (left_on, 0, people, 0))
        AS each (day, joined, has_left, subscribed)
    WHERE day IS NOT NULL OR joined > 0 GROUP BY 1, 2, 3
) AS change
JOIN {integrations} AS integrations ON integrations.esp_integration_id = change.esp_integration_id
LEFT JOIN {lists} AS list ON list.id = change.list_id AND list.esp_integration_id = change.esp_integration_id
WHERE change.day IS NOT NULL
"""
# Each day is a range of the primary keys. A condition on a day that is computed from the time would read all events.
# Accounts with the same time zone are read together, because the keys do not contain the account.
_DELIVERABILITY = """
SELECT integrations.name AS integration, event.esp_integration_id, day.at::date AS day, event.domain, event.sends,
    event.bounces, event.hard_bounces, event.soft_bounces, event.opens, event.machine_opens, event.complaints
FROM (
    SELECT timezone AS name, array_agg(esp_integration_id) AS accounts FROM {account_time_zones} GROUP BY 1
) AS zone
CROSS JOIN LATERAL generate_series(
    (least({first}) AT TIME ZONE zone.name)::date::timestamp, greatest({last}) AT TIME ZONE zone.name, interval '1 day'
) AS day (at)
CROSS JOIN LATERAL (
    SELECT esp_integration_id,
        coalesce(
            email_domain, nullif(lower(split_part(email, '@', 2)), ''), lower(properties ->> 'Email Domain')
        ) AS domain,
        count(*) FILTER (WHERE kind = {delivered}) AS sends,
        count(*) FILTER (WHERE kind = {bounced}) AS bounces,
        count(*) FILTER (WHERE kind = {bounced} AND properties ->> 'Bounce Type' = 'Hard') AS hard_bounces,
        count(*) FILTER (WHERE kind = {bounced} AND properties ->> 'Bounce Type' = 'Soft') AS soft_bounces,
        count(*) FILTER (WHERE kind = {opened}) AS opens,
        count(*) FILTER (WHERE kind = {opened} AND {by_machine}) AS machine_opens,
        count(*) FILTER (WHERE kind = {complained}) AS complaints
    FROM ({events}) AS happened
    WHERE event_at >= day.at AT TIME ZONE zone.name AND event_at < (day.at + interval '1 day') AT TIME ZONE zone.name
        AND esp_integration_id = ANY (zone.accounts)
    GROUP BY 1, 2
) AS event
JOIN {integrations} AS integrations ON integrations.esp_integration_id = event.esp_integration_id
"""
_OF_EMAIL = """
    SELECT esp_integration_id, event_at, email, email_domain, is_machine_open, properties, {kind} AS kind FROM {table}
    WHERE {is_email}
"""
# DESTINATIONS can bring text messages into these tables. Events of an earlier version have no channel.
_IS_EMAIL = "coalesce(channel, 'email') = 'email'"
_KEY_OF_CAMPAIGN = SQL(
    "md5({esp_source} || ':' || attributed.esp_integration_id || ':' || attributed.campaign_id)"
).format(esp_source=Literal(ESP_SOURCE))
# Without machines and bots. A condition on several kinds would make Postgres expect hardly any events, and sort them.
_KINDS_OF_PERSON = {
    events.SENDS: f"CASE WHEN {_IS_EMAIL} THEN {_DELIVERED} END",
    events.OPENS: f"CASE WHEN {_BY_MACHINE} IS NOT TRUE THEN {_OPENED} END",
    events.CLICKS: f"CASE WHEN {_BY_BOT} IS NOT TRUE THEN {_CLICKED} END",
}
_EMAIL_KINDS = {
    events.SENDS: _DELIVERED,
    events.BOUNCES: _BOUNCED,
    events.OPENS: _OPENED,
    events.SPAMS: _COMPLAINED,
}


def campaign_performance(schema: str) -> Composed:
    """Return the query that defines the view of campaigns."""
    performance = _performance(schema, _CAMPAIGN_OWNER, _OF_CAMPAIGN, _ORDERED_BY_CAMPAIGN)
    return filled(schema, _CAMPAIGNS, performance=performance)


def flow_performance(schema: str) -> Composed:
    """Return the query that defines the view of messages of flows."""
    return filled(schema, _FLOWS, performance=_performance(schema, _FLOW_OWNER, _OF_FLOW, _ORDERED_BY_FLOW))


def _performance(schema: str, owner: str, owned: str, ordered: str) -> Composed:
    """Return the query of the numbers for each owner: a campaign or a message of a flow.

    Events are joined to their owner before they are appended, so that a filter on the owner reaches each event table.
    """
    happened = (_appended(schema, _OF_MESSAGES, _KINDS), _other_channels(schema))
    orders = filled(
        schema,
        ordered,
        key_of_campaign=_KEY_OF_CAMPAIGN,
        conversions=conversions.query(schema),
        all_events=_appended(schema, _OF_ANY_TABLE, conversions.tables(schema)),
    )
    joined = [*(filled(schema, owned, happened=each) for each in happened), orders]
    return filled(schema, _PERFORMANCE, owner=SQL(owner), events=SQL("\nUNION ALL\n").join(joined))


def _other_channels(schema: str) -> Composed:
    activities = events.ACTIVITY_OF_METRIC_NAME
    kinds = " ".join(f"WHEN '{name}' THEN {_ACTIVITIES_OF_EVENTS[activity]}" for name, activity in activities.items())
    names = ", ".join(f"'{name}'" for name in activities)
    return filled(schema, _OF_OTHER_CHANNELS, kinds=SQL(kinds), names=SQL(names))


def member_engagement(schema: str) -> Composed:
    """Return the query that defines the view of people."""
    columns, aggregates = [], []
    for activity, kind in _ACTIVITIES.items():
        for name, aggregate in (_TIMES | _NUMBERS_OF_TIMES).items():
            column = Identifier(name.format(activity))
            missing = SQL("coalesce(person.{0}, 0) AS {0}") if name in _NUMBERS_OF_TIMES else SQL("person.{}")
            columns.append(missing.format(column))
            aggregates.append(SQL("{} AS {}").format(SQL(aggregate.format(kind)), column))
    orders = _appended(schema, _ORDERS_OF_PERSON, conversions.tables(schema), conversions=conversions.query(schema))
    return filled(
        schema,
        _ENGAGEMENT,
        columns=SQL(", ").join(columns),
        aggregates=SQL(", ").join(aggregates),
        events=_appended(schema, _OF_PERSON, _KINDS_OF_PERSON),
        orders=orders,
    )


def list_growth(schema: str) -> Composed:
    """Return the query that defines the view of lists by day."""
    return filled(schema, _GROWTH)


def deliverability(schema: str) -> Composed:
    """Return the query that defines the view of domains by day."""
    names = [qualified(schema, table) for table in _EMAIL_KINDS]
    kinds = {table: str(kind) for table, kind in _EMAIL_KINDS.items()}
    numbers = {"delivered": _DELIVERED, "bounced": _BOUNCED, "opened": _OPENED, "complained": _COMPLAINED}
    return filled(
        schema,
        _DELIVERABILITY,
        first=SQL(", ").join(SQL("(SELECT min(event_at) FROM {})").format(name) for name in names),
        last=SQL(", ").join(SQL("(SELECT max(event_at) FROM {})").format(name) for name in names),
        events=_appended(schema, _OF_EMAIL, kinds),
        by_machine=SQL(_BY_MACHINE),
        **{name: SQL(str(kind)) for name, kind in numbers.items()},
    )


QUERIES = {
    "campaign_performance": campaign_performance,
    "flow_performance": flow_performance,
    "member_engagement": member_engagement,
    "list_growth": list_growth,
    "deliverability": deliverability,
}


def _appended(schema: str, text: str, kinds: Mapping[Table, str | Composable], **parts: Composable) -> Composed:
    """Return a query over several event tables. `kinds` has what differs: what their events count as, or which do."""
    written = {table: SQL(kind) if isinstance(kind, str) else kind for table, kind in kinds.items()}
    return SQL(" UNION ALL ").join(
        SQL(text).format(table=qualified(schema, table), kind=kind, is_email=SQL(_IS_EMAIL), **parts)
        for table, kind in written.items()
    )
