"""The specified tables, written out again, because others depend on the names and order of their columns."""

import re

import pytest

from klaviyo_pg.catalogue import ADDED, BOOKKEEPING, DATA, STORED, TABLES, Load, Table, events, loads
from klaviyo_pg.catalogue.types import FILLED_IN
from klaviyo_pg.klaviyo.current.reports import STATISTICS

ORIGIN = "esp_source esp_integration_id __synced_at"
EVENT = (
    f"key id campaign_key automation_key member_key list_key email event_at {ORIGIN} "
    "metric_key event_name value value_currency properties extracted_at "
    "is_machine_open is_bot_click variation email_domain channel"
)
PRODUCT = (
    "external_id title description price url image_full_url image_thumbnail_url custom_metadata is_published "
    "created_at updated_at"
)
PREDICTED = (
    "historic_clv predicted_clv total_clv historic_number_of_orders predicted_number_of_orders "
    "average_days_between_orders average_order_value churn_probability"
)
EXCLUSION = "reason created_at _account_id _sync_id __synced_at email esp_integration_id member_id"
SHARES = {name for name in STATISTICS if name.endswith("_rate")} | {"text_message_roi"}
MONEY = {
    "conversion_value",
    "average_order_value",
    "revenue_per_recipient",
    "text_message_spend",
    "text_message_credit_usage_amount",
}
COLUMNS = {
    "metrics": (
        f"key id name source destination created_at updated_at {ORIGIN} deleted_at integration_id integration_name"
    ),
    "campaigns": (
        "key id name parent_campaign_key automation_key automation_position list_key from_email from_name subject "
        f"status sent_at campaign_type type created_at updated_at {ORIGIN} campaign_key deleted_at "
        "archived scheduled_at first_list_key is_placeholder"
    ),
    "automations": (
        f"key id name created_at updated_at status {ORIGIN} automation_key deleted_at archived trigger_type "
        "is_placeholder"
    ),
    "lists": f"key id name list_type status rating created_at updated_at archived_at {ORIGIN} deleted_at",
    "campaign_lists": f"key id list_id campaign_id {ORIGIN} audience",
    "members": (
        "key id email timezone first_name last_name source predict_user_id address1 address2 city state zip country "
        f"phone_number longitude latitude consent consent_timestamp created_at updated_at {ORIGIN} member_key "
        "external_id organization title locale last_event_date klaviyo_updated_at deleted_at left_reason details_digest"
    ),
    "member_attributes": f"key id member_key name value created_at updated_at {ORIGIN}",
    "sends": EVENT,
    "bounces": EVENT,
    "opens": EVENT,
    "clicks": EVENT,
    "spams": EVENT,
    "unsubscribes": EVENT,
    "events": EVENT,
    "stg_member_exclusions": EXCLUSION,
    "member_exclusions": f"{EXCLUSION} removed_at",
    "stg_member_lists": (
        "list_id member_id created_at _account_id _sync_id __synced_at esp_integration_id is_subscribed absent_since"
    ),
    "member_lists": f"key id list_id member_id subscribed unsubscribed_at {ORIGIN} is_subscribed left_reason joined_at",
    "member_consents": (
        "key id member_id member_key channel consent can_receive method method_detail consent_timestamp updated_at "
        f"double_optin {ORIGIN}"
    ),
    "list_suppressions": "esp_integration_id list_id member_id reason suppressed_at lifted_at __synced_at",
    "profile_merges": (
        "esp_integration_id old_member_key new_member_key old_member_id new_member_id detected_at events_moved_at"
    ),
    "event_attributions": (
        "key id event_key event_at attributed_event_key campaign_id campaign_key campaign_message_id "
        "campaign_message_key flow_id automation_key flow_message_id flow_message_key variation_id variation_key "
        f"{ORIGIN} extracted_at"
    ),
    "accounts": f"key id name website industry timezone currency locale is_test {ORIGIN}",
    "custom_metrics": (
        f"key id name aggregation_method metric_ids definition created_at updated_at {ORIGIN} deleted_at"
    ),
    "mapped_metrics": (
        f"key id metric_id metric_key custom_metric_id custom_metric_key updated_at {ORIGIN} deleted_at"
    ),
    "campaign_messages": (
        "key id campaign_id campaign_key message_key channel label subject preview_text body from_email from_name "
        "reply_to_email template_id status send_at last_send_at is_local variation_of created_at updated_at "
        f"{ORIGIN} deleted_at"
    ),
    "flow_actions": (
        "key id flow_id automation_key action_type status next_id next_if_true_id next_if_false_id definition "
        f"created_at updated_at {ORIGIN} deleted_at"
    ),
    "flow_messages": (
        "key id flow_id automation_key flow_action_id message_key channel name subject preview_text body from_email "
        "from_name reply_to_email template_id status is_transactional uses_smart_sending is_variation "
        f"created_at updated_at {ORIGIN} deleted_at"
    ),
    "tags": f"key id name tag_group_id tag_group_key {ORIGIN} deleted_at",
    "tag_groups": f"key id name is_exclusive is_default {ORIGIN} deleted_at",
    "tagged_objects": f"key id tag_id tag_key object_type object_id object_key {ORIGIN} deleted_at",
    "segments": f"key id name is_active is_starred is_processing created_at updated_at {ORIGIN} deleted_at",
    "segment_members": f"key id segment_id segment_key member_id member_key joined_at left_at {ORIGIN}",
    "templates": f"key id name editor_type html text created_at updated_at {ORIGIN} deleted_at",
    "forms": f"key id name status is_ab_test created_at updated_at {ORIGIN} deleted_at",
    "form_versions": (
        "key id form_id form_key form_type variation_name ab_test_variation status created_at updated_at "
        f"{ORIGIN} deleted_at"
    ),
    "images": f"key id name image_url format size is_hidden updated_at {ORIGIN} deleted_at",
    "campaign_reports": (
        "key sent_on campaign_id campaign_key campaign_message_id message_key send_channel variation_id "
        f"conversion_metric_id conversion_metric_key {' '.join(STATISTICS)} {ORIGIN} deleted_at"
    ),
    "flow_reports": (
        "key sent_on flow_id automation_key flow_message_id message_key send_channel variation_id "
        f"conversion_metric_id conversion_metric_key {' '.join(STATISTICS)} {ORIGIN} deleted_at"
    ),
    "catalog_items": f"key id {PRODUCT} {ORIGIN} deleted_at",
    "catalog_variants": (
        f"key id item_id item_key sku inventory_policy inventory_quantity {PRODUCT} {ORIGIN} deleted_at"
    ),
    "catalog_categories": f"key id external_id name updated_at {ORIGIN} deleted_at",
    "coupons": f"key id external_id description {ORIGIN} deleted_at",
    "coupon_codes": (
        f"key id coupon_id coupon_key unique_code status expires_at member_id member_key {ORIGIN} deleted_at"
    ),
    "reviews": (
        "key id item_id item_key review_type status rejection_reason rating is_verified email author title content "
        "smart_quote images product_name product_url product_external_id reply replied_at created_at updated_at "
        f"{ORIGIN} deleted_at"
    ),
    "push_tokens": (
        "key id member_id member_key token_hash platform vendor enablement_status background created_at "
        f"{ORIGIN} deleted_at"
    ),
    "member_predictions": f"key id member_key {PREDICTED} expected_date_of_next_order ranked_channels {ORIGIN}",
}
TYPES = {
    "details_digest": "bigint",
    "properties": "jsonb",
    "metric_ids": "jsonb",
    "definition": "jsonb",
    "is_test": "boolean",
    "price": "numeric",
    "inventory_quantity": "numeric",
    "inventory_policy": "bigint",
    "custom_metadata": "jsonb",
    "images": "jsonb",
    "reviews.rating": "bigint",
    "is_verified": "boolean",
    **dict.fromkeys(PREDICTED.split(), "numeric"),
    "expected_date_of_next_order": "timestamp with time zone",
    "is_published": "boolean",
    "longitude": "double precision",
    "latitude": "double precision",
    "is_subscribed": "boolean",
    "absent_since": "timestamp with time zone",
    "subscribed": "timestamp with time zone",
    "consent_timestamp": "timestamp with time zone",
    "last_event_date": "timestamp with time zone",
    "can_receive": "boolean",
    "double_optin": "boolean",
    "archived": "boolean",
    "is_local": "boolean",
    "is_transactional": "boolean",
    "uses_smart_sending": "boolean",
    "is_variation": "boolean",
    "is_machine_open": "boolean",
    "is_placeholder": "boolean",
    "is_bot_click": "boolean",
    "is_exclusive": "boolean",
    "is_default": "boolean",
    "is_ab_test": "boolean",
    "is_hidden": "boolean",
    "size": "bigint",
    "is_active": "boolean",
    "is_starred": "boolean",
    "is_processing": "boolean",
    "sent_on": "date",
    **{name: "numeric" if name in MONEY else "double precision" if name in SHARES else "bigint" for name in STATISTICS},
}
LOADS = [load for load in vars(loads).values() if isinstance(load, Load)] + list(loads.EVENTS.values())


def test_all_specified_tables_exist_with_unique_names() -> None:
    assert [table.name for table in DATA] == list(COLUMNS)
    assert len({table.name for table in TABLES}) == len(TABLES) == 18 + len(ADDED) + len(STORED) + len(BOOKKEEPING)


@pytest.mark.parametrize("table", DATA, ids=lambda table: table.name)
def test_columns_have_the_specified_names_and_order(table: Table) -> None:
    assert list(table.column_names) == COLUMNS[table.name].split()


@pytest.mark.parametrize("table", DATA, ids=lambda table: table.name)
def test_columns_have_the_specified_types(table: Table) -> None:
    """Times are timestamptz, almost everything else is text."""
    for column in table.columns:
        if table in events.EVENT_TABLES and column.name == "value":
            continue
        usual = "timestamp with time zone" if column.name.endswith(("_at", "synced_at")) else "text"
        expected = TYPES.get(f"{table.name}.{column.name}", TYPES.get(column.name, usual))
        assert column.type.sql.partition(" COLLATE")[0] == expected, column.name


def test_the_value_of_an_event_is_a_number() -> None:
    """Its type is numeric, which loses no digits."""
    assert {column.type.sql for column in events.EVENTS.columns if column.name == "value"} == {"numeric"}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_names_are_unique_and_primary_keys_are_columns(table: Table) -> None:
    """Otherwise Postgres could not create the table."""
    assert len(set(table.column_names)) == len(table.column_names)
    assert set(table.primary_key) <= set(table.column_names)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_descriptions_are_sentences(table: Table) -> None:
    """The description of a column can also be the expression for its value."""
    assert re.fullmatch(r"[A-Z].*\.", table.description)
    for column in table.columns:
        assert re.fullmatch(r".*\.|md5\(.*\)|.* \|\| .*", column.description), column.name


@pytest.mark.parametrize("table", DATA, ids=lambda table: table.name)
def test_columns_name_their_source(table: Table) -> None:
    """Only a column that is always null has none."""
    for column in table.columns:
        if column.description != "Always null.":
            assert column.current or column.legacy, column.name


def test_event_tables_have_the_same_columns() -> None:
    """They differ in name, description and metrics only, and each metric name has one table."""
    assert len({table.columns for table in events.EVENT_TABLES}) == 1
    assert len({table.primary_key for table in events.EVENT_TABLES}) == 1
    names = [name for table in events.EVENT_TABLES for name in table.metric_names]
    assert len(set(names)) == len(names)
    assert all(events.destination(name) == table.name for table in events.EVENT_TABLES for name in table.metric_names)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load.table.name}-{len(load.columns)}")
def test_loads_refer_to_columns_of_their_table(load: Load) -> None:
    """The primary key is part of the loaded rows or filled in by the database."""
    named = {*load.omits, *load.merges, *load.absent_where, *(name for each in load.update_where for name in each)}
    named |= {name for name in (load.newer_by, load.absent_per) if name}
    assert named <= set(load.table.column_names)
    assert set(load.table.primary_key) <= set(load.schema) | FILLED_IN


@pytest.mark.parametrize("load", loads.DETAILS, ids=lambda load: load.table.name)
def test_the_details_of_a_person_are_found_by_an_index(load: Load) -> None:
    """Otherwise a batch with one changed person would read the details of everyone."""
    indexes = [tuple(name for name in load.table.primary_key if name != "esp_integration_id"), *load.table.indexes]
    assert load.absent_per in {columns[0] for columns in indexes}
