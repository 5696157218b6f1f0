"""Filtered, sorted and paged views of rows and people; a view is worked out once and then paged by keyset."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sandbox.account import Account, Group
from sandbox.filters import Condition, matches
from sandbox.people import Suppression
from sandbox.query import Query

_CACHED_VIEWS = 32  # a loader reads several lists side by side
_SUPPRESSION = "subscriptions.email.marketing.suppression."
_LIST_SUPPRESSION = "subscriptions.email.marketing.list_suppressions."


class Entry(NamedTuple):
    """A sort value as sortable text, the id that breaks ties, and the row or the index of the person."""

    key: str
    id: str
    item: Any


class Page(NamedTuple):
    """The rows of one page, and the cursor of the next if there is one."""

    items: list[Any]
    next: list[Any] | None


class Views:
    """Keeps the last few views, each for as long as the account does not change."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._known: dict[Any, list[Entry]] = {}

    def page(self, name: object, query: Query, make: Callable[[], Iterable[Entry]]) -> Page:
        """One page of the view that `make` gives, unsorted, for this query."""
        known = (self._account.generation, name, tuple(query.conditions), query.sort)
        if known not in self._known:
            while len(self._known) >= _CACHED_VIEWS:
                del self._known[next(iter(self._known))]
            self._known[known] = sorted(make(), key=lambda entry: entry[:2])
        return _page(self._known[known], query)


def _page(entries: list[Entry], query: Query) -> Page:
    place = (str(query.cursor[0]), str(query.cursor[1])) if query.cursor else None
    if query.descending:
        high = len(entries) if place is None else bisect_left(entries, place, key=lambda entry: entry[:2])
        part = entries[max(0, high - query.size) : high][::-1]
        more = high > query.size
    else:
        low = 0 if place is None else bisect_right(entries, place, key=lambda entry: entry[:2])
        part = entries[low : low + query.size]
        more = low + query.size < len(entries)
    return Page([entry.item for entry in part], [part[-1].key, part[-1].id] if more and part else None)


_NAMES = {"messages.channel": "channel"}


def _value(row: Any, field: str) -> Any:
    value = row
    for name in _NAMES.get(field, field).split("."):
        value = getattr(value, name, None)
    return int(value.timestamp()) if isinstance(value, datetime) else value


def _key(value: Any) -> str:
    return "" if value is None else f"{value:015d}" if isinstance(value, int) else str(value)


def rows(source: Iterable[Any], query: Query) -> list[Entry]:
    """The rows that meet the query's conditions."""
    return [
        Entry(_key(_value(row, query.sort)) if query.sort else "", row.id, row)
        for row in source
        if all(matches(condition, _value(row, condition.field)) for condition in query.conditions)
    ]


def people(account: Account, query: Query) -> list[Entry]:
    """The people that meet the query's conditions."""
    entries = []
    for index in _candidates(account, query.conditions):
        if all(_person_meets(account, index, condition) for condition in query.conditions):
            entries.append(Entry(_person_key(account, index, query), account.people.id(index), index))
    return entries


def _candidates(account: Account, conditions: list[Condition]) -> Iterable[int]:
    people = account.people
    for condition in conditions:
        wanted = condition.value if condition.operator == "any" else (condition.value,)
        if condition.field in ("id", "email"):
            find = people.index_of if condition.field == "id" else people.index_of_email
            return sorted({index for index in map(find, wanted) if index is not None})
        if condition.field.startswith((_SUPPRESSION, _LIST_SUPPRESSION)):
            return sorted(people.suppressions)
    return people.indexes()


def _person_meets(account: Account, index: int, condition: Condition) -> bool:
    people, field = account.people, condition.field
    if field == "created":
        return matches(condition, people.created[index])
    if field == "updated":
        return matches(condition, people.updated[index])
    if field.startswith((_SUPPRESSION, _LIST_SUPPRESSION)):
        name = field.rsplit(".", 1)[1]
        return any(
            matches(condition, found.at if name == "timestamp" else getattr(found, name))
            for found in _suppressions(account, index, field)
        )
    if field in ("id", "profile_id"):
        return matches(condition, people.id(index))
    if field == "email":
        return matches(condition, people.email(index))
    return matches(condition, getattr(people.profile(index), field, None))


def _suppressions(account: Account, index: int, field: str) -> list[Suppression]:
    of_list = field.startswith(_LIST_SUPPRESSION)
    return [found for found in account.people.suppressions.get(index, []) if (found.list_id is not None) == of_list]


def _person_key(account: Account, index: int, query: Query) -> str:
    if query.sort in ("", "id"):
        return ""
    if query.sort.endswith(".timestamp"):
        return _key(min((found.at for found in _suppressions(account, index, query.sort)), default=None))
    return _key(
        {"created": account.people.created, "updated": account.people.updated}[query.sort][index]
        if query.sort != "email"
        else account.people.email(index)
    )


def members(account: Account, group: Group, query: Query) -> list[Entry]:
    """The members of a list or segment that meet the query's conditions, by the time that they joined."""
    return [
        Entry(_key(joined), account.people.id(index), index)
        for index, joined in group.joined.items()
        if all(
            matches(condition, joined)
            if condition.field == "joined_group_at"
            else _person_meets(account, index, condition)
            for condition in query.conditions
        )
    ]
