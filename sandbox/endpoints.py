"""What each endpoint of the current dialect answers, and the table of all of them."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.requests import Request

from sandbox import allowed, current, listing
from sandbox.account import Account, Campaign, CampaignMessage, Group
from sandbox.aggregates import aggregate
from sandbox.content import dump
from sandbox.errors import ApiError, invalid, not_found
from sandbox.event_pages import EventPages
from sandbox.filters import span
from sandbox.ids import is_event_id
from sandbox.limits import XL, XS, L, M, S
from sandbox.listing import Page, Views
from sandbox.query import Collection, Query, read_query
from sandbox.server import Box, Endpoint
from sandbox.timeline import NOBODY, Window

_CHANNELS = ("email", "sms", "mobile_push")
_RENDERERS_KEPT = 8


def endpoints(account: Account) -> list[Endpoint]:
    """Every endpoint, with its scopes and limits."""
    dimensions, people, events = _Dimensions(account), _People(account), _Events(account)
    members = ("lists:read", "profiles:read"), ("segments:read", "profiles:read")
    return [
        Endpoint("GET", "/api/accounts", ("accounts:read",), XS, dimensions.accounts),
        Endpoint("GET", "/api/accounts/{id}", ("accounts:read",), XS, dimensions.account),
        Endpoint("GET", "/api/metrics", ("metrics:read",), M, dimensions.metrics),
        Endpoint("GET", "/api/metrics/{id}", ("metrics:read",), M, dimensions.metric),
        Endpoint("GET", "/api/campaigns", ("campaigns:read",), M, dimensions.campaigns),
        Endpoint("GET", "/api/campaigns/{id}", ("campaigns:read",), M, dimensions.campaign),
        Endpoint("GET", "/api/campaigns/{id}/campaign-messages", ("campaigns:read",), M, dimensions.campaign_messages),
        Endpoint("GET", "/api/campaign-messages/{id}", ("campaigns:read",), M, dimensions.campaign_message),
        Endpoint("GET", "/api/flows", ("flows:read",), S, dimensions.flows),
        Endpoint("GET", "/api/flows/{id}", ("flows:read",), S, dimensions.flow),
        Endpoint("GET", "/api/lists", ("lists:read",), L, dimensions.lists),
        Endpoint("GET", "/api/lists/{id}", ("lists:read",), L, dimensions.list),
        Endpoint("GET", "/api/lists/{id}/profiles", members[0], L, people.of_list),
        Endpoint("GET", "/api/lists/{id}/relationships/profiles", members[0], L, people.ids_of_list),
        Endpoint("GET", "/api/segments", ("segments:read",), L, dimensions.segments),
        Endpoint("GET", "/api/segments/{id}", ("segments:read",), L, dimensions.segment),
        Endpoint("GET", "/api/segments/{id}/profiles", members[1], L, people.of_segment),
        Endpoint("GET", "/api/segments/{id}/relationships/profiles", members[1], L, people.ids_of_segment),
        Endpoint("GET", "/api/profiles", ("profiles:read",), L, people.all),
        Endpoint("GET", "/api/profiles/{id}", ("profiles:read",), L, people.one),
        Endpoint("GET", "/api/events", ("events:read",), XL, events.page),
        Endpoint("GET", "/api/events/{id}", ("events:read",), M, events.one),
        Endpoint("GET", "/api/events/{id}/metric", ("events:read", "metrics:read"), XL, events.metric),
        Endpoint("GET", "/api/events/{id}/profile", ("events:read", "profiles:read"), XL, events.profile),
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


def _one(query: Query, data: Any, included: list[Any] | None = None) -> bytes:
    body = {"data": data} | ({"included": included or []} if query.include else {})
    return dump(body | {"links": {"self": query.url}})


def _row(kind: str, rows: Mapping[str, Any], request: Request) -> Any:
    row = rows.get(request.path_params["id"])
    if row is None:
        raise not_found(kind, request.path_params["id"])
    return row


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

    async def account(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.ACCOUNTS, request)
        account: Account = _row("account", {self._account.options.account: self._account}, request)
        return _one(query, current.account(query.base, account, query.fields["account"]))

    async def metrics(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.METRICS, request)
        page = self._page("metrics", query, self._account.metrics.values())
        return _document(query, page, lambda row: current.metric(query.base, row, query.fields["metric"]))

    async def metric(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.METRICS.single(), request)
        row = _row("metric", self._account.metrics, request)
        return _one(query, current.metric(query.base, row, query.fields["metric"]))

    async def campaigns(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.CAMPAIGNS, request)
        channels = [found.value for found in query.conditions if found.field == "messages.channel"]
        if not channels:
            raise invalid("A channel filter is required to list campaigns.", "filter")
        if channels[0] not in _CHANNELS:
            raise invalid(f"'{channels[0]}' is not a channel.  Channels are {', '.join(_CHANNELS)}", "filter")
        _refuse_future(box, query, "created_at", "scheduled_at", "updated_at")
        page = self._page("campaigns", query, _unarchived(query, self._account.campaigns.values()))
        messages = [message for row in page.items for message in _messages(query, row)]
        return _document(query, page, lambda row: current.campaign(query.base, row, query.fields["campaign"]), messages)

    async def campaign(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.CAMPAIGNS.single(), request)
        row: Campaign = _row("campaign", self._account.campaigns, request)
        return _one(query, current.campaign(query.base, row, query.fields["campaign"]), _messages(query, row))

    async def campaign_messages(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.CAMPAIGN_MESSAGES, request)
        campaign: Campaign = _row("campaign", self._account.campaigns, request)
        names = query.fields["campaign-message"]
        return _document(
            query,
            Page(list(campaign.messages), None),
            lambda row: current.campaign_message(query.base, row, names),
            _owner(query, campaign),
        )

    async def campaign_message(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.CAMPAIGN_MESSAGES, request)
        known = {message.id: message for row in self._account.campaigns.values() for message in row.messages}
        row: CampaignMessage = _row("campaign-message", known, request)
        found = current.campaign_message(query.base, row, query.fields["campaign-message"])
        return _one(query, found, _owner(query, self._account.campaigns[row.campaign_id]))

    async def flows(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.FLOWS, request)
        page = self._page("flows", query, _unarchived(query, self._account.flows.values()))
        return _document(query, page, lambda row: current.flow(query.base, row, query.fields["flow"]))

    async def flow(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.FLOWS.single(), request)
        row = _row("flow", self._account.flows, request)
        return _one(query, current.flow(query.base, row, query.fields["flow"]))

    async def lists(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.LISTS, request)
        page = self._page("lists", query, self._account.lists.values())
        return _document(query, page, lambda row: current.group(query.base, row, query.fields["list"]))

    async def list(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.LIST, request)
        row = _row("list", self._account.lists, request)
        return _one(query, current.group(query.base, row, query.fields["list"], query.additional))

    async def segments(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.SEGMENTS, request)
        page = self._page("segments", query, self._account.segments.values())
        return _document(query, page, lambda row: current.group(query.base, row, query.fields["segment"]))

    async def segment(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.SEGMENT, request)
        row = _row("segment", self._account.segments, request)
        return _one(query, current.group(query.base, row, query.fields["segment"], query.additional))


def _unarchived(query: Query, rows: Iterable[Any]) -> Iterable[Any]:
    """Archived rows are shown only to those who ask for them."""
    asked = any(condition.field == "archived" for condition in query.conditions)
    return rows if asked else [row for row in rows if not row.archived]


def _messages(query: Query, row: Campaign) -> list[current.Resource]:
    if "campaign-messages" not in query.include:
        return []
    names = query.fields["campaign-message"]
    return [current.campaign_message(query.base, message, names) for message in row.messages]


def _owner(query: Query, row: Campaign) -> list[current.Resource]:
    return [current.campaign(query.base, row, query.fields["campaign"])] if "campaign" in query.include else []


class _People:
    """Profiles, all of them or those of a list or segment."""

    def __init__(self, account: Account) -> None:
        self._account, self._views = account, Views(account)

    async def all(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.PROFILES, request)
        page = self._views.page("profiles", query, lambda: listing.people(self._account, query))
        return _document(query, page, lambda index: self._resource(query, index))

    async def one(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.PROFILES.single(), request)
        index = self._account.people.index_of(request.path_params["id"])
        if index is None:
            raise not_found("profile", request.path_params["id"])
        return _one(query, self._resource(query, index))

    async def of_list(self, box: Box, request: Request) -> bytes:
        return self._members(request, allowed.LIST_PROFILES, _row("list", self._account.lists, request))

    async def of_segment(self, box: Box, request: Request) -> bytes:
        return self._members(request, allowed.SEGMENT_PROFILES, _row("segment", self._account.segments, request))

    async def ids_of_list(self, box: Box, request: Request) -> bytes:
        return self._member_ids(request, allowed.LIST_PROFILE_IDS, _row("list", self._account.lists, request))

    async def ids_of_segment(self, box: Box, request: Request) -> bytes:
        return self._member_ids(request, allowed.SEGMENT_PROFILE_IDS, _row("segment", self._account.segments, request))

    def _members(self, request: Request, collection: Collection, group: Group) -> bytes:
        query = _query(collection, request)
        page = self._page(query, group)
        return _document(query, page, lambda index: self._resource(query, index, group.joined[index]))

    def _member_ids(self, request: Request, collection: Collection, group: Group) -> bytes:
        query = _query(collection, request)
        people = self._account.people
        return _document(query, self._page(query, group), lambda index: {"type": "profile", "id": people.id(index)})

    def _page(self, query: Query, group: Group) -> Page:
        return self._views.page(group.id, query, lambda: listing.members(self._account, group, query))

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
        size = min(query.size, box.most_events)
        refs = [] if window is None else self._account.timeline.read(window, size + 1, after, descending, keep)
        shown = refs[:size]
        following = [self._account.timeline.time(shown[-1]), shown[-1]] if len(refs) > len(shown) else None
        return self._renderer(query).render(shown, _links(query, following))

    async def one(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.EVENTS.single(), request)
        return self._renderer(query).render_one(self._ref(request), {"self": query.url})

    async def metric(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.METRICS.single(), request)
        number = self._account.timeline.metric(self._ref(request))
        row = None if number is None else self._account.metrics.get(self._account.metric_ids[number])
        if row is None:
            raise ApiError(404, "not_found", "The metric of this event does not exist.")
        return _one(query, current.metric(query.base, row, query.fields["metric"]))

    async def profile(self, box: Box, request: Request) -> bytes:
        query = _query(allowed.PROFILES.single(), request)
        person = self._account.timeline.person(self._ref(request))
        if person == NOBODY or person in self._account.people.erased:
            raise ApiError(404, "not_found", "The profile of this event does not exist.")
        profile = self._account.people.profile(person)
        return _one(query, current.profile(query.base, profile, query.fields["profile"], query.additional))

    def _ref(self, request: Request) -> int:
        event_id = request.path_params["id"]
        ref = self._account.timeline.find(event_id)
        if ref is None and not is_event_id(event_id):
            raise ApiError(400, "invalid", f"Invalid Event ID: '{event_id}'", {"pointer": "/data/id"})
        if ref is None:
            raise not_found("event", event_id)
        return ref

    def _asked(self, query: Query) -> tuple[Window | None, Callable[[int], bool] | None]:
        """The window, None if nothing can be in it, and what else an event must meet."""
        account, keeps = self._account, list[Callable[[int], bool]]()
        metric: int | None = None
        for condition in query.conditions:
            if condition.field == "metric_id":
                if condition.value not in account.metrics:
                    raise ApiError(400, "invalid", f"Metric IDs ['{condition.value}'] do not exist.")
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
