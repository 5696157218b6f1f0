"""The tables of the account itself, and of the metrics that it has defined."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, ORIGIN
from klaviyo_pg.catalogue.types import BOOLEAN, JSON, KEY, TEXT, TIMESTAMP, Column, Table

ACCOUNTS = Table(
    "accounts",
    "One row for each Klaviyo account, as Klaviyo describes it. See integrations for its name in this warehouse.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the account.", "id", "", personal=Harmless.ID),
        Column(
            "name",
            TEXT,
            "Name of the company.",
            "contact_information.organization_name",
            "",
            personal=Personal.CHECKED,
        ),
        Column(
            "website", TEXT, "Address of its website.", "contact_information.website_url", "", personal=Personal.CHECKED
        ),
        Column("industry", TEXT, "Industry.", "industry", "", personal=Personal.CHECKED),
        Column(
            "timezone",
            TEXT,
            "Name of the time zone of Klaviyo's own reports.",
            "timezone",
            "",
            personal=Personal.CHECKED,
        ),
        Column(
            "currency", TEXT, "Currency of Klaviyo's own reports.", "preferred_currency", "", personal=Personal.CURRENCY
        ),
        Column("locale", TEXT, "Language and region, such as en-US.", "locale", "", personal=Personal.CHECKED),
        Column("is_test", BOOLEAN, "True for an account for tests.", "test_account", ""),
        *ORIGIN,
    ),
)
CUSTOM_METRICS = Table(
    "custom_metrics",
    "One row for each custom metric: several metrics, or some of their events, that reports count as one.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the custom metric.", "id", "", personal=Harmless.ID),
        Column("name", TEXT, "Name of the custom metric.", "name", "", personal=Personal.CHECKED),
        Column(
            "aggregation_method",
            TEXT,
            "'value' if it adds up values, as for revenue; 'count' if it counts events.",
            "definition.aggregation_method",
            "",
            personal=Personal.CHECKED,
        ),
        Column(
            "metric_ids",
            JSON,
            "IDs of the metrics that it consists of: a list.",
            "definition.metric_groups",
            "",
            personal=Harmless.ID,
        ),
        Column("definition", JSON, "Whole definition, with its filters.", "definition", "", personal=Personal.JSON),
        Column("created_at", TIMESTAMP, "When the custom metric was created.", "created", ""),
        Column("updated_at", TIMESTAMP, "When the custom metric last changed.", "updated", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)
MAPPED_METRICS = Table(
    "mapped_metrics",
    "One row for each purpose, such as revenue, with the metric that the account uses for it.",
    (
        KEY_OF_ID,
        Column(
            "id",
            TEXT,
            "Purpose: 'revenue', 'ordered_product', 'started_checkout', 'refunded_sales' and so on.",
            "id",
            "",
            personal=Harmless.ID,
        ),
        Column(
            "metric_id",
            TEXT,
            "Klaviyo's ID of the metric; null without a metric, or for a custom one.",
            "relationships.metric",
            "",
            personal=Harmless.ID,
        ),
        Column("metric_key", KEY, "Key of the metric; joins to metrics.key.", "computed", "", personal=Harmless.KEY),
        Column(
            "custom_metric_id",
            TEXT,
            "Klaviyo's ID of the custom metric; null for an ordinary one.",
            "relationships.custom-metric",
            "",
            personal=Harmless.ID,
        ),
        Column(
            "custom_metric_key",
            KEY,
            "Key of the custom metric; joins to custom_metrics.key.",
            "computed",
            "",
            personal=Harmless.KEY,
        ),
        Column("updated_at", TIMESTAMP, "When the mapping last changed.", "updated", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)
