"""The query of the view `contactable`, composed from the catalogue. Knows no connection."""

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from klaviyo_pg.catalogue import Table, events
from klaviyo_pg.postgres.statements import filled, qualified
from klaviyo_pg.postgres.views import push_tokens

# The rules are those of docs/people.md. What an index serves is looked up by person, and only where it decides.
# OFFSET 0 keeps Postgres from looking it up twice, for both columns of a channel. The rest is read as a whole and
# joined.
_QUERY = """
SELECT account.name AS integration, m.esp_integration_id, m.member_key, m.id AS member_id, m.email, m.phone_number,
    {columns}
FROM {integrations} AS account
JOIN {members} AS m ON m.esp_integration_id = account.esp_integration_id
{consents}
LEFT JOIN (
    SELECT DISTINCT esp_integration_id, lower(email) AS email FROM {member_exclusions}
    WHERE removed_at IS NULL AND email <> lower(email)
) AS capitals ON capitals.email = lower(m.email) AND capitals.esp_integration_id = m.esp_integration_id
LEFT JOIN (
    SELECT metric.esp_integration_id, e.member_key, max(e.event_at) AS unsubscribed_at
    FROM {metrics} AS metric CROSS JOIN LATERAL ({events_of_metric}) AS e
    WHERE metric.name IN ({unsubscribed_from_sms}) GROUP BY 1, 2
) AS texts ON texts.member_key = m.member_key AND texts.esp_integration_id = m.esp_integration_id
LEFT JOIN (
    SELECT esp_integration_id FROM {push_tokens} GROUP BY 1
) AS devices ON devices.esp_integration_id = m.esp_integration_id
CROSS JOIN LATERAL (
    SELECT account.personal_data IS NOT DISTINCT FROM 'drop' AS are_dropped
) AS addresses
CROSS JOIN LATERAL (
    SELECT {reasons}
    OFFSET 0
) AS reason
WHERE m.deleted_at IS NULL
"""
_CONSENT = """
LEFT JOIN {member_consents} AS {channel} ON {channel}.member_id = m.id
    AND {channel}.esp_integration_id = m.esp_integration_id AND {channel}.channel = {name}
"""
_COLUMNS = "CASE WHEN {reason} = 'unknown' THEN NULL ELSE {reason} IS NULL END AS {can}, {reason}"
_REASON = """
        CASE
            WHEN {address} IS NULL AND m.consent IS NOT NULL AND NOT addresses.are_dropped THEN {no_address}
            WHEN {channel}.consent = 'UNSUBSCRIBED' THEN 'unsubscribed'
            WHEN {channel}.consent = 'NEVER_SUBSCRIBED' THEN 'never_subscribed'
            WHEN NOT {channel}.can_receive THEN {cannot_receive}
            {later}
            WHEN {channel}.consent = 'SUBSCRIBED' AND {channel}.can_receive
                AND ({address} IS NOT NULL OR addresses.are_dropped) THEN NULL
            ELSE 'unknown'
        END AS {reason}
"""
_PUSH_REASON = """
        CASE
            WHEN push.consent = 'UNSUBSCRIBED' THEN 'unsubscribed'
            WHEN NOT push.can_receive AND push.consent = 'NEVER_SUBSCRIBED' THEN 'never_subscribed'
            WHEN NOT push.can_receive THEN 'cannot_receive'
            WHEN {receives} AND EXISTS (
                SELECT FROM {push_tokens} AS t
                WHERE t.member_key = m.member_key AND t.esp_integration_id = m.esp_integration_id AND {is_enabled}
            ) THEN NULL
            WHEN {receives} AND devices.esp_integration_id IS NOT NULL THEN 'no_token'
            ELSE 'unknown'
        END AS push_reason
"""
# What the profile does not show before it is read again. Events have the time in seconds.
_LATER_FOR_EMAIL = """
            WHEN capitals.email IS NOT NULL OR EXISTS (
                SELECT FROM {member_exclusions} AS e
                WHERE e.member_id = m.id AND e.esp_integration_id = m.esp_integration_id AND e.removed_at IS NULL
            ) OR EXISTS (
                SELECT FROM {member_exclusions} AS e
                WHERE e._sync_id IN (md5(m.email), md5(lower(m.email)))
                AND e.esp_integration_id = m.esp_integration_id AND e.removed_at IS NULL
            ) THEN 'suppressed'
            WHEN (
                SELECT max(c.changed_at) FILTER (WHERE c.change = 'unsubscribed') >= greatest(
                    '-infinity', date_trunc('second', greatest(email.consent_timestamp, email.updated_at)),
                    max(c.changed_at) FILTER (WHERE c.change = 'subscribed')
                )
                FROM {subscription_changes} AS c
                WHERE c.esp_integration_id = m.esp_integration_id AND c.member_id = m.id AND c.scope = 'all'
            ) THEN 'unsubscribed'
"""
_LATER_FOR_SMS = """
            WHEN texts.unsubscribed_at >= greatest(
                '-infinity', date_trunc('second', greatest(sms.consent_timestamp, sms.updated_at))
            ) THEN 'unsubscribed'
"""
# DESTINATIONS can bring the events of any metric into any table.
_EVENTS_OF_METRIC = """
            SELECT member_key, event_at FROM {table} WHERE metric_key = metric.key AND {is_destination}
"""
_CHANNELS = ("email", "sms", "push", "whatsapp")


def query(schema: str) -> Composed:
    """Return the query that defines the view."""
    of_push = {"receives": SQL(push_tokens.RECEIVES), "is_enabled": SQL(push_tokens.IS_ENABLED)}
    reasons = (
        _reason("email", "email", "no_address", "suppressed", filled(schema, _LATER_FOR_EMAIL.strip())),
        _reason("sms", "phone_number", "no_phone_number", "cannot_receive", SQL(_LATER_FOR_SMS.strip())),
        filled(schema, _PUSH_REASON.strip(), **of_push),
        _reason("whatsapp", "phone_number", "no_phone_number", "cannot_receive", SQL("")),
    )
    return filled(
        schema,
        _QUERY,
        columns=SQL(", ").join(_column(channel) for channel in _CHANNELS),
        reasons=SQL(", ").join(reasons),
        consents=SQL("").join(_consent(schema, channel) for channel in _CHANNELS),
        events_of_metric=SQL("UNION ALL").join(_events_of_metric(schema, table) for table in events.EVENT_TABLES),
        unsubscribed_from_sms=SQL(", ").join(map(Literal, sorted(events.UNSUBSCRIBED_FROM_SMS))),
    )


def _column(channel: str) -> Composed:
    return SQL(_COLUMNS).format(
        reason=Identifier("reason", f"{channel}_reason"),
        can=Identifier(f"can_{channel}"),
    )


def _consent(schema: str, channel: str) -> Composed:
    return filled(schema, _CONSENT, channel=Identifier(channel), name=Literal(channel))


def _reason(channel: str, address: str, no_address: str, cannot_receive: str, later: Composable) -> Composed:
    """Return the reason why a person may not be contacted on a channel that needs an address or a phone number.

    `later` has further conditions. They apply if the profile does not rule the person out.
    """
    return SQL(_REASON.strip()).format(
        channel=Identifier(channel),
        address=Identifier("m", address),
        no_address=Literal(no_address),
        cannot_receive=Literal(cannot_receive),
        later=later,
        reason=Identifier(f"{channel}_reason"),
    )


def _events_of_metric(schema: str, table: Table) -> Composed:
    is_usual = table is events.EVENTS
    is_destination = SQL("true") if is_usual else SQL("metric.destination = {}").format(Literal(table.name))
    return SQL(_EVENTS_OF_METRIC).format(table=qualified(schema, table), is_destination=is_destination)
