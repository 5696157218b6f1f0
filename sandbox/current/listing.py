"""Filtered, sorted and paged views of rows and people. A view is computed once and then paged by key."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sandbox.account import Account, Group
from sandbox.account.people import Suppression
from sandbox.current.filters import Condition, matches
from sandbox.current.query import Query

_MAX_VIEWS = 32  # a loader reads several lists at the same time
SUPPRESSION = "subscriptions.email.marketing.suppression."
LIST_SUPPRESSION = "subscriptions.email.marketing.list_suppressions."


class Entry(NamedTuple):
    """A sort key as text, the id that breaks ties, and the row or the index of the person."""

    key: str
    id: str
    item: Any


class Page(NamedTuple):
    """The rows of a page, and the cursor of the next page if there is one."""

    items: list[Any]
    next: list[Any] | None


class Views:
    """A cache of the most recent views. A view is valid until the account changes."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._views: dict[Any, list[Entry]] = {}

    def page(self, name: object, query: Query, make: Callable[[], Iterable[Entry]]) -> Page:
        """Return a page of the view for this query. `make` returns the entries of the view in any order."""
        key = (self._account.generation, name, tuple(query.conditions), query.sort)
        if key not in self._views:
            while len(self._views) >= _MAX_VIEWS:
                del self._views[next(iter(self._views))]
            self._views[key] = sorted(make(), key=lambda entry: entry[:2])
        return _page(self._views[key], query)


def _page(entries: list[Entry], query: Query) -> Page:
    size = query.page_size
    after = (str(query.cursor[0]), str(query.cursor[1])) if query.cursor else None
    if query.descending:
        high = len(entries) if after is None else bisect_left(entries, after, key=lambda entry: entry[:2])
        shown = entries[max(0, high - size) : high][::-1]
        more = high > size
    else:
        low = 0 if after is None else bisect_right(entries, after, key=lambda entry: entry[:2])
        shown = entries[low : low + size]
        more = low + size < len(entries)
    return Page([entry.item for entry in shown], [shown[-1].key, shown[-1].id] if more and shown else None)


_ATTRIBUTE_PATHS = {"messages.channel": "channel"}


def _value(row: Any, field: str) -> Any:
    value = row
    for name in _ATTRIBUTE_PATHS.get(field, field).split("."):
        value = getattr(value, name, None)
    return int(value.timestamp()) if isinstance(value, datetime) else value


def _key(value: Any) -> str:
    return "" if value is None else f"{value:015d}" if isinstance(value, int) else str(value)


def rows(source: Iterable[Any], query: Query) -> list[Entry]:
    """Return the rows that meet the query's conditions."""
    return [
        Entry(_key(_value(row, query.sort)) if query.sort else "", row.id, row)
        for row in source
        if all(matches(condition, _value(row, condition.field)) for condition in query.conditions)
    ]


def people(account: Account, query: Query) -> list[Entry]:
    """Return the people who meet the query's conditions."""
    entries = []
    for index in _candidates(account, query.conditions):
        if all(person_meets(account, index, condition) for condition in query.conditions):
            entries.append(Entry(_person_key(account, index, query), account.people.id(index), index))
    return entries


def _candidates(account: Account, conditions: list[Condition]) -> Iterable[int]:
    people = account.people
    for condition in conditions:
        wanted = condition.value if condition.operator == "any" else (condition.value,)
        if condition.field in ("id", "email"):
            find = people.index_of if condition.field == "id" else people.index_of_email
            return sorted({index for index in map(find, wanted) if index is not None})
        if condition.field.startswith((SUPPRESSION, LIST_SUPPRESSION)):
            return sorted(people.suppressions)
    return people.indexes()


def person_meets(account: Account, index: int, condition: Condition) -> bool:
    """Return whether a person meets a condition."""
    people, field = account.people, condition.field
    if field == "created":
        return matches(condition, people.created[index])
    if field == "updated":
        return matches(condition, people.updated[index])
    if field.startswith((SUPPRESSION, LIST_SUPPRESSION)):
        name = field.rsplit(".", 1)[1]
        return any(
            matches(condition, row.at if name == "timestamp" else getattr(row, name))
            for row in _suppressions(account, index, field)
        )
    if field in ("id", "profile_id"):
        return matches(condition, people.id(index))
    if field == "email":
        return matches(condition, people.email(index))
    return matches(condition, getattr(people.profile(index), field, None))


def _suppressions(account: Account, index: int, field: str) -> list[Suppression]:
    of_list = field.startswith(LIST_SUPPRESSION)
    return [row for row in account.people.suppressions.get(index, []) if (row.list_id is not None) == of_list]


def _person_key(account: Account, index: int, query: Query) -> str:
    if query.sort in ("", "id"):
        return ""
    if query.sort.endswith(".timestamp"):
        return _key(min((row.at for row in _suppressions(account, index, query.sort)), default=None))
    if query.sort == "email":
        return _key(account.people.email(index))
    times = account.people.created if query.sort == "created" else account.people.updated
    return _key(times[index])


def members(account: Account, group: Group, query: Query) -> list[Entry]:
    """Return the members of a list or segment who meet the query's conditions, by time of joining."""
    return [
        Entry(_key(joined), account.people.id(index), index)
        for index, joined in group.joined.items()
        if all(
            matches(condition, joined)
            if condition.field == "joined_group_at"
            else person_meets(account, index, condition)
            for condition in query.conditions
        )
    ]
