"""The answers of v1 and v2 about people: persons, members of lists, and exclusions from one list or from all."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from starlette.requests import Request

from sandbox.account import Account, Group
from sandbox.account.orders import Order
from sandbox.account.people import People, Suppression
from sandbox.api.endpoint import Context
from sandbox.api.errors import ApiError
from sandbox.encoding import dump
from sandbox.legacy import rows
from sandbox.legacy.dialect import Parameters, invalid, not_found, query, query_and_body
from sandbox.legacy.paging import paged

_MAX_IDENTIFIERS = 100  # in one request
_MAX_RECORDS = 1000  # on one page of members or exclusions
_MAX_MARKER = 10**12
_BY_NAME = {name: reason for reason, name in rows.REASONS.items()}
Following = Callable[[int], Iterator[int]]  # of people, from an index on
_SEARCH_FIELDS = ("email", "phone_number", "external_id")
_GENERATED = {"phone_number": re.compile(r"\+1555(\d{7})"), "external_id": re.compile(r"crm-(\d{1,9})")}


class PeopleEndpoints:
    """The endpoints that return people."""

    def __init__(self, account: Account) -> None:
        self._account = account

    @property
    def _people(self) -> People:
        return self._account.people

    async def person(self, context: Context, request: Request) -> bytes:
        index = self._people.index_of(request.path_params["id"])
        if index is None:
            raise not_found("person", request.path_params["id"])
        return dump(rows.person(self._people.profile(index)))

    async def search(self, context: Context, request: Request) -> bytes:
        parameters = await query_and_body(request)
        terms = [(name, text) for name in _SEARCH_FIELDS if (text := parameters.text(name))]
        if len(terms) != 1:
            raise invalid(f"Exactly one of {', '.join(_SEARCH_FIELDS)} is required.")
        index = _find(self._people, *terms[0])
        if index is None:
            raise ApiError(404, "not_found", "There is no profile matching the given parameters.")
        return dump({"id": self._people.id(index)})

    async def members(self, context: Context, request: Request) -> bytes:
        group, members = await self._look_up(request)
        return dump([self._member(index, group) for index in members])

    async def subscribers(self, context: Context, request: Request) -> bytes:
        group, members = await self._look_up(request)
        return dump([self._member(index, group) for index in members if not self._is_suppressed(index, group)])

    def _member(self, index: int, group: Group) -> rows.Row:
        return rows.address(self._people.profile(index)) | {"created": rows.iso_time(group.joined[index])}

    async def _look_up(self, request: Request) -> tuple[Group, list[int]]:
        """Return the list, and its members among the requested persons."""
        group = _group(self._account.lists, "list", request)
        parameters = await query_and_body(request)
        emails, phones, tokens = (parameters.texts(name) for name in ("emails", "phone_numbers", "push_tokens"))
        if not 1 <= len(emails) + len(phones) + len(tokens) <= _MAX_IDENTIFIERS:
            raise invalid(
                f"From 1 to {_MAX_IDENTIFIERS} emails, phone numbers or push tokens can be looked up at once."
            )
        indexes = [self._people.index_of_email(email) for email in emails]
        indexes += [_find(self._people, "phone_number", phone) for phone in phones]
        return group, [index for index in dict.fromkeys(indexes) if index is not None and index in group.joined]

    def _is_suppressed(self, index: int, group: Group) -> bool:
        return any(entry.list_id in (None, group.id) for entry in self._people.suppressions.get(index, []))

    async def all_members(self, context: Context, request: Request) -> bytes:
        group = _group(self._account.lists | self._account.segments, "list or segment", request)
        parameters = await query_and_body(request)
        orders = self._account.orders
        following = _following(sorted(group.joined)) if orders is None else partial(orders.members_from, group.id)
        return _records(following, parameters, lambda index: [rows.address(self._people.profile(index))])

    async def list_exclusions(self, context: Context, request: Request) -> bytes:
        group = _group(self._account.lists, "list", request)
        return _records(
            self._excluded(group), await query_and_body(request), lambda index: self._list_exclusions(index, group)
        )

    def _excluded(self, group: Group) -> Following:
        """Return who is suppressed from a list."""
        if self._account.orders is not None:
            order = self._account.orders.suppressed(None, group.id, of_list=True)
            return partial(_people_from, order)
        return _following(
            [
                index
                for index, suppressions in sorted(self._people.suppressions.items())
                if any(entry.list_id == group.id for entry in suppressions)
            ]
        )

    def _list_exclusions(self, index: int, group: Group) -> list[rows.Row]:
        return [
            rows.address(self._people.profile(index))
            | {"reason": rows.LIST_REASONS[entry.reason], "created": rows.iso_time(entry.at)}
            for entry in self._people.suppressions[index]
            if entry.list_id == group.id
        ]

    async def exclusions(self, context: Context, request: Request) -> bytes:
        parameters = query(request)
        reason = parameters.choice("reason", ("", *rows.REASONS.values()), "")
        descending = parameters.choice("sort", ("asc", "desc"), "asc") == "desc"
        if self._account.orders is not None:
            suppressions = self._account.orders.suppressions(_BY_NAME.get(reason), descending)
            return paged(suppressions, parameters, lambda row: self._exclusion(*row), 500, 5000)
        exclusions = [row for row in self._exclusions() if reason in ("", row["reason"])]
        exclusions.sort(key=lambda row: (row["timestamp"], row["email"]), reverse=descending)
        return paged(exclusions, parameters, lambda row: row, 500, 5000)

    def _exclusion(self, index: int, suppression: Suppression) -> rows.Row:
        return rows.exclusion(self._people.email(index) or "", suppression)

    def _exclusions(self) -> Iterator[rows.Row]:
        """Yield an exclusion for each address and reason. The address is the key, so people without one have none."""
        for index, suppressions in self._people.suppressions.items():
            email = self._people.email(index)
            if email:
                yield from (rows.exclusion(email, entry) for entry in suppressions if entry.list_id is None)


def _group(groups: dict[str, Group], kind: str, request: Request) -> Group:
    group_id = request.path_params["id"]
    if group_id not in groups:
        raise not_found(kind, group_id)
    return groups[group_id]


def _following(indexes: Sequence[int]) -> Following:
    return lambda start: iter(indexes[bisect_left(indexes, start) :])


def _people_from(order: Order, start: int) -> Iterator[int]:
    """Yield the people of an order, which is that of their indexes, from an index on."""
    low = bisect_left(range(len(order)), start, key=lambda position: order.person(position) or 0)
    return (person for at in range(low, len(order)) if (person := order.person(at)) is not None)


def _records(following: Following, parameters: Parameters, render: Callable[[int], list[rows.Row]]) -> bytes:
    """Return a page of persons from the marker on. The marker of the next page is the index of its first person."""
    indexes = list(islice(following(parameters.number("marker", 0, 0, _MAX_MARKER)), _MAX_RECORDS + 1))
    body: dict[str, Any] = {"records": [row for index in indexes[:_MAX_RECORDS] for row in render(index)]}
    return dump(body | {"marker": indexes[-1]} if len(indexes) > _MAX_RECORDS else body)


def _find(people: People, field: str, value: str) -> int | None:
    """Return the index of the person with this value. A generated value contains the index of its person."""
    if field == "email":
        return people.index_of_email(value)
    generated = _GENERATED[field].fullmatch(value)
    candidates = ([int(generated[1])] if generated else []) + list(people.changes)
    for index in candidates:
        if index < len(people) and index not in people.erased and getattr(people.profile(index), field) == value:
            return index
    return None
