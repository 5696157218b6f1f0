"""The tables that are filled only if TABLES asks for them: catalog, coupons, reviews, push tokens, predictions."""

from dataclasses import replace

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, MEMBER_KEY, ORIGIN
from klaviyo_pg.catalogue.types import BOOLEAN, INTEGER, JSON, KEY, NUMERIC, TEXT, TIMESTAMP, Column, Table


def _id(what: str) -> Column:
    return Column("id", TEXT, f"Klaviyo's ID of {what}.", "id", "", personal=Harmless.ID)


def _related(name: str, what: str, path: str) -> tuple[Column, Column]:
    """Return the ID of another row, and its key."""
    table = {"coupon": "coupons", "item": "catalog_items"}[name]
    return (
        Column(f"{name}_id", TEXT, f"ID of {what}.", path, "", personal=Harmless.ID),
        Column(
            f"{name}_key",
            KEY,
            f"Key of {what}; joins to {table}.key.",
            "computed",
            "",
            personal=Harmless.KEY,
        ),
    )


def _text(name: str, description: str, current: str = "") -> Column:
    return Column(name, TEXT, description, current or name, "", personal=Personal.CHECKED)


def _shops_id(name: str, description: str, current: str = "") -> Column:
    return Column(name, TEXT, description, current or name, "", personal=Harmless.PRODUCT)


def _words(name: str, description: str, current: str) -> Column:
    """Return a column with what a person has written, or says about one."""
    return Column(name, TEXT, description, current, "", personal=Personal.TEXT)


def _member(description: str) -> tuple[Column, Column]:
    return Column("member_id", TEXT, description, "relationships.profile", "", personal=Harmless.ID), MEMBER_KEY


def _time(name: str, description: str, current: str) -> Column:
    return Column(name, TIMESTAMP, description, current, "")


def _product(what: str) -> tuple[Column, ...]:
    """Return the columns that items of the catalog and their variants have."""
    return (
        _shops_id("external_id", f"ID of {what} in the shop."),
        _text("title", f"Title of {what}."),
        _text("description", f"Description of {what}."),
        Column("price", NUMERIC, "Price as shown, without a currency, which the catalog does not have.", "price", ""),
        _text("url", "Address of its page in the shop."),
        _text("image_full_url", "Address of its picture."),
        _text("image_thumbnail_url", "Address of the small picture."),
        Column("custom_metadata", JSON, "What else the shop says.", "custom_metadata", "", personal=Personal.JSON),
        Column("is_published", BOOLEAN, "False if it may not be shown.", "published", ""),
        _time("created_at", f"When {what} was created.", "created"),
        _time("updated_at", f"When {what} last changed.", "updated"),
    )


CATALOG_ITEMS = Table(
    "catalog_items",
    "One row for each item of the catalog. Filled if TABLES asks for it.",
    (KEY_OF_ID, _id("the item"), *_product("the item"), *ORIGIN, DELETED_AT),
)
CATALOG_VARIANTS = Table(
    "catalog_variants",
    "One row for each variant of an item of the catalog, such as a size. The requests for items bring it.",
    (
        KEY_OF_ID,
        _id("the variant"),
        *_related("item", "the item", "relationships.item"),
        _shops_id("sku", "SKU of the variant."),
        Column(
            "inventory_policy",
            INTEGER,
            "1: not shown when out of stock; 0 and 2: shown whatever the stock is.",
            "inventory_policy",
            "",
        ),
        Column("inventory_quantity", NUMERIC, "Number in stock.", "inventory_quantity", ""),
        *_product("the variant"),
        *ORIGIN,
        DELETED_AT,
    ),
)
CATALOG_CATEGORIES = Table(
    "catalog_categories",
    "One row for each category of the catalog. Filled if TABLES asks for it.",
    (
        KEY_OF_ID,
        _id("the category"),
        _shops_id("external_id", "ID of the category in the shop."),
        _text("name", "Name of the category."),
        _time("updated_at", "When the category last changed.", "updated"),
        *ORIGIN,
        DELETED_AT,
    ),
)
COUPONS = Table(
    "coupons",
    "One row for each coupon. Filled if TABLES asks for it.",
    (
        KEY_OF_ID,
        _id("the coupon"),
        _text("external_id", "ID of the coupon in the shop."),
        _text("description", "Description of the coupon."),
        *ORIGIN,
        DELETED_AT,
    ),
)
COUPON_CODES = Table(
    "coupon_codes",
    "One row for each code of a coupon, of which there can be millions. Filled if TABLES asks for it.",
    (
        KEY_OF_ID,
        _id("the code"),
        *_related("coupon", "the coupon", "relationships.coupon"),
        _text("unique_code", "The code that a customer enters."),
        _text("status", "ASSIGNED_TO_PROFILE, USED, UNASSIGNED, DELETING, PROCESSING or VERSION_NOT_ACTIVE."),
        _time("expires_at", "When the code expires.", "expires_at"),
        *_member("Profile that the code is assigned to; null if to none."),
        *ORIGIN,
        DELETED_AT,
    ),
    indexes=(("coupon_key",), ("member_key",)),
)
REVIEWS = Table(
    "reviews",
    "One row for each review, rating or question about an item. Filled if TABLES asks for it.",
    (
        KEY_OF_ID,
        _id("the review"),
        *_related("item", "the item of the catalog", "relationships.item"),
        _text("review_type", "review, rating, question or store."),
        _text("status", "Whether it is shown, such as published, pending or rejected.", "status.value"),
        _words("rejection_reason", "Why it is not shown.", "status.rejection_reason.reason"),
        Column("rating", INTEGER, "1 to 5; null for questions.", "rating", ""),
        Column("is_verified", BOOLEAN, "True if the author is known to have bought the item.", "verified", ""),
        Column("email", TEXT, "Address of the author.", "email", "", personal=Personal.ADDRESS),
        _words("author", "Name of the author.", "author"),
        _words("title", "Title of the review.", "title"),
        _words("content", "Text of the review.", "content"),
        _words("smart_quote", "Sentence that Klaviyo chose from the text.", "smart_quote"),
        Column("images", JSON, "Addresses of the author's pictures.", "images", "", personal=Personal.JSON),
        _text("product_name", "Name of the item when the review was written.", "product.name"),
        _text("product_url", "Address of the item.", "product.url"),
        _shops_id("product_external_id", "ID of the item in the shop.", "product.external_id"),
        _words("reply", "Public reply to the review.", "public_reply.content"),
        _time("replied_at", "When the reply last changed.", "public_reply.updated"),
        _time("created_at", "When the review was written.", "created"),
        _time("updated_at", "When the review last changed.", "updated"),
        *ORIGIN,
        DELETED_AT,
    ),
)
PUSH_TOKENS = Table(
    "push_tokens",
    "One row for each device that receives push notifications, whatever its owner consented to: those that may be used "
    "are in usable_push_tokens. The token is not stored. Filled if TABLES asks for it.",
    (
        KEY_OF_ID,
        _id("the push token"),
        *_member("Profile of the owner."),
        Column("token_hash", TEXT, "SHA-256 of the token.", "token", "", personal=Harmless.KEY),
        _text("platform", "ios or android."),
        _text("vendor", "APNs or FCM."),
        _text("enablement_status", "AUTHORIZED, PROVISIONAL, DENIED, UNAUTHORIZED or NOT_DETERMINED."),
        _text("background", "Whether the device may be updated in the background: AVAILABLE, DENIED or RESTRICTED."),
        _time("created_at", "When the token was created.", "created"),
        *ORIGIN,
        DELETED_AT,
    ),
    indexes=(("member_key",),),
)


def _number(name: str, description: str) -> Column:
    return Column(name, NUMERIC, description, f"predictive_analytics.{name}", "")


MEMBER_PREDICTIONS = Table(
    "member_predictions",
    "One row for each person: Klaviyo's predictions, which are null where it has none. Filled if TABLES asks for it. "
    "Whether Klaviyo still has the person is in members.deleted_at.",
    (
        replace(KEY_OF_ID, description=f"{KEY_OF_ID.description}; joins to members.key."),
        _id("the profile"),
        MEMBER_KEY,
        _number("historic_clv", "Value of all orders so far."),
        _number("predicted_clv", "Predicted value of the orders in the next 365 days."),
        _number("total_clv", "Sum of historic_clv and predicted_clv."),
        _number("historic_number_of_orders", "Number of orders so far."),
        _number("predicted_number_of_orders", "Predicted number of orders in the next 365 days."),
        _number("average_days_between_orders", "Null if there was one order only."),
        _number("average_order_value", "Average value of an order."),
        _number("churn_probability", "Probability, from 0 to 1, that the person will not order again."),
        _time(
            "expected_date_of_next_order",
            "Predicted at the time of the last order.",
            "predictive_analytics.expected_date_of_next_order",
        ),
        _text(
            "ranked_channels",
            "Channels by their predicted effect, the best one first, separated by commas.",
            "predictive_analytics.ranked_channel_affinity",
        ),
        *ORIGIN,
    ),
)
TABLES = (
    CATALOG_ITEMS,
    CATALOG_VARIANTS,
    CATALOG_CATEGORIES,
    COUPONS,
    COUPON_CODES,
    REVIEWS,
    PUSH_TOKENS,
    MEMBER_PREDICTIONS,
)
