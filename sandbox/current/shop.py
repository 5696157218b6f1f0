"""The answers about the catalog, coupons, reviews and push tokens."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from sandbox.account import Account
from sandbox.account.shop import Related, Row
from sandbox.api.endpoint import Context
from sandbox.current import allowed, listing
from sandbox.current.documents import page_document, read
from sandbox.current.errors import invalid
from sandbox.current.listing import Views
from sandbox.current.query import Collection, Query
from sandbox.current.resources import Resource, pick, profile

_PATHS = {
    "catalog-item": "catalog-items",
    "catalog-variant": "catalog-variants",
    "catalog-category": "catalog-categories",
    "coupon": "coupons",
    "coupon-code": "coupon-codes",
    "review": "reviews",
    "push-token": "push-tokens",
}
_LISTED_ON_REQUEST = frozenset({("catalog-item", "variants"), ("push-token", "profile")})
"""The references that are listed only with what they refer to."""


class Shop:
    """The endpoints of the shop."""

    def __init__(self, account: Account) -> None:
        self._account, self._views = account, Views(account)

    def listed(self, collection: Collection) -> Callable[[Context, Request], Awaitable[bytes]]:
        """Return the endpoint of a collection."""

        async def answer(context: Context, request: Request) -> bytes:
            query = read(collection, request)
            if collection is allowed.COUPON_CODES and not _names_owner(query):
                raise invalid("A coupon.id or profile.id filter is required.", "filter")
            rows = self._account.shop.collections()[_PATHS[collection.type]]
            page = self._views.page(collection.type, query, lambda: listing.rows(rows.values(), query))
            included = [each for row in page.items for each in self._included(query, row)]
            return page_document(query, page, lambda row: _resource(query, collection.type, row), included)

        return answer

    def _included(self, query: Query, row: Row) -> list[Resource]:
        related = [each for name in query.include for each in _several(row.related[name])]
        return [resource for each in related if (resource := self._resource(query, each)) is not None]

    def _resource(self, query: Query, related: Related) -> Resource | None:
        kind, row_id = related
        if kind == "profile":
            people = self._account.people
            index = people.index_of(row_id)
            return None if index is None else profile(query.base, people.profile(index), query.fields[kind])
        rows = self._account.shop.collections()[_PATHS[kind]]
        return _resource(query, kind, rows[row_id]) if row_id in rows else None


def _names_owner(query: Query) -> bool:
    return any(condition.field in ("coupon.id", "profile.id") for condition in query.conditions)


def _several(related: Related | list[Related]) -> list[Related]:
    return [related] if isinstance(related, Related) else related


def _resource(query: Query, kind: str, row: Row) -> Resource:
    own = f"{query.base}/api/{_PATHS[kind]}/{row.id}"
    attributes = pick(row.attributes, query.fields.get(kind))
    resource: dict[str, Any] = {"type": kind, "id": row.id, "attributes": attributes}
    resource["relationships"] = {
        name: {
            "data": _references(related),
            "links": {"self": f"{own}/relationships/{name}/", "related": f"{own}/{name}/"},
        }
        for name, related in row.related.items()
        if (kind, name) not in _LISTED_ON_REQUEST or name in query.include
    }
    return resource | {"links": {"self": f"{own}/"}}


def _references(related: Related | list[Related]) -> Any:
    references = [{"type": kind, "id": row_id} for kind, row_id in _several(related)]
    return references[0] if isinstance(related, Related) else references
