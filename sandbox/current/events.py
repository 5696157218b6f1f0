"""The answers about events and their aggregates."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request

from sandbox.account import Account
from sandbox.account.ids import is_event_id
from sandbox.account.timeline import NOBODY, Position, Window
from sandbox.api.endpoint import Context
from sandbox.api.errors import ApiError
from sandbox.current import allowed, resources
from sandbox.current.aggregates import aggregate
from sandbox.current.documents import base_url, links, read, refuse_future, row_document
from sandbox.current.errors import not_found
from sandbox.current.event_pages import EventPages
from sandbox.current.filters import Condition, span
from sandbox.current.query import Query
from sandbox.encoding import dump

_MAX_RENDERERS = 8
Predicate = Callable[[int], bool]  # of an event's reference


class Events:
    """The endpoints that return events, and what belongs to one event."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._renderers: dict[Any, EventPages] = {}

    async def page(self, context: Context, request: Request) -> bytes:
        query = read(allowed.EVENTS, request)
        refuse_future(context, query, "datetime", "timestamp")
        window, keep, among = self._selection(query)
        after = _position(query)
        descending = query.descending or not query.sort  # newest first by default
        size = min(query.page_size, context.max_events)
        refs = self._account.timeline.read(window, size + 1, after, descending, keep, among)
        shown = refs[:size]
        cursor = [self._account.timeline.time(shown[-1]), shown[-1]] if len(refs) > len(shown) else None
        return self._renderer(query).render(shown, links(query, cursor))

    async def one(self, context: Context, request: Request) -> bytes:
        query = read(allowed.EVENTS.single(), request)
        return self._renderer(query).render_one(self._ref(request), {"self": query.url})

    async def metric(self, context: Context, request: Request) -> bytes:
        query = read(allowed.METRICS.single(), request)
        number = self._account.timeline.metric(self._ref(request))
        row = None if number is None else self._account.metrics.get(self._account.metric_ids[number])
        if row is None:
            raise ApiError(404, "not_found", "The metric of this event does not exist.")
        return row_document(query, resources.metric(query.base, row, query.fields["metric"]))

    async def profile(self, context: Context, request: Request) -> bytes:
        query = read(allowed.PROFILES.single(), request)
        person = self._account.timeline.person(self._ref(request))
        if person == NOBODY or person in self._account.people.erased:
            raise ApiError(404, "not_found", "The profile of this event does not exist.")
        profile = self._account.people.profile(person)
        return row_document(query, resources.profile(query.base, profile, query.fields["profile"], query.additional))

    async def aggregates(self, context: Context, request: Request) -> bytes:
        try:
            body = json.loads(await request.body())
        except ValueError:
            raise ApiError(400, "invalid", "The body is not JSON.", {"pointer": "/data"}) from None
        return dump(aggregate(self._account, base_url(request), body))

    def _ref(self, request: Request) -> int:
        event_id = request.path_params["id"]
        ref = self._account.timeline.find(event_id)
        if ref is None and not is_event_id(event_id):
            raise ApiError(400, "invalid", f"Invalid Event ID: '{event_id}'", {"pointer": "/data/id"})
        if ref is None:
            raise not_found("event", event_id)
        return ref

    def _selection(self, query: Query) -> tuple[Window, Predicate | None, Sequence[int] | None]:
        """Return the window to read, the other conditions that an event must meet, and what to search for them."""
        metric: int | None = None
        among: Sequence[int] | None = None
        person_of: list[int | None] = []
        predicates: list[Predicate] = []
        for condition in query.conditions:
            if condition.field == "metric_id":
                metric = self._metric_number(condition)
            elif condition.field == "profile_id":
                person_of.append(self._account.people.index_of(condition.value))
                predicates.append(_belongs_to(self._account, person_of[-1]))
            elif condition.operator == "has":
                make = _has_profile if condition.field == "profile" else _has_metric
                predicates.append(make(self._account))
        window = Window(metric, *span(query.conditions, "datetime", "timestamp"))
        for person in person_of:
            among = [] if person is None else self._account.timeline.of_person(person, metric)
        return window, (lambda ref: all(meets(ref) for meets in predicates)) if predicates else None, among

    def _metric_number(self, condition: Condition) -> int:
        if condition.value not in self._account.metrics:
            raise ApiError(400, "invalid", f"Metric IDs ['{condition.value}'] do not exist.")
        return self._account.metric_ids.index(condition.value)

    def _renderer(self, query: Query) -> EventPages:
        key = (query.base, tuple(query.fields.items()), query.include)
        if key not in self._renderers:
            while len(self._renderers) >= _MAX_RENDERERS:
                del self._renderers[next(iter(self._renderers))]
            self._renderers[key] = EventPages(self._account, query)
        return self._renderers[key]


def _position(query: Query) -> Position | None:
    if query.cursor is None:
        return None
    time, ref = query.cursor
    if not isinstance(time, int) or not isinstance(ref, int):
        raise ApiError(400, "invalid", "Invalid cursor provided.")
    return time, ref


def _belongs_to(account: Account, person: int | None) -> Predicate:
    return lambda ref: account.timeline.person(ref) == person


def _has_profile(account: Account) -> Predicate:
    count = len(account.people)
    return lambda ref: account.timeline.person(ref) < count


def _has_metric(account: Account) -> Predicate:
    numbers = {metric.number for metric in account.metrics.values()}
    return lambda ref: account.timeline.metric(ref) in numbers
