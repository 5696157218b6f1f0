"""The reading of people in an order that an account knows without sorting them.

An account that has orders is too large to list its people in memory. A position in an order is a number; some positions
may be empty.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from sandbox.account.people import Suppression


class Order(Protocol):
    """People in order of a time."""

    def __len__(self) -> int:
        """Return the number of positions."""

    def time(self, position: int) -> int:
        """Return the second by which a position is sorted."""

    def person(self, position: int) -> int | None:
        """Return the index of the person at a position."""


class Orders(Protocol):
    """The orders of an account."""

    @property
    def by_created(self) -> Order:
        """Return everybody in the order in which they were created."""

    @property
    def by_updated(self) -> Order:
        """Return everybody in the order in which they were last updated."""

    def suppressed(self, reason: str | None, list_id: str | None = None, of_list: bool = False) -> Order:
        """Return who is suppressed for a reason, or for any, in order of the suppression's time.

        With `of_list`, suppressions from one list are meant, or from any if `list_id` is None.
        """

    def members(self, group_id: str) -> Order:
        """Return the members of a list or segment in the order in which they joined."""

    def members_from(self, group_id: str, index: int) -> Iterator[int]:
        """Yield the members of a list or segment by index, from an index on."""

    def suppressions(self, reason: str | None, descending: bool) -> Sequence[tuple[int, Suppression]]:
        """Return the suppressions from all email marketing for a reason, or for any, in order of their time."""


class Place(NamedTuple):
    """A position and the person there."""

    position: int
    person: int


def places(
    order: Order,
    since: int,
    until: int,
    after: int | None = None,
    descending: bool = False,
    keep: Callable[[int], bool] = lambda person: True,
) -> Iterator[Place]:
    """Yield the places of an order within the half-open seconds [since, until), after a position."""
    positions = range(len(order))
    low = bisect_left(positions, since, key=order.time)
    high = bisect_left(positions, until, lo=low, key=order.time)
    if after is not None:
        low, high = (low, min(high, after)) if descending else (max(low, after + 1), high)
    for position in range(high - 1, low - 1, -1) if descending else range(low, high):
        person = order.person(position)
        if person is not None and keep(person):
            yield Place(position, person)
