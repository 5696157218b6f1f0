"""The query of the view `contactable`, composed from the catalogue. Knows no connection."""

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from klaviyo_pg.catalogue import Table, events
from klaviyo_pg.postgres import push_tokens
from klaviyo_pg.postgres.statements import filled, qualified

# The rules are those of docs/people.md. What is looked up for each person has an index, so that one person is found as
# quickly as many; what has none is read as a whole and joined. Aggregates keep Postgres from looking up twice what two
# columns depend on.
_QUERY = """
SELECT integration, esp_integration_id, member_key, member_id, email, phone_number, {columns}
FROM (
    SELECT account.name AS integration, m.esp_integration_id, m.member_key, m.id AS member_id, m.email, m.phone_number,
        {reasons}
    FROM {integrations} AS account
    JOIN {members} AS m ON m.esp_integration_id = account.esp_integration_id
    {consents}
    CROSS JOIN LATERAL (
        SELECT account.personal_data IS NOT DISTINCT FROM 'drop' AS are_dropped,
            account.personal_data IS DISTINCT FROM 'drop' AND m.consent IS NOT NULL AS are_read
    ) AS addresses
    CROSS JOIN LATERAL (
        SELECT count(*) > 0 AS is_excluded FROM {member_exclusions} AS e
        WHERE e.esp_integration_id = m.esp_integration_id AND e.removed_at IS NULL
        AND (e.member_id = m.id OR e._sync_id IN (md5(m.email), md5(lower(m.email))))
    ) AS listed
    LEFT JOIN (
        SELECT DISTINCT esp_integration_id, lower(email) AS email FROM {member_exclusions}
        WHERE removed_at IS NULL AND email <> lower(email)
    ) AS capitals ON capitals.email = lower(m.email) AND capitals.esp_integration_id = m.esp_integration_id
    CROSS JOIN LATERAL (
        SELECT max(c.changed_at) FILTER (WHERE c.change = 'unsubscribed') AS unsubscribed_at,
            max(c.changed_at) FILTER (WHERE c.change = 'subscribed') AS subscribed_at
        FROM {subscription_changes} AS c
        WHERE c.esp_integration_id = m.esp_integration_id AND c.member_id = m.id AND c.scope = 'all'
    ) AS changed
    LEFT JOIN (
        SELECT metric.esp_integration_id, e.member_key, max(e.event_at) AS unsubscribed_at
        FROM {metrics} AS metric CROSS JOIN LATERAL ({events_of_metric}) AS e
        WHERE metric.name IN ({unsubscribed_from_sms}) GROUP BY 1, 2
    ) AS texted ON texted.member_key = m.member_key AND texted.esp_integration_id = m.esp_integration_id
    CROSS JOIN LATERAL (
        SELECT count(*) > 0 AS is_enabled FROM {push_tokens} AS t
        WHERE t.member_key = m.member_key AND t.esp_integration_id = m.esp_integration_id AND {is_enabled}
    ) AS device
    LEFT JOIN (
        SELECT esp_integration_id FROM {push_tokens} GROUP BY 1
    ) AS devices ON devices.esp_integration_id = m.esp_integration_id
    WHERE m.deleted_at IS NULL
) AS person
"""
_CONSENT = """
    LEFT JOIN {member_consents} AS {channel} ON {channel}.member_id = m.id
        AND {channel}.esp_integration_id = m.esp_integration_id AND {channel}.channel = {name}
"""
_COLUMNS = "CASE WHEN {reason} = 'unknown' THEN NULL ELSE {reason} IS NULL END AS {can}, {reason}"
_REASON = """
        CASE
            WHEN {address} IS NULL AND addresses.are_read THEN {no_address}
            WHEN {is_suppressed} THEN 'suppressed'
            WHEN {channel}.consent = 'UNSUBSCRIBED' OR {has_unsubscribed} THEN 'unsubscribed'
            WHEN {channel}.consent = 'NEVER_SUBSCRIBED' THEN 'never_subscribed'
            WHEN NOT {channel}.can_receive THEN 'cannot_receive'
            WHEN {channel}.consent = 'SUBSCRIBED' AND {channel}.can_receive
                AND ({address} IS NOT NULL OR addresses.are_dropped) THEN NULL
            ELSE 'unknown'
        END AS {reason}
"""
_PUSH_REASON = """
        CASE
            WHEN {receives} AND device.is_enabled THEN NULL
            WHEN push.consent = 'UNSUBSCRIBED' THEN 'unsubscribed'
            WHEN NOT push.can_receive AND push.consent = 'NEVER_SUBSCRIBED' THEN 'never_subscribed'
            WHEN NOT push.can_receive THEN 'cannot_receive'
            WHEN push.can_receive AND devices.esp_integration_id IS NOT NULL THEN 'no_token'
            ELSE 'unknown'
        END AS push_reason
"""
# Events have the time in seconds.
_SINCE_CONSENT = """{unsubscribed_at} >= greatest(
                '-infinity', date_trunc('second', {channel}.consent_timestamp),
                date_trunc('second', {channel}.updated_at), {subscribed_at}
            )"""
# DESTINATIONS can bring the events of any metric into any table.
_EVENTS_OF_METRIC = """
            SELECT member_key, event_at FROM {table} WHERE metric_key = metric.key AND {is_destination}
"""
_CHANNELS = ("email", "sms", "push", "whatsapp")


def query(schema: str) -> Composed:
    """Return the query that defines the view."""
    return filled(
        schema,
        _QUERY,
        columns=SQL(", ").join(_column(channel) for channel in _CHANNELS),
        reasons=SQL(",").join(_reasons()),
        consents=SQL("").join(_consent(schema, channel) for channel in _CHANNELS),
        events_of_metric=SQL("UNION ALL").join(_events_of_metric(schema, table) for table in events.EVENT_TABLES),
        unsubscribed_from_sms=SQL(", ").join(map(Literal, sorted(events.UNSUBSCRIBED_FROM_SMS))),
        is_enabled=SQL(push_tokens.IS_ENABLED),
    )


def _column(channel: str) -> Composed:
    return SQL(_COLUMNS).format(reason=Identifier(f"{channel}_reason"), can=Identifier(f"can_{channel}"))


def _consent(schema: str, channel: str) -> Composed:
    return filled(schema, _CONSENT, channel=Identifier(channel), name=Literal(channel))


def _reasons() -> Iterator[Composable]:
    """Yield the reason of each channel, in their order."""
    is_excluded = SQL("listed.is_excluded OR capitals.email IS NOT NULL")
    by_event = _since_consent("email", SQL("changed.unsubscribed_at"), SQL("changed.subscribed_at"))
    by_text = _since_consent("sms", SQL("texted.unsubscribed_at"), SQL("NULL"))
    yield _reason("email", "email", "no_address", is_excluded, by_event)
    yield _reason("sms", "phone_number", "no_phone_number", SQL("false"), by_text)
    yield SQL(_PUSH_REASON.strip("\n")).format(receives=SQL(push_tokens.RECEIVES))
    yield _reason("whatsapp", "phone_number", "no_phone_number", SQL("false"), SQL("false"))


def _reason(
    channel: str, address: str, no_address: str, is_suppressed: Composable, has_unsubscribed: Composable
) -> Composed:
    return SQL(_REASON.strip("\n")).format(
        channel=Identifier(channel),
        address=Identifier("m", address),
        no_address=Literal(no_address),
        is_suppressed=is_suppressed,
        has_unsubscribed=has_unsubscribed,
        reason=Identifier(f"{channel}_reason"),
    )


def _since_consent(channel: str, unsubscribed_at: Composable, subscribed_at: Composable) -> Composed:
    return SQL(_SINCE_CONSENT).format(
        channel=Identifier(channel), unsubscribed_at=unsubscribed_at, subscribed_at=subscribed_at
    )


def _events_of_metric(schema: str, table: Table) -> Composed:
    is_usual = table is events.EVENTS
    is_destination = SQL("true") if is_usual else SQL("metric.destination = {}").format(Literal(table.name))
    return SQL(_EVENTS_OF_METRIC).format(table=qualified(schema, table), is_destination=is_destination)
