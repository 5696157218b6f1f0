"""The query of the view `usable_push_tokens`, composed from the catalogue. Knows no connection."""

from psycopg.sql import SQL, Composed

from klaviyo_pg.postgres.statements import filled

IS_ENABLED = "t.deleted_at IS NULL AND t.enablement_status IN ('AUTHORIZED', 'PROVISIONAL')"
"""The condition that a push token (t) can receive push notifications."""
RECEIVES = "push.can_receive AND push.consent IS DISTINCT FROM 'UNSUBSCRIBED'"
"""The condition that a person, by the consent to push marketing (push), may get them."""
# A consent that was never read counts as none.
_QUERY = """
SELECT t.esp_integration_id, t.key, t.id, t.member_id, t.member_key, t.token_hash, t.platform, t.vendor,
    t.enablement_status, t.created_at
FROM {push_tokens} AS t
JOIN {members} AS m ON m.member_key = t.member_key AND m.esp_integration_id = t.esp_integration_id
WHERE {is_enabled} AND m.deleted_at IS NULL
AND EXISTS (
    SELECT FROM {member_consents} AS push
    WHERE push.member_id = t.member_id AND push.esp_integration_id = t.esp_integration_id AND push.channel = 'push'
    AND {receives}
)
"""


def query(schema: str) -> Composed:
    """Return the query that defines the view."""
    return filled(schema, _QUERY, is_enabled=SQL(IS_ENABLED), receives=SQL(RECEIVES))
