"""The tables that are filled only if TABLES asks for them: the catalog."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, ORIGIN
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


def _time(name: str, description: str, current: str) -> Column:
    return Column(name, TIMESTAMP, description, current, "")


def _product(what: str) -> tuple[Column, ...]:
    """Return the columns that items of the catalog and their variants have."""
    return (
        _text("external_id", f"ID of {what} in the shop."),
        _text("title", f"Title of {what}."),
        _text("description", f"Description of {what}."),
        Column("price", NUMERIC, "Price as shown; null if there is none. The catalog has no currency.", "price", ""),
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
        _text("sku", "SKU of the variant."),
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
        _text("external_id", "ID of the category in the shop."),
        _text("name", "Name of the category."),
        _time("updated_at", "When the category last changed.", "updated"),
        *ORIGIN,
        DELETED_AT,
    ),
)
TABLES = (CATALOG_ITEMS, CATALOG_VARIANTS, CATALOG_CATEGORIES)
