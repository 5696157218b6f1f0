"""The queries of the views with Fivetran's Klaviyo schema, composed from the catalogue. Knows no connection."""

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from klaviyo_pg.catalogue import dimensions, events, fivetran
from klaviyo_pg.catalogue.personal import EVENT_ID
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import filled

_CAMPAIGN = """
SELECT campaign.id, campaign.name, campaign.campaign_type, lower(campaign.status) AS status,
    campaign.status AS status_label, NULL::text AS status_id, campaign.subject, campaign.from_email, campaign.from_name,
    (SELECT message.template_id FROM {campaign_messages} AS message
        WHERE message.esp_integration_id = {account} AND message.campaign_key = campaign.campaign_key
        AND message.template_id IS NOT NULL ORDER BY message.id LIMIT 1) AS email_template_id,
    campaign.created_at AT TIME ZONE 'UTC' AS created, campaign.updated_at AT TIME ZONE 'UTC' AS updated,
    campaign.scheduled_at AT TIME ZONE 'UTC' AS scheduled,
    coalesce(campaign.sent_at, (
        SELECT min(message.send_at) FROM {campaign_messages} AS message
        WHERE message.esp_integration_id = {account} AND message.campaign_key = campaign.campaign_key
    )) AT TIME ZONE 'UTC' AS send_time,
    campaign.sent_at AT TIME ZONE 'UTC' AS sent_at,
    campaign.archived, campaign.deleted_at IS NOT NULL AS _fivetran_deleted, {synced} AS _fivetran_synced
FROM {campaigns} AS campaign
WHERE campaign.esp_integration_id = {account} AND campaign.automation_key IS NULL
AND campaign.is_placeholder IS NOT TRUE
"""
_FLOW = """
SELECT flow.id, flow.name, flow.status, flow.archived, flow.trigger_type, flow.created_at AT TIME ZONE 'UTC' AS created,
    flow.updated_at AT TIME ZONE 'UTC' AS updated, flow.deleted_at IS NOT NULL AS _fivetran_deleted,
    {synced} AS _fivetran_synced
FROM {automations} AS flow
WHERE flow.esp_integration_id = {account} AND flow.is_placeholder IS NOT TRUE
"""
_METRIC = """
SELECT metric.id, {metric_name} AS name, metric.integration_id, metric.integration_name,
    metric.source AS integration_category, metric.created_at AT TIME ZONE 'UTC' AS created,
    metric.updated_at AT TIME ZONE 'UTC' AS updated, metric.deleted_at IS NOT NULL AS _fivetran_deleted,
    {synced} AS _fivetran_synced
FROM {metrics} AS metric
WHERE metric.esp_integration_id = {account}
"""
_PERSON = """
SELECT person.id, person.email, person.phone_number, person.first_name, person.last_name, person.organization,
    person.title, person.address1 AS address_1, person.address2 AS address_2, person.city, person.state AS region,
    person.zip, person.country, person.latitude, person.longitude, person.timezone,
    person.created_at AT TIME ZONE 'UTC' AS created, person.klaviyo_updated_at AT TIME ZONE 'UTC' AS updated,
    person.last_event_date AT TIME ZONE 'UTC' AS last_event_date, person.deleted_at IS NOT NULL AS _fivetran_deleted,
    {synced} AS _fivetran_synced, person.source AS custom_source,
    person.consent AS subscriptions_email_marketing_consent,
    person.consent_timestamp AT TIME ZONE 'UTC' AS subscriptions_email_marketing_consent_timestamp
FROM {members} AS person
WHERE person.esp_integration_id = {account}
"""
# $message is the ID of a campaign, of one of its messages, or of a message of a flow; its key is found in one of three
# tables. If it is in no table, it keeps the ID of the properties or, where these are not stored, the key. A message of
# a campaign can have a placeholder among campaigns, too.
_EVENT = """
SELECT {stable_id} AS id, coalesce(person.id, event.member_key, {unknown}) COLLATE "default" AS person_id,
    metric.id AS metric_id, {event_type} AS type,
    CASE WHEN of_flow.automation_key IS NULL THEN
        coalesce(message.campaign_id, campaign.id, nullif(event.properties ->> '$message', ''), event.campaign_key
            {campaign_id})
    END COLLATE "default" AS campaign_id,
    CASE WHEN of_flow.automation_key IS NOT NULL THEN
        coalesce(flow.id, flow_message.flow_id, nullif(event.properties ->> '$flow', '') {flow_id},
            of_flow.automation_key)
    END COLLATE "default" AS flow_id,
    CASE WHEN of_flow.automation_key IS NOT NULL THEN
        coalesce(flow_message.id, campaign.id, nullif(event.properties ->> '$message', ''), event.campaign_key
            {flow_message_id})
    END COLLATE "default" AS flow_message_id,
    event.properties ->> '$variation' AS _variation, event.event_at AT TIME ZONE 'UTC' AS datetime,
    event.event_at AT TIME ZONE 'UTC' AS timestamp, NULL::text AS uuid,
    CASE WHEN abs(event.value) < 1e21 THEN event.value::text END AS property_value, event.properties,
    false AS _fivetran_deleted, {synced} AS _fivetran_synced{attribution}
FROM ({events}) AS event
LEFT JOIN {metrics} AS metric ON metric.key = event.metric_key
LEFT JOIN {members} AS person
    ON person.member_key = event.member_key AND person.esp_integration_id = {account}
LEFT JOIN {campaigns} AS campaign
    ON campaign.campaign_key = event.campaign_key AND campaign.esp_integration_id = {account}
LEFT JOIN {campaign_messages} AS message
    ON message.message_key = event.campaign_key AND message.esp_integration_id = {account}
LEFT JOIN {flow_messages} AS flow_message
    ON flow_message.message_key = event.campaign_key AND flow_message.esp_integration_id = {account}
{attributions}
CROSS JOIN LATERAL (SELECT
    coalesce(event.automation_key, campaign.automation_key, flow_message.automation_key {automation_key})
) AS of_flow (automation_key)
LEFT JOIN {automations} AS flow
    ON flow.automation_key = of_flow.automation_key AND flow.esp_integration_id = {account}
"""
# An ID that could be a name becomes its digest when its person is erased. dbt would keep the event that it has stored
# with the old ID and the person's address. So the view has the digest from the beginning.
_STABLE_ID = "CASE WHEN {id} ~ {pattern} THEN {id} ELSE md5({id}) END"
_EVENTS = """
SELECT id, key, event_at, campaign_key, automation_key, member_key, metric_key, event_name, value, properties,
    __synced_at FROM {table} WHERE esp_integration_id = {account}
"""
# Fivetran has one attribution for each event: of several, the one to the latest event. The properties have it where the
# event was read before attributions were. dbt_klaviyo looks the message up in the other event. Where that one is not
# stored, because its person was erased or it is older than the history, the message becomes that of the event itself.
_ATTRIBUTIONS = """
LEFT JOIN (
    SELECT DISTINCT ON (stored.event_at, stored.event_key) stored.event_at, stored.event_key, stored.__synced_at,
        CASE WHEN touch.id IS NOT NULL THEN jsonb_strip_nulls(jsonb_build_object('$attributed_event_id', {stable_id},
            '$message', coalesce(stored.campaign_message_id, stored.flow_message_id, stored.campaign_id),
            '$flow', stored.flow_id, '$variation', stored.variation_id)) END AS document,
        CASE WHEN touch.id IS NULL THEN stored.campaign_id END AS campaign_id,
        CASE WHEN touch.id IS NULL THEN stored.automation_key END AS automation_key,
        CASE WHEN touch.id IS NULL THEN stored.flow_id END AS flow_id,
        CASE WHEN touch.id IS NULL THEN stored.flow_message_id END AS flow_message_id
    FROM {event_attributions} AS stored LEFT JOIN ({touches}) AS touch ON touch.key = stored.attributed_event_key
    WHERE stored.esp_integration_id = {account}
    ORDER BY stored.event_at, stored.event_key, touch.event_at DESC NULLS LAST, stored.key
) AS attributed ON attributed.event_at = event.event_at AND attributed.event_key = event.key
CROSS JOIN LATERAL (SELECT CASE
    WHEN jsonb_typeof(event.properties -> '$attribution' -> '$attributed_event_id') = 'string' THEN jsonb_set(
        event.properties -> '$attribution', ARRAY['$attributed_event_id'], to_jsonb({stable_id_of_properties})
    )
    ELSE event.properties -> '$attribution'
END) AS of_properties (attribution)
"""
_ID_OF_PROPERTIES = SQL("(event.properties -> '$attribution' ->> '$attributed_event_id')")
_OF_ATTRIBUTION = {  # what it adds to the query of events
    "attribution": ", CASE WHEN attributed.event_key IS NULL THEN of_properties.attribution"
    " ELSE attributed.document END AS property_attribution",
    "campaign_id": ", attributed.campaign_id",
    "flow_id": ", CASE WHEN event.campaign_key IS NULL THEN attributed.flow_id END",
    "flow_message_id": ", attributed.flow_message_id",
    "automation_key": ", CASE WHEN event.campaign_key IS NULL THEN attributed.automation_key END",
}
_TOUCHES = "SELECT id, key, event_at FROM {table} WHERE esp_integration_id = {account}"
# A dimension is up to date as of the watermark, whether or not a row changed then.
_SYNCED = """greatest({row}.__synced_at, (
        SELECT max(read.watermark) FROM {watermarks} AS read
        WHERE read.esp_integration_id = {account} AND read.table_name = {table}
    )) AT TIME ZONE 'UTC'"""
_EVENT_SYNCED = {  # an event can be attributed to another one after it was read
    False: "event.__synced_at AT TIME ZONE 'UTC'",
    True: "greatest(event.__synced_at, attributed.__synced_at) AT TIME ZONE 'UTC'",
}
_DIMENSIONS = {
    "campaign": (_CAMPAIGN, dimensions.CAMPAIGNS),
    "flow": (_FLOW, dimensions.AUTOMATIONS),
    "metric": (_METRIC, dimensions.METRICS),
    "person": (_PERSON, dimensions.MEMBERS),
}
SOURCES = {name: (table,) for name, (_, table) in _DIMENSIONS.items()} | {"event": events.EVENT_TABLES}
"""The tables that the rows of each view come from."""


def query(account: Account, view: str, has_attributions: bool) -> Composed:
    """Return the query that defines a view over an account."""
    if view == fivetran.EVENT.name:
        return _event(account, has_attributions)
    text, table = _DIMENSIONS[view]
    synced = _filled(account, _SYNCED, row=Identifier(view), table=Literal(table.name))
    return _filled(account, text, synced=synced, metric_name=_old_name(SQL("metric.name")))


def _event(account: Account, has_attributions: bool) -> Composed:
    joined = _filled(
        account,
        _ATTRIBUTIONS,
        touches=_of_all_events(account, _TOUCHES),
        stable_id=_stable_id(Identifier("touch", "id")),
        stable_id_of_properties=_stable_id(_ID_OF_PROPERTIES),
    )
    return _filled(
        account,
        _EVENT,
        stable_id=_stable_id(Identifier("event", "id")),
        unknown=Literal(fivetran.UNKNOWN),
        event_type=_old_name(SQL("coalesce(metric.name, event.event_name)")),
        events=_of_all_events(account, _EVENTS),
        synced=SQL(_EVENT_SYNCED[has_attributions]),
        attributions=joined if has_attributions else SQL(""),
        **{name: SQL(part if has_attributions else "") for name, part in _OF_ATTRIBUTION.items()},
    )


def _stable_id(event_id: Composable) -> Composed:
    return SQL(_STABLE_ID).format(id=event_id, pattern=Literal(EVENT_ID))


def _of_all_events(account: Account, text: str) -> Composed:
    each = (_filled(account, text, table=account.table(table)) for table in events.EVENT_TABLES)
    return SQL("\nUNION ALL ").join(each)


def _old_name(name: Composable) -> Composed:
    """Return the expression for the old name of a metric that Klaviyo has renamed, and for the name of any other."""
    cases = (SQL("WHEN {} THEN {}").format(new, old) for new, old in fivetran.OLD_NAMES.items())
    return SQL("CASE {0} {1} ELSE {0} END").format(name, SQL(" ").join(cases))


def _filled(account: Account, text: str, **parts: Composable) -> Composed:
    return filled(account.schema, text, account=Literal(account.integration_id), **parts)
