"""The query of the view `attributed_revenue`, and the same for recent events, composed from the catalogue. Knows no
connection.
"""

from psycopg.sql import Composed

from klaviyo_pg.postgres.statements import filled, of_all_events

# An event counts once for each message, however often it is attributed to it.
_QUERY = """
WITH attributed AS (
    SELECT DISTINCT esp_integration_id, event_at, event_key, campaign_key, campaign_id, campaign_message_key,
        campaign_message_id, automation_key, flow_id, flow_message_key, flow_message_id
    FROM {event_attributions}
), event AS ({events})
SELECT integrations.name AS integration, attributed.esp_integration_id, attributed.campaign_key,
    attributed.campaign_id, campaign.name AS campaign_name, attributed.campaign_message_key,
    attributed.campaign_message_id, attributed.automation_key, attributed.flow_id, flow.name AS flow_name,
    attributed.flow_message_key, attributed.flow_message_id, flow_message.name AS flow_message_name,
    event.metric_key, metric.name AS metric_name, event.value_currency,
    count(*) AS conversions, sum(event.value) AS revenue,
    min(attributed.event_at) AS first_event_at, max(attributed.event_at) AS last_event_at
FROM attributed
JOIN event ON event.event_at = attributed.event_at AND event.key = attributed.event_key
JOIN {integrations} AS integrations ON integrations.esp_integration_id = attributed.esp_integration_id
LEFT JOIN {metrics} AS metric ON metric.key = event.metric_key
LEFT JOIN {campaigns} AS campaign ON campaign.esp_integration_id = attributed.esp_integration_id
    AND campaign.campaign_key = attributed.campaign_key
LEFT JOIN {automations} AS flow ON flow.esp_integration_id = attributed.esp_integration_id
    AND flow.automation_key = attributed.automation_key
LEFT JOIN {campaigns} AS flow_message ON flow_message.esp_integration_id = attributed.esp_integration_id
    AND flow_message.campaign_key = attributed.flow_message_key
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
"""
# An event counts once for each campaign and flow, whichever of its messages it is attributed to.
_RECENT = """
WITH attributed AS (
    SELECT DISTINCT event_at, event_key, campaign_key, campaign_id, automation_key, flow_id
    FROM {event_attributions} WHERE event_at >= %(since)s AND esp_integration_id = %(account)s
), event AS ({events})
SELECT CASE WHEN attributed.campaign_key IS NULL THEN 'flow' ELSE 'campaign' END AS kind,
    coalesce(campaign.name, flow.name, attributed.campaign_id, attributed.flow_id, 'unknown') AS name,
    event.value_currency AS currency, count(*) AS conversions, sum(event.value) AS revenue
FROM attributed
JOIN event ON event.event_at = attributed.event_at AND event.key = attributed.event_key
LEFT JOIN {campaigns} AS campaign ON campaign.esp_integration_id = %(account)s
    AND campaign.campaign_key = attributed.campaign_key
LEFT JOIN {automations} AS flow ON flow.esp_integration_id = %(account)s
    AND flow.automation_key = attributed.automation_key
GROUP BY 1, 2, 3, attributed.campaign_key, attributed.automation_key ORDER BY 5 DESC NULLS LAST, 4 DESC, 2
"""
_EVENTS = "SELECT event_at, key, metric_key, value, value_currency FROM {}"
_OF_METRICS = " WHERE event_at >= %(since)s AND metric_key = ANY(%(metrics)s)"


def query(schema: str) -> Composed:
    """Return the query that defines the view."""
    return _composed(schema, _QUERY, _EVENTS)


def recent(schema: str) -> Composed:
    """Return the query of what is attributed to each campaign and flow of an account from a time on, by currency.

    The view cannot be limited like this: it adds up all events before a condition applies. The query takes the values
    `account`, `metrics` (keys) and `since`.
    """
    return _composed(schema, _RECENT, _EVENTS + _OF_METRICS)


def _composed(schema: str, text: str, of_table: str) -> Composed:
    return filled(schema, text, events=of_all_events(schema, of_table))
