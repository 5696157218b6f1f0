"""What each endpoint of the current dialect answers, and the table of all of them."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from starlette.requests import Request

from sandbox import allowed, current, listing
from sandbox.account import Account, Campaign, Group
from sandbox.aggregates import aggregate
from sandbox.content import dump
from sandbox.errors import ApiError, invalid, not_found
from sandbox.event_pages import EventPages
from sandbox.filters import span
from sandbox.limits import XL, XS, L, M, S
from sandbox.listing import Page, Views
from sandbox.query import Collection, Query, read_query
from sandbox.server import Box, Endpoint
from sandbox.timeline import Window

_CHANNELS = ("email", "sms", "mobile_push")
_RENDERERS_KEPT = 8


def endpoints(account: Account) -> list[Endpoint]:
    """Every endpoint, with its scopes and limits."""
    dimensions, people, events = _Dimensions(account), _People(account), _Events(account)
    return [
        Endpoint("GET", "/api/accounts", ("accounts:read",), XS, dimensions.accounts),
        Endpoint("GET", "/api/metrics", ("metrics:read",), M, dimensions.metrics),
        Endpoint("GET", "/api/metrics/{id}", ("metrics:read",), M, dimensions.metric),
        Endpoint("GET", "/api/campaigns", ("campaigns:read",), M, dimensions.campaigns),
        Endpoint(
            "GET",
            "/api/campaigns/{id}/campaign-messages",
            ("campaigns:read",),
            M,
            dimensions.campaign_messages,
        ),
        Endpoint("GET", "/api/flows", ("flows:read",), S, dimensions.flows),
        Endpoint("GET", "/api/lists", ("lists:read",), L, dimensions.lists),
        Endpoint("GET", "/api/segments", ("segments:read",), L, dimensions.segments),
        Endpoint("GET", "/api/lists/{id}/profiles", ("lists:read", "profiles:read"), L, people.of_list),
        Endpoint("GET", "/api/segments/{id}/profiles", ("segments:read", "profiles:read"), L, people.of_segment),
        Endpoint("GET", "/api/profiles", ("profiles:read",), L, people.all),
        Endpoint("GET", "/api/profiles/{id}", ("profiles:read",), L, people.one),
        Endpoint("GET", "/api/events", ("events:read",), XL, events.page),
        Endpoint("POST", "/api/metric-aggregates", ("metrics:read",), S, events.aggregates),
    ]


def _query(collection: Collection, request: Request) -> Query:
    base = f"{request.url.scheme}://{request.url.netloc}"
    return read_query(collection, base, str(request.url), request.query_params.multi_items())


def _links(query: Query, following: list[Any] | None) -> dict[str, str | None]:
    return {"self": query.url, "next": query.link(following) if following else None, "prev": None}


def _document(query: Query, page: Page, render: Callable[[Any], Any], included: list[Any] | None = None) -> bytes:
    body: dict[str, Any] = {"data": [render(item) for item in page.items]}
    if query.include:
        body["included"] = included or []
    return dump(body | {"links": _links(query, page.next)})


def _refuse_future(box: Box, query: Query, *names: str) -> None:
    for condition in query.conditions:
        if condition.field in names and condition.value > box.now():
            late = current.moment(condition.value)
            source = {"pointer": condition.field}
            raise ApiError(400, "invalid", f"End date may not be in the future: {late}", source)


class _Dimensions:
    """Metrics, campaigns, flows, lists and segments."""

    def __init__(self, account: Account) -> None:
        self._account, self._views = account, Views(account)

    def _page(self, name: str, query: Query, rows: Iterable[Any]) -> Page:
        return self._views.page(name, query, lambda: listing.rows(rows, query))

    async def accounts(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.ACCOUNTS, request)
        rows = [current.account(query.base, self._account, query.fields["account"])]
        return dump({"data": rows, "links": _links(query, None)})

    async def metrics(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.METRICS, request)
        page = self._page("metrics", query, self._account.metrics.values())
        return _document(query, page, lambda row: current.metric(query.base, row, query.fields["metric"]))

    async def metric(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.METRICS, request)
        row = self._account.metrics.get(request.path_params["id"])
        if row is None:
            raise not_found("metric", request.path_params["id"])
        found = current.metric(query.base, row, query.fields["metric"])
        return dump({"data": found, "links": {"self": query.url}})

    async def campaigns(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.CAMPAIGNS, request)
        channels = [found.value for found in query.conditions if found.field == "messages.channel"]
        if not channels:
            raise invalid("A channel filter is required to list campaigns.", "filter")
        if channels[0] not in _CHANNELS:
            raise invalid(f"'{channels[0]}' is not a channel.  Channels are {', '.join(_CHANNELS)}", "filter")
        _refuse_future(box, query, "created_at", "scheduled_at", "updated_at")
        page = self._page("campaigns", query, self._account.campaigns.values())
        rows: list[Campaign] = page.items
        messages = [
            current.campaign_message(query.base, message, query.fields["campaign-message"])
            for row in rows
            for message in row.messages
            if "campaign-messages" in query.include
        ]
        return _document(query, page, lambda row: current.campaign(query.base, row, query.fields["campaign"]), messages)

    async def campaign_messages(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.CAMPAIGN_MESSAGES, request)
        campaign = self._account.campaigns.get(request.path_params["id"])
        if campaign is None:
            raise not_found("campaign", request.path_params["id"])
        names = query.fields["campaign-message"]
        included = [current.campaign(query.base, campaign, query.fields["campaign"])]
        return _document(
            query,
            Page(list(campaign.messages), None),
            lambda row: current.campaign_message(query.base, row, names),
            included if "campaign" in query.include else None,
        )

    async def flows(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.FLOWS, request)
        page = self._page("flows", query, self._account.flows.values())
        return _document(query, page, lambda row: current.flow(query.base, row, query.fields["flow"]))

    async def lists(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.LISTS, request)
        page = self._page("lists", query, self._account.lists.values())
        return _document(query, page, lambda row: current.group(query.base, row, query.fields["list"]))

    async def segments(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.SEGMENTS, request)
        page = self._page("segments", query, self._account.segments.values())
        return _document(query, page, lambda row: current.group(query.base, row, query.fields["segment"]))


class _People:
    """Profiles, all of them or those of a list or segment."""

    def __init__(self, account: Account) -> None:
        self._account, self._views = account, Views(account)

    async def all(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.PROFILES, request)
        page = self._views.page("profiles", query, lambda: listing.people(self._account, query))
        return _document(query, page, lambda index: self._resource(query, index))

    async def one(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.PROFILES, request)
        index = self._account.people.index_of(request.path_params["id"])
        if index is None:
            raise not_found("profile", request.path_params["id"])
        return dump({"data": self._resource(query, index), "links": {"self": query.url}})

    async def of_list(self, box: Box, request: Request) -> bytes:
        return self._members(request, allowed.LIST_PROFILES, "list", self._account.lists)

    async def of_segment(self, box: Box, request: Request) -> bytes:
        return self._members(request, allowed.SEGMENT_PROFILES, "segment", self._account.segments)

    def _members(self, request: Request, collection: Collection, kind: str, groups: dict[str, Group]) -> bytes:
        query = _query(collection, request)
        group = groups.get(request.path_params["id"])
        if group is None:
            raise not_found(kind, request.path_params["id"])
        page = self._views.page(group.id, query, lambda: listing.members(self._account, group, query))
        return _document(query, page, lambda index: self._resource(query, index, group.joined[index]))

    def _resource(self, query: Query, index: int, joined: int | None = None) -> current.Resource:
        profile = self._account.people.profile(index)
        return current.profile(query.base, profile, query.fields["profile"], query.additional, joined)


class _Events:
    """Events and their aggregates."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._renderers: dict[Any, EventPages] = {}

    async def page(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.EVENTS, request)
        _refuse_future(box, query, "datetime", "timestamp")
        window, keep = self._asked(query)
        after = _mark(query)
        descending = query.descending or not query.sort  # newest first unless asked otherwise
        refs = [] if window is None else self._account.timeline.read(window, query.size + 1, after, descending, keep)
        shown = refs[: query.size]
        following = [self._account.timeline.time(shown[-1]), shown[-1]] if len(refs) > len(shown) else None
        return self._renderer(query).render(shown, _links(query, following))

    def _asked(self, query: Query) -> tuple[Window | None, Callable[[int], bool] | None]:
        """The window, None if nothing can be in it, and what else an event must meet."""
        account, keeps = self._account, list[Callable[[int], bool]]()
        metric: int | None = None
        for condition in query.conditions:
            if condition.field == "metric_id":
                if condition.value not in account.metric_ids:
                    return None, None
                metric = account.metric_ids.index(condition.value)
            elif condition.field == "profile_id":
                keeps.append(_of_person(account, condition.value))
            elif condition.operator == "has":
                keeps.append(_has_profile(account) if condition.field == "profile" else _has_metric(account))
        window = Window(metric, *span(query.conditions, "datetime", "timestamp"))
        return window, (lambda ref: all(keep(ref) for keep in keeps)) if keeps else None

    def _renderer(self, query: Query) -> EventPages:
        known = (query.base, tuple(query.fields.items()), query.include)
        if known not in self._renderers:
            while len(self._renderers) >= _RENDERERS_KEPT:
                del self._renderers[next(iter(self._renderers))]
            self._renderers[known] = EventPages(self._account, query)
        return self._renderers[known]

    async def aggregates(self, box: Box, request: Request) -> bytes:
        try:
            body = json.loads(await request.body())
        except ValueError:
            raise ApiError(400, "invalid", "The body is not JSON.", {"pointer": "/data"}) from None
        return dump(aggregate(self._account, f"{request.url.scheme}://{request.url.netloc}", body))


def _mark(query: Query) -> tuple[int, int] | None:
    if query.cursor is None:
        return None
    time, ref = query.cursor
    if not isinstance(time, int) or not isinstance(ref, int):
        raise ApiError(400, "invalid", "Invalid cursor provided.")
    return time, ref


def _of_person(account: Account, profile_id: str) -> Callable[[int], bool]:
    index = account.people.index_of(profile_id)
    return lambda ref: account.timeline.person(ref) == index


def _has_profile(account: Account) -> Callable[[int], bool]:
    count = len(account.people)
    return lambda ref: account.timeline.person(ref) < count


def _has_metric(account: Account) -> Callable[[int], bool]:
    known = {metric.number for metric in account.metrics.values()}
    return lambda ref: account.timeline.metric(ref) in known
