"""The query of the view `usable_push_tokens`, composed from the catalogue. Knows no connection."""

from psycopg.sql import Composed

from klaviyo_pg.postgres.statements import filled

# A consent that was never read counts as none.
_QUERY = """
SELECT t.esp_integration_id, t.key, t.id, t.member_id, t.member_key, t.token_hash, t.platform, t.vendor,
    t.enablement_status, t.created_at
FROM {push_tokens} AS t
JOIN {members} AS m ON m.member_key = t.member_key AND m.esp_integration_id = t.esp_integration_id
WHERE t.deleted_at IS NULL AND t.enablement_status IN ('AUTHORIZED', 'PROVISIONAL') AND m.deleted_at IS NULL
AND EXISTS (
    SELECT FROM {member_consents} AS c
    WHERE c.member_id = t.member_id AND c.esp_integration_id = t.esp_integration_id AND c.channel = 'push'
    AND c.can_receive AND c.consent IS DISTINCT FROM 'UNSUBSCRIBED'
)
"""


def query(schema: str) -> Composed:
    """Return the query that defines the view."""
    return filled(schema, _QUERY)
