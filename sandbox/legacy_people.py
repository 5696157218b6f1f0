"""Persons in v1 and v2: who they are, who is on a list, and who is excluded from it or from everything."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from starlette.requests import Request

from sandbox import legacy_rows
from sandbox.account import Account, Group
from sandbox.content import dump
from sandbox.errors import ApiError
from sandbox.legacy_dialect import Parameters, invalid, not_found, query, query_and_body
from sandbox.legacy_paging import paged
from sandbox.people import People
from sandbox.server import Box

_LOOKED_UP = 100  # identifiers in one request
_RECORDS = 1000  # on one page of members or exclusions
_SEARCHES = ("email", "phone_number", "external_id")


class LegacyPeople:
    """The answers about persons."""

    def __init__(self, account: Account) -> None:
        self._account = account

    @property
    def _people(self) -> People:
        return self._account.people

    async def person(self, box: Box, request: Request) -> bytes:
        index = self._people.index_of(request.path_params["id"])
        if index is None:
            raise not_found("person", request.path_params["id"])
        return dump(legacy_rows.person(self._people.profile(index)))

    async def search(self, box: Box, request: Request) -> bytes:
        asked = await query_and_body(request)
        given = [(name, text) for name in _SEARCHES if (text := asked.text(name))]
        if len(given) != 1:
            raise invalid(f"Exactly one of {', '.join(_SEARCHES)} is required.")
        index = _find(self._people, *given[0])
        if index is None:
            raise ApiError(404, "not_found", "There is no profile matching the given parameters.")
        return dump({"id": self._people.id(index)})

    async def members(self, box: Box, request: Request) -> bytes:
        group, found = await self._looked_up(request)
        return dump([self._member(index, group) for index in found])

    async def subscribers(self, box: Box, request: Request) -> bytes:
        group, found = await self._looked_up(request)
        return dump([self._member(index, group) for index in found if not self._is_suppressed(index, group)])

    def _member(self, index: int, group: Group) -> legacy_rows.Row:
        known = legacy_rows.address(self._people.profile(index))
        return known | {"created": legacy_rows.zulu(group.joined[index])}

    async def _looked_up(self, request: Request) -> tuple[Group, list[int]]:
        """The list, and which of the persons asked for are on it."""
        group = _named(self._account.lists, "list", request)
        asked = await query_and_body(request)
        emails, phones, tokens = (asked.texts(name) for name in ("emails", "phone_numbers", "push_tokens"))
        if not 1 <= len(emails) + len(phones) + len(tokens) <= _LOOKED_UP:
            raise invalid(f"From 1 to {_LOOKED_UP} emails, phone numbers or push tokens can be looked up at once.")
        found = [self._people.index_of_email(email) for email in emails]
        found += [_find(self._people, "phone_number", phone) for phone in phones]
        return group, [index for index in dict.fromkeys(found) if index is not None and index in group.joined]

    def _is_suppressed(self, index: int, group: Group) -> bool:
        return any(found.list_id in (None, group.id) for found in self._people.suppressions.get(index, []))

    async def all_members(self, box: Box, request: Request) -> bytes:
        group = _named(self._account.lists | self._account.segments, "list or segment", request)
        asked = await query_and_body(request)
        return _records(sorted(group.joined), asked, lambda index: [legacy_rows.address(self._people.profile(index))])

    async def list_exclusions(self, box: Box, request: Request) -> bytes:
        group = _named(self._account.lists, "list", request)
        excluded = [
            index
            for index, known in sorted(self._people.suppressions.items())
            if any(found.list_id == group.id for found in known)
        ]
        return _records(excluded, await query_and_body(request), lambda index: self._list_exclusions(index, group))

    def _list_exclusions(self, index: int, group: Group) -> list[legacy_rows.Row]:
        return [
            legacy_rows.address(self._people.profile(index))
            | {"reason": legacy_rows.LIST_REASONS[found.reason], "created": legacy_rows.zulu(found.at)}
            for found in self._people.suppressions[index]
            if found.list_id == group.id
        ]

    async def exclusions(self, box: Box, request: Request) -> bytes:
        asked = query(request)
        reason = asked.word("reason", ("", *legacy_rows.REASONS.values()), "")
        rows = [row for row in self._exclusions() if reason in ("", row["reason"])]
        rows.sort(
            key=lambda row: (row["timestamp"], row["email"]),
            reverse=asked.word("sort", ("asc", "desc"), "asc") == "desc",
        )
        return paged(rows, asked, lambda row: row, 500, 5000)

    def _exclusions(self) -> Iterator[legacy_rows.Row]:
        """One for each address and reason; persons without an address have none, the address being the key."""
        for index, known in self._people.suppressions.items():
            email = self._people.email(index)
            if email:
                yield from (legacy_rows.exclusion(email, found) for found in known if found.list_id is None)


def _named(groups: dict[str, Group], kind: str, request: Request) -> Group:
    group_id = request.path_params["id"]
    if group_id not in groups:
        raise not_found(kind, group_id)
    return groups[group_id]


def _records(indexes: Sequence[int], asked: Parameters, render: Callable[[int], list[legacy_rows.Row]]) -> bytes:
    """A page of the persons from the marker on; the marker of the next page is the person that it starts with."""
    start = bisect_left(indexes, asked.number("marker", 0, 0, 10**12))
    shown, more = indexes[start : start + _RECORDS], indexes[start + _RECORDS : start + _RECORDS + 1]
    body: dict[str, Any] = {"records": [row for index in shown for row in render(index)]}
    return dump(body | {"marker": more[0]} if more else body)


_PATTERNS = {"phone_number": re.compile(r"\+1555(\d{7})"), "external_id": re.compile(r"crm-(\d{1,9})")}


def _find(people: People, field: str, value: str) -> int | None:
    """Which person has this value: what is generated says so itself, what tests have set is looked through."""
    if field == "email":
        return people.index_of_email(value)
    generated = _PATTERNS[field].fullmatch(value)
    candidates = ([int(generated[1])] if generated else []) + list(people.changes)
    for index in candidates:
        if index < len(people) and index not in people.erased and getattr(people.profile(index), field) == value:
            return index
    return None
