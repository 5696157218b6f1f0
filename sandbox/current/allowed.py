"""The fields, filters, sorts, includes and page sizes that each collection of the current dialect allows."""

from dataclasses import replace

from sandbox.current.filters import RANGE, Field
from sandbox.current.query import Collection

_IS = Field(("equals",))
_IS_OR_ANY = Field(("any", "equals"))
_FLAG = Field(("equals",), "flag")
_TIME = Field(RANGE, "time")
_AFTER = Field(("greater-than",), "time")
_BETWEEN = Field(("greater-than", "less-than"), "time")
_ANY_TIME = Field(("equals", *RANGE), "time")
_HAS = Field(("has",))
_SUPPRESSION = "subscriptions.email.marketing.suppression"
_LIST_SUPPRESSION = "subscriptions.email.marketing.list_suppressions"

ACCOUNT_FIELDS = (
    "test_account",
    "contact_information",
    "industry",
    "timezone",
    "preferred_currency",
    "public_api_key",
    "locale",
)
METRIC_FIELDS = ("name", "created", "updated", "integration")
EVENT_FIELDS = ("timestamp", "datetime", "event_properties", "uuid", "id")
FLOW_FIELDS = ("name", "status", "archived", "created", "updated", "trigger_type")
TAG_FIELDS = ("name",)
TAG_GROUP_FIELDS = ("name", "exclusive", "default")
FLOW_ACTION_FIELDS = ("definition", "created", "updated")
MESSAGE_FIELDS = ("definition", "send_times", "created_at", "updated_at")
LIST_FIELDS = ("name", "created", "updated", "opt_in_process")
SEGMENT_FIELDS = ("name", "definition", "created", "updated", "is_active", "is_processing", "is_starred")
CAMPAIGN_FIELDS = (
    "name",
    "status",
    "archived",
    "audiences",
    "send_options",
    "tracking_options",
    "send_strategy",
    "created_at",
    "scheduled_at",
    "updated_at",
    "send_time",
)
PROFILE_FIELDS = (
    "email",
    "phone_number",
    "external_id",
    "first_name",
    "last_name",
    "organization",
    "locale",
    "title",
    "image",
    "created",
    "updated",
    "last_event_date",
    "location",
    "properties",
)
_PROFILE_ADDITIONAL = ("subscriptions", "predictive_analytics")
_MEMBER_FIELDS = (*PROFILE_FIELDS, *_PROFILE_ADDITIONAL, "joined_group_at")

ACCOUNTS = Collection("account", {"account": ACCOUNT_FIELDS}, page_size=0, max_page_size=0)
METRICS = Collection(
    "metric",
    {"metric": METRIC_FIELDS, "flow": FLOW_FIELDS},
    filters={"integration.name": _IS, "integration.category": _IS},
    includes=("flow-triggers",),
    page_size=200,
    max_page_size=0,
)
_CUSTOM_METRIC_FIELDS = ("name", "created", "updated", "definition")
CUSTOM_METRICS = Collection(
    "custom-metric",
    {"custom-metric": _CUSTOM_METRIC_FIELDS, "metric": METRIC_FIELDS},
    includes=("metrics",),
    page_size=0,
    max_page_size=0,
)
MAPPED_METRICS = Collection(
    "mapped-metric",
    {"mapped-metric": ("updated",), "metric": METRIC_FIELDS, "custom-metric": _CUSTOM_METRIC_FIELDS},
    includes=("custom-metric", "metric"),
    page_size=0,
    max_page_size=0,
)
EVENTS = Collection(
    "event",
    {
        "event": EVENT_FIELDS,
        "profile": (*PROFILE_FIELDS, *_PROFILE_ADDITIONAL),
        "metric": METRIC_FIELDS,
        "attribution": (),
    },
    filters={
        "metric_id": _IS,
        "profile_id": _IS,
        "profile": _HAS,
        "metric": _HAS,
        "datetime": _TIME,
        "timestamp": Field(RANGE, "number"),
    },
    sorts=("datetime", "timestamp"),
    includes=("attributions", "metric", "profile"),
    page_size=200,
    max_page_size=1000,
)
CAMPAIGNS = Collection(
    "campaign",
    {"campaign": CAMPAIGN_FIELDS, "campaign-message": MESSAGE_FIELDS, "tag": TAG_FIELDS},
    filters={
        "messages.channel": _IS,
        "id": Field(("any",)),
        "name": Field(("contains",)),
        "status": _IS_OR_ANY,
        "archived": _FLAG,
        "created_at": _TIME,
        "scheduled_at": _TIME,
        "updated_at": _TIME,
    },
    sorts=("created_at", "id", "name", "scheduled_at", "updated_at"),
    includes=("campaign-messages", "tags"),
    page_size=100,
)
CAMPAIGN_MESSAGES = Collection(
    "campaign-message",
    {"campaign-message": MESSAGE_FIELDS, "campaign": CAMPAIGN_FIELDS, "template": (), "image": ()},
    includes=("campaign", "image", "template"),
    page_size=0,
    max_page_size=0,
)
_OMNICHANNEL_CAMPAIGN_FIELDS = ("created_at", "updated_at", "definition")
_DEFINITION_FIELDS = ("created", "updated", "definition")
OMNICHANNEL_CAMPAIGNS = Collection(
    "campaign",
    {
        "campaign": _OMNICHANNEL_CAMPAIGN_FIELDS,
        "campaign-audience": _DEFINITION_FIELDS,
        "campaign-message": _DEFINITION_FIELDS,
        "tag": TAG_FIELDS,
    },
    filters={
        "id": Field(("any",)),
        "name": Field(("contains",)),
        "archived": _FLAG,
        "builder": _IS,
        "created_at": _TIME,
        "updated_at": _TIME,
    },
    sorts=("created_at", "id", "name", "updated_at"),
    includes=("campaign-audiences", "campaign-messages", "tags"),
    page_size=100,
)
OMNICHANNEL_MESSAGES = Collection(
    "campaign-message",
    {
        "campaign-message": _DEFINITION_FIELDS,
        "campaign": _OMNICHANNEL_CAMPAIGN_FIELDS,
        "campaign-variation": _DEFINITION_FIELDS,
    },
    filters={
        "id": _IS_OR_ANY,
        "campaign_id": _IS,
        "name": Field(("contains",)),
        "status": _IS,
        "created": _TIME,
        "updated": _TIME,
    },
    sorts=("created", "id", "name", "status", "updated"),
    includes=("campaign", "campaign-variations"),
)
VARIATIONS = Collection("campaign-variation", {"campaign-variation": _DEFINITION_FIELDS}, page_size=0, max_page_size=0)
FLOWS = Collection(
    "flow",
    {"flow": FLOW_FIELDS, "flow-action": FLOW_ACTION_FIELDS, "tag": TAG_FIELDS},
    filters={
        "id": Field(("any",)),
        "name": Field(("contains", "ends-with", "equals", "starts-with")),
        "status": _IS,
        "archived": _FLAG,
        "created": _ANY_TIME,
        "updated": _ANY_TIME,
        "trigger_type": _IS,
    },
    sorts=("created", "id", "name", "status", "trigger_type", "updated"),
    includes=("flow-actions", "tags"),
    page_size=50,
    max_page_size=50,
)
LISTS = Collection(
    "list",
    {"list": LIST_FIELDS, "flow": FLOW_FIELDS, "tag": TAG_FIELDS},
    filters={"name": _IS_OR_ANY, "id": _IS_OR_ANY, "created": _AFTER, "updated": _AFTER},
    sorts=("created", "id", "name", "updated"),
    includes=("flow-triggers", "tags"),
    page_size=10,
    max_page_size=10,
)
SEGMENTS = Collection(
    "segment",
    {"segment": SEGMENT_FIELDS, "flow": FLOW_FIELDS, "tag": TAG_FIELDS},
    filters={**LISTS.filters, "is_active": _FLAG, "is_starred": _FLAG},
    sorts=LISTS.sorts,
    includes=LISTS.includes,
    page_size=10,
    max_page_size=10,
)
TAGS = Collection(
    "tag",
    {"tag": TAG_FIELDS, "tag-group": TAG_GROUP_FIELDS},
    filters={"name": Field(("contains", "ends-with", "equals", "starts-with"))},
    sorts=("id", "name"),
    includes=("tag-group",),
    page_size=50,
    max_page_size=0,
)
LIST = replace(LISTS.single(), additional={"list": ("profile_count",)})
SEGMENT = replace(SEGMENTS.single(), additional={"segment": ("profile_count",)})
PROFILES = Collection(
    "profile",
    {"profile": (*PROFILE_FIELDS, *_PROFILE_ADDITIONAL), "push-token": (), "conversation": ()},
    filters={
        "id": _IS_OR_ANY,
        "email": _IS_OR_ANY,
        "phone_number": _IS_OR_ANY,
        "external_id": _IS_OR_ANY,
        "created": _BETWEEN,
        "updated": _BETWEEN,
        f"{_SUPPRESSION}.reason": _IS,
        f"{_SUPPRESSION}.timestamp": _TIME,
        f"{_LIST_SUPPRESSION}.reason": _IS,
        f"{_LIST_SUPPRESSION}.timestamp": _TIME,
        f"{_LIST_SUPPRESSION}.list_id": _IS,
    },
    sorts=(
        "created",
        "email",
        "id",
        "updated",
        f"{_SUPPRESSION}.timestamp",
        f"{_LIST_SUPPRESSION}.timestamp",
    ),
    includes=("conversations", "push-tokens"),
    additional={"profile": _PROFILE_ADDITIONAL},
)
LIST_PROFILES = Collection(
    "profile",
    {"profile": _MEMBER_FIELDS},
    filters={
        "email": _IS_OR_ANY,
        "phone_number": _IS_OR_ANY,
        "push_token": _IS_OR_ANY,
        "_kx": _IS,
        "joined_group_at": _TIME,
    },
    sorts=("joined_group_at",),
    additional={"profile": _PROFILE_ADDITIONAL},
)
SEGMENT_PROFILES = Collection(
    "profile",
    {"profile": _MEMBER_FIELDS},
    filters={**LIST_PROFILES.filters, "profile_id": _IS_OR_ANY},
    sorts=LIST_PROFILES.sorts,
    additional=LIST_PROFILES.additional,
)
LIST_PROFILE_IDS = replace(LIST_PROFILES, fields={}, additional={})
SEGMENT_PROFILE_IDS = replace(SEGMENT_PROFILES, fields={}, additional={})
TEMPLATES = Collection(
    "template",
    {"template": ("name", "editor_type", "html", "text", "amp", "created", "updated", "screenshot_url")},
    filters={
        "id": _IS_OR_ANY,
        "name": Field(("any", "contains", "equals")),
        "created": _ANY_TIME,
        "updated": _ANY_TIME,
    },
    sorts=("created", "id", "name", "updated"),
    page_size=10,
    max_page_size=10,
)
FORMS = Collection(
    "form",
    {"form": ("name", "status", "ab_test", "created_at", "updated_at")},
    filters={
        "id": _IS_OR_ANY,
        "name": Field(("any", "contains", "equals")),
        "ab_test": _FLAG,
        "updated_at": _TIME,
        "created_at": _TIME,
        "status": _IS,
    },
    sorts=("created_at", "updated_at"),
)
FORM_VERSIONS = Collection(
    "form-version",
    {"form-version": ("form_type", "variation_name", "ab_test", "status", "created_at", "updated_at")},
    filters={"form_type": _IS_OR_ANY, "status": _IS, "updated_at": _TIME, "created_at": _TIME},
    sorts=("created_at", "updated_at"),
)
IMAGES = Collection(
    "image",
    {"image": ("name", "image_url", "format", "size", "hidden", "updated_at")},
    filters={
        "id": _IS_OR_ANY,
        "updated_at": _TIME,
        "format": _IS_OR_ANY,
        "name": Field(("any", "contains", "ends-with", "equals", "starts-with")),
        "size": Field(RANGE, "number"),
        "hidden": _FLAG,
    },
    sorts=("format", "id", "name", "size", "updated_at"),
)
_PRODUCT = (
    *("external_id", "title", "description", "price", "url", "image_full_url", "image_thumbnail_url", "images"),
    *("custom_metadata", "published", "created", "updated"),
)
_VARIANT = (*_PRODUCT, "sku", "inventory_policy", "inventory_quantity")
_COUPON = ("external_id", "description", "monitor_configuration")
_ANY = Field(("any",))
_CONTAINS = Field(("contains",))
CATALOG_ITEMS = Collection(
    "catalog-item",
    {"catalog-item": _PRODUCT, "catalog-variant": _VARIANT},
    filters={"ids": _ANY, "category.id": _IS, "title": _CONTAINS, "published": _FLAG},
    sorts=("created",),
    includes=("variants",),
    page_size=100,
)
CATALOG_VARIANTS = Collection(
    "catalog-variant",
    {"catalog-variant": _VARIANT},
    filters={"ids": _ANY, "item.id": _IS, "sku": _IS, "title": _CONTAINS, "published": _FLAG},
    sorts=("created",),
    page_size=100,
)
CATALOG_CATEGORIES = Collection(
    "catalog-category",
    {"catalog-category": ("external_id", "name", "updated")},
    filters={"ids": _ANY, "item.id": _IS, "name": _CONTAINS},
    sorts=("created",),
    page_size=100,
)
COUPONS = Collection("coupon", {"coupon": _COUPON}, page_size=100)
COUPON_CODES = Collection(
    "coupon-code",
    {"coupon-code": ("unique_code", "expires_at", "status"), "coupon": _COUPON},
    filters={"expires_at": _TIME, "status": _IS, "coupon.id": _IS_OR_ANY, "profile.id": _IS_OR_ANY},
    page_size=100,
)
REVIEWS = Collection(
    "review",
    {
        "review": (
            *("email", "status", "verified", "review_type", "created", "updated", "images", "product", "rating"),
            *("author", "content", "title", "smart_quote", "public_reply"),
        ),
        "event": EVENT_FIELDS,
    },
    filters={
        "created": Field(("greater-or-equal", "less-or-equal"), "time"),
        "rating": Field(("any", "equals", "greater-or-equal", "less-or-equal"), "number"),
        "id": _IS_OR_ANY,
        "item.id": _IS_OR_ANY,
        "content": _CONTAINS,
        "review_type": _IS,
        "verified": _FLAG,
    },
    sorts=("created", "rating", "updated"),
)
PUSH_TOKENS = Collection(
    "push-token",
    {
        "push-token": (
            *("created", "token", "enablement_status", "platform", "vendor", "background", "recorded_date"),
            "metadata",
        ),
        "profile": PROFILE_FIELDS,
    },
    filters={"id": _IS, "profile.id": _IS, "enablement_status": _IS, "platform": _IS},
    includes=("profile",),
)
