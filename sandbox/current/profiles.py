"""The answers about profiles: all of them, or the members of a list or segment."""

from starlette.requests import Request

from sandbox.account import Account, Group
from sandbox.api.endpoint import Context
from sandbox.current import allowed, listing, ordered, resources
from sandbox.current.documents import page_document, read, row_document, row_of
from sandbox.current.errors import not_found
from sandbox.current.listing import Page, Views
from sandbox.current.query import Collection, Query

_IDENTIFIERS = ("id", "email")  # conditions that few people meet


class Profiles:
    """The endpoints that return profiles."""

    def __init__(self, account: Account) -> None:
        self._account, self._views = account, Views(account)

    async def all(self, context: Context, request: Request) -> bytes:
        query = read(allowed.PROFILES, request)
        orders = self._account.orders
        if orders is None or any(condition.field in _IDENTIFIERS for condition in query.conditions):
            page = self._views.page("profiles", query, lambda: listing.people(self._account, query))
        else:
            page = ordered.people(self._account, orders, query)
        return self._document(query, page)

    async def one(self, context: Context, request: Request) -> bytes:
        query = read(allowed.PROFILES.single(), request)
        index = self._account.people.index_of(request.path_params["id"])
        if index is None:
            raise not_found("profile", request.path_params["id"])
        return row_document(query, self._resource(query, index))

    async def of_list(self, context: Context, request: Request) -> bytes:
        return self._members(request, allowed.LIST_PROFILES, row_of(request, "list", self._account.lists))

    async def of_segment(self, context: Context, request: Request) -> bytes:
        return self._members(request, allowed.SEGMENT_PROFILES, row_of(request, "segment", self._account.segments))

    async def ids_of_list(self, context: Context, request: Request) -> bytes:
        return self._member_ids(request, allowed.LIST_PROFILE_IDS, row_of(request, "list", self._account.lists))

    async def ids_of_segment(self, context: Context, request: Request) -> bytes:
        group = row_of(request, "segment", self._account.segments)
        return self._member_ids(request, allowed.SEGMENT_PROFILE_IDS, group)

    def _members(self, request: Request, collection: Collection, group: Group) -> bytes:
        query = read(collection, request)
        return self._document(query, self._page(query, group), group)

    def _member_ids(self, request: Request, collection: Collection, group: Group) -> bytes:
        query = read(collection, request)
        people = self._account.people
        return page_document(query, self._page(query, group), lambda index: {"type": "profile", "id": people.id(index)})

    def _page(self, query: Query, group: Group) -> Page:
        if self._account.orders is not None:
            return ordered.members(self._account, self._account.orders, group, query)
        return self._views.page(group.id, query, lambda: listing.members(self._account, group, query))

    def _document(self, query: Query, page: Page, group: Group | None = None) -> bytes:
        return page_document(
            query, page, lambda index: self._resource(query, index, None if group is None else group.joined[index])
        )

    def _resource(self, query: Query, index: int, joined: int | None = None) -> resources.Resource:
        profile = self._account.people.profile(index)
        return resources.profile(query.base, profile, query.fields["profile"], query.additional, joined)
