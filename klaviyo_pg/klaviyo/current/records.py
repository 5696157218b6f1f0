"""The collections that are read on request: their requests in the current dialect, and their rows.

Only ids have to be well-formed. Anything else of another type than expected counts as missing.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.client import Endpoint
from klaviyo_pg.klaviyo.current import resources
from klaviyo_pg.klaviyo.current.reader import Reader
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.lenient import boolean, decimal, document, elements, identifier, member, moment, whole_number
from klaviyo_pg.klaviyo.pace import Limit
from klaviyo_pg.rows import Page, Record
from klaviyo_pg.windows import AnyWindow

_XL = Limit(350, 3500)
CATALOG_ITEMS = Endpoint("api/catalog-items", "catalogs:read", _XL, 100, "catalog items")
CATALOG_CATEGORIES = Endpoint("api/catalog-categories", "catalogs:read", _XL, 100, "catalog categories")

Pages = Iterator[Page[Record]]
Read = Callable[[Reader, AnyWindow, str | None], Pages]
Fields = Mapping[str, Callable[[resources.Resource], Any]]
"""How to read the value of each column."""
_DOCUMENTS = DocumentDecoder(resources.ResourceDocument, data=resources.Resource, included=resources.Resource)


def _fields(read: Callable[[Any], Any], columns: str) -> Fields:
    """Declare columns that are read alike: their names, with the path in the attributes where that differs."""
    pairs = (each.partition("=") for each in columns.split())
    return {name: _at((path or name).split("."), read) for name, _, path in pairs}


def _at(path: list[str], read: Callable[[Any], Any]) -> Callable[[resources.Resource], Any]:
    return lambda resource: read(member(resource.attributes, *path))


def _related(columns: str) -> Fields:
    """Declare columns with the ID of a related resource: their names, and that of the relationship."""
    pairs = (each.partition("=") for each in columns.split())
    return {name: _in([path, "data", "id"]) for name, _, path in pairs}


def _in(path: list[str]) -> Callable[[resources.Resource], str | None]:
    return lambda resource: identifier(member(resource.relationships, *path))


_PRODUCT: Fields = {
    **_fields(properties.plain_text, "external_id title description url image_full_url image_thumbnail_url"),
    **_fields(decimal, "price"),
    **_fields(document, "custom_metadata"),
    **_fields(boolean, "is_published=published"),
    **_fields(moment, "created_at=created updated_at=updated"),
}
FIELDS: Mapping[str, Fields] = MappingProxyType(
    {
        "catalog_items": _PRODUCT,
        "catalog_variants": {
            **_PRODUCT,
            **_related("item_id=item"),
            **_fields(properties.plain_text, "sku"),
            **_fields(whole_number, "inventory_policy"),
            **_fields(decimal, "inventory_quantity"),
        },
        "catalog_categories": {
            **_fields(properties.plain_text, "external_id name"),
            **_fields(moment, "updated_at=updated"),
        },
    }
)
"""By table."""


def _all(endpoint: Endpoint, table: str, **query: str) -> Read:
    """Declare a collection that is read as a whole."""

    def read(reader: Reader, window: AnyWindow, subject: str | None) -> Pages:
        for page, rejects, read_at in reader.pages(endpoint, _DOCUMENTS, query):
            yield Page([record(table, each) for each in page.data], rejects, read_at)

    return read


def _items(reader: Reader, window: AnyWindow, subject: str | None) -> Pages:
    """Read the items of the catalog with their variants."""
    for page, rejects, read_at in reader.pages(CATALOG_ITEMS, _DOCUMENTS, {"include": "variants"}):
        yield Page([*(record("catalog_items", each) for each in page.data), *_variants(page)], rejects, read_at)


def _variants(page: resources.ResourceDocument) -> Iterator[Record]:
    """Yield the variants that a page includes. Their items refer to them."""
    items = {
        identifier(member(each, "id")): item.id
        for item in page.data
        for each in elements(member(item.relationships, "variants", "data"))
    }
    for each in page.included:
        if each.type in ("catalog-variant", None):
            row = record("catalog_variants", each)
            item_id = items.get(row.id, row.values["item_id"])
            yield row._replace(values={**row.values, "item_id": item_id})


READS: Mapping[str, Read] = MappingProxyType(
    {
        "catalog_items": _items,
        "catalog_categories": _all(CATALOG_CATEGORIES, "catalog_categories"),
    }
)
"""By the name of the stream. Each takes a reader, a window, and the subject that the stream may have."""


def record(table: str, resource: resources.Resource) -> Record:
    """Return the row of a resource."""
    return Record(table, resource.id, {name: read(resource) for name, read in FIELDS[table].items()})
