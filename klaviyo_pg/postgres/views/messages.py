"""The query of the view `messages`, composed from the catalogue. Knows no connection."""

from psycopg.sql import Composed

from klaviyo_pg.postgres.statements import filled

# A campaign that is sent as one message is found by either ID, so both have a row; an ID occurs once for each account.
_QUERY = """
SELECT m.esp_integration_id, m.message_key, 'campaign_message' AS message_type, m.id AS message_id, c.name, m.subject,
    m.channel, m.campaign_id, m.campaign_key, NULL AS flow_id,
    NULL COLLATE "C" AS automation_key, m.deleted_at, false AS is_placeholder
FROM {campaign_messages} AS m
LEFT JOIN {campaigns} AS c ON c.campaign_key = m.campaign_key AND c.esp_integration_id = m.esp_integration_id
    AND c.automation_key IS NULL
UNION ALL
SELECT f.esp_integration_id, f.message_key, 'flow_message', f.id, f.name, f.subject, f.channel, NULL, NULL, f.flow_id,
    f.automation_key, f.deleted_at, false
FROM {flow_messages} AS f
UNION ALL
SELECT c.esp_integration_id, c.campaign_key, CASE WHEN c.automation_key IS NULL THEN 'campaign' ELSE 'flow_message' END,
    c.id, c.name, c.subject, CASE WHEN c.automation_key IS NULL THEN c.campaign_type END,
    CASE WHEN c.automation_key IS NULL THEN c.id END, CASE WHEN c.automation_key IS NULL THEN c.campaign_key END,
    a.id, c.automation_key, c.deleted_at, c.is_placeholder IS TRUE
FROM {campaigns} AS c
LEFT JOIN {automations} AS a
    ON a.automation_key = c.automation_key AND a.esp_integration_id = c.esp_integration_id
WHERE NOT EXISTS (SELECT FROM {campaign_messages} AS m
    WHERE m.message_key = c.campaign_key AND m.esp_integration_id = c.esp_integration_id)
AND NOT EXISTS (SELECT FROM {flow_messages} AS f
    WHERE f.message_key = c.campaign_key AND f.esp_integration_id = c.esp_integration_id)
"""


def query(schema: str) -> Composed:
    """Return the query that defines the view."""
    return filled(schema, _QUERY)
