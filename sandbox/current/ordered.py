"""Pages of people in an order that the account knows, so that nothing is sorted or held in memory."""

from itertools import islice

from sandbox.account import Account, Group
from sandbox.account.orders import Order, Orders, places
from sandbox.api.errors import ApiError
from sandbox.current.filters import Condition, span
from sandbox.current.listing import LIST_SUPPRESSION, SUPPRESSION, Page, person_meets
from sandbox.current.query import Query


def people(account: Account, orders: Orders, query: Query) -> Page:
    """Return a page of the people who meet the query's conditions."""
    order, field = _order(orders, query)
    rest = [condition for condition in query.conditions if condition.field != field]
    return _page(account, order, query, field, rest)


def members(account: Account, orders: Orders, group: Group, query: Query) -> Page:
    """Return a page of the members of a list or segment, by time of joining."""
    rest = [condition for condition in query.conditions if condition.field != "joined_group_at"]
    return _page(account, orders.members(group.id), query, "joined_group_at", rest)


def _order(orders: Orders, query: Query) -> tuple[Order, str]:
    """Return the order to read, and the field whose conditions are bounds within it."""
    values = {each.field: each.value for each in query.conditions if each.operator == "equals"}
    fields = {condition.field for condition in query.conditions}
    for prefix in (SUPPRESSION, LIST_SUPPRESSION):
        if any(field.startswith(prefix) for field in (*fields, query.sort)):
            reason, list_id = values.get(f"{prefix}reason"), values.get(f"{prefix}list_id")
            return orders.suppressed(reason, list_id, prefix == LIST_SUPPRESSION), f"{prefix}timestamp"
    by_updated = query.sort == "updated" or (not query.sort and "updated" in fields)
    return (orders.by_updated, "updated") if by_updated else (orders.by_created, "created")


def _page(account: Account, order: Order, query: Query, field: str, rest: list[Condition]) -> Page:
    since, until = span(query.conditions, field)
    found = places(
        order,
        since,
        until,
        _after(query),
        query.descending,
        lambda person: all(person_meets(account, person, condition) for condition in rest),
    )
    shown = list(islice(found, query.page_size))
    has_more = len(shown) == query.page_size and next(found, None) is not None
    return Page([place.person for place in shown], ["", shown[-1].position] if has_more else None)


def _after(query: Query) -> int | None:
    if query.cursor is None:
        return None
    position = query.cursor[1]
    if not isinstance(position, int):
        raise ApiError(400, "invalid", "Invalid cursor provided.")
    return position
