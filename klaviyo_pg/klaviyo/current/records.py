"""The collections that are read on request: their requests in the current dialect, and their rows.

Only ids have to be well-formed. Anything else of another type than expected counts as missing.
"""

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from klaviyo_pg.errors import Refused
from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.client import Endpoint
from klaviyo_pg.klaviyo.current import resources
from klaviyo_pg.klaviyo.current.filters import between, quoted
from klaviyo_pg.klaviyo.current.paging import Reached
from klaviyo_pg.klaviyo.current.reader import Reader, unless_refused
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.lenient import (
    boolean,
    decimal,
    document,
    elements,
    identifier,
    member,
    moment,
    related_id,
    whole_number,
)
from klaviyo_pg.klaviyo.pace import Limit
from klaviyo_pg.rows import Page, Record, Reject
from klaviyo_pg.windows import AnyWindow

_M, _L, _XL = Limit(10, 150), Limit(75, 750), Limit(350, 3500)
CATALOG_ITEMS = Endpoint("api/catalog-items", "catalogs:read", _XL, 100, "catalog items")
CATALOG_CATEGORIES = Endpoint("api/catalog-categories", "catalogs:read", _XL, 100, "catalog categories")
COUPONS = Endpoint("api/coupons", "coupons:read", _L, 100, "coupons")
COUPON_CODES = Endpoint("api/coupon-codes", "coupon-codes:read", _XL, 100, "coupon codes")
REVIEWS = Endpoint("api/reviews", "reviews:read", _M, 100, "reviews")
PUSH_TOKENS = Endpoint("api/push-tokens", "profiles:read and push-tokens:read", _M, 100, "push tokens")
PREDICTIONS = Endpoint("api/profiles", "profiles:read", _M, 100, "predictions", also=("profiles", _L))

Pages = Iterator[Page[Record]]
Read = Callable[[Reader, AnyWindow, str | None], Pages]
Fields = Mapping[str, Callable[[resources.Resource], Any]]
"""Takes the value of each column out of a resource."""
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
    return {name: _id_in(path) for name, _, path in pairs}


def _id_in(relationship: str) -> Callable[[resources.Resource], str | None]:
    return lambda resource: related_id(resource.relationships, relationship)


def _predicted(read: Callable[[Any], Any], columns: str) -> Fields:
    return _fields(read, " ".join(f"{each}=predictive_analytics.{each}" for each in columns.split()))


def _hashed(token: Any) -> str | None:
    """Return the SHA-256 of a push token, which is a secret."""
    return sha256(token.encode()).hexdigest() if isinstance(token, str) and token else None


def _joined(names: Any) -> str | None:
    """Return names, the first one being the best, as one text."""
    return ", ".join(each for each in elements(names) if isinstance(each, str)) or None


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
        "coupons": _fields(properties.plain_text, "external_id description"),
        "coupon_codes": {
            **_related("coupon_id=coupon member_id=profile"),
            **_fields(properties.plain_text, "unique_code status"),
            **_fields(moment, "expires_at"),
        },
        "reviews": {
            **_related("item_id=item"),
            **_fields(properties.plain_text, "review_type status=status.value"),
            **_fields(properties.plain_text, "rejection_reason=status.rejection_reason.reason"),
            **_fields(properties.plain_text, "email author title content smart_quote reply=public_reply.content"),
            **_fields(properties.plain_text, "product_name=product.name product_url=product.url"),
            **_fields(properties.plain_text, "product_external_id=product.external_id"),
            **_fields(whole_number, "rating"),
            **_fields(boolean, "is_verified=verified"),
            **_fields(document, "images"),
            **_fields(moment, "replied_at=public_reply.updated created_at=created updated_at=updated"),
        },
        "push_tokens": {
            **_related("member_id=profile"),
            **_fields(_hashed, "token_hash=token"),
            **_fields(properties.plain_text, "platform vendor enablement_status background"),
            **_fields(moment, "created_at=created"),
        },
        "member_predictions": {
            **_predicted(decimal, "historic_clv predicted_clv total_clv"),
            **_predicted(decimal, "historic_number_of_orders predicted_number_of_orders average_days_between_orders"),
            **_predicted(decimal, "average_order_value churn_probability"),
            **_predicted(moment, "expected_date_of_next_order"),
            **_fields(_joined, "ranked_channels=predictive_analytics.ranked_channel_affinity"),
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


def _codes(reader: Reader, window: AnyWindow, coupon_id: str | None) -> Pages:
    """Read the codes of a coupon, without which the API lists none."""
    assert coupon_id is not None, "the plan names a coupon"
    for page in _all(COUPON_CODES, "coupon_codes", filter=f"equals(coupon.id,{quoted(coupon_id)})")(
        reader, window, None
    ):
        yield page._replace(rows=[_of_coupon(row, coupon_id) for row in page.rows])


def _of_coupon(row: Record, coupon_id: str) -> Record:
    return row._replace(values={**row.values, "coupon_id": coupon_id})


def _reviews(reader: Reader, window: AnyWindow, subject: str | None) -> Pages:
    """Read reviews in the order of their last change, which the API cannot filter by: from the last one back.

    A full read has no checkpoint: one that changes before it is resumed would be neither before it nor after it.
    """
    start = window.start
    for page in _all(REVIEWS, "reviews", sort="-updated" if start else "updated")(reader, window, None):
        times = [row.values["updated_at"] for row in page.rows]
        yield page
        if start and times and all(time is not None and time < start for time in times):
            return


def _push_tokens(reader: Reader, window: AnyWindow, subject: str | None) -> Pages:
    """Read push tokens with their profiles, because without them the API may not say whose they are.

    A record that is unreadable may contain the token, so only its hash is kept.
    """
    of_profile = {"include": "profile", "fields[profile]": "created"}
    with_profiles = reader.pages(PUSH_TOKENS, _DOCUMENTS, of_profile)
    without = reader.pages(PUSH_TOKENS, _DOCUMENTS, {})
    for page, rejects, read_at in unless_refused(with_profiles, Refused, without):
        rows = [record("push_tokens", each) for each in page.data]
        yield Page(rows, [_without_token(reject) for reject in rejects], read_at)


def _without_token(reject: Reject) -> Reject:
    digest = sha256(reject.raw.encode("utf-8", "replace")).hexdigest()
    return reject._replace(raw=f'{{"sha256": "{digest}"}}')


def _predictions(reader: Reader, window: AnyWindow, subject: str | None) -> Pages:
    query = {
        "filter": ",".join(between("updated", window)),
        "sort": "updated",
        "fields[profile]": "updated",
        "additional-fields[profile]": "predictive_analytics",
    }
    reached = Reached()
    for page, rejects, read_at in reader.pages(PREDICTIONS, _DOCUMENTS, query):
        updated = reached.after(moment(member(each.attributes, "updated")) for each in page.data)
        yield Page([record("member_predictions", each) for each in page.data], rejects, read_at, updated)


READS: Mapping[str, Read] = MappingProxyType(
    {
        "catalog_items": _items,
        "catalog_categories": _all(CATALOG_CATEGORIES, "catalog_categories"),
        "coupons": _all(COUPONS, "coupons"),
        "coupon_codes": _codes,
        "reviews": _reviews,
        "push_tokens": _push_tokens,
        "member_predictions": _predictions,
    }
)
"""By the name of the stream. Each takes a reader, a window, and the subject that the stream may have."""


def record(table: str, resource: resources.Resource) -> Record:
    """Return the row of a resource."""
    return Record(table, resource.id, {name: read(resource) for name, read in FIELDS[table].items()})
