"""The members of lists and segments. Membership follows from a person's index and from the day of a change.

A list has every n-th person. On an added day, some of the people who change join it, and some members leave.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, MutableMapping
from itertools import accumulate
from typing import NamedTuple

from sandbox.derived.arithmetic import count_below
from sandbox.derived.lives import Lives


class Rule(NamedTuple):
    """Every `step`-th person from `first` on is a member, since the creation or, if later, since `imported`."""

    step: int
    first: int
    imported: int


class Members(MutableMapping[int, int]):
    """The members of a list by index, each with the second of joining. It also is their order by that time.

    Positions are first those of the members before the added days, by index, then those of each added day: people who
    changed and joined, and new people.
    """

    def __init__(self, lives: Lives, rule: Rule) -> None:
        self.lives, self._rule = lives, rule
        self._days: list[tuple[array[int], range]] | None = None
        self._starts: list[int] = []
        self._left = 0

    def renew(self, lives: Lives) -> None:
        """Replace the people by the same people and more."""
        self.lives, self._days = lives, None

    def _by_day(self) -> "list[tuple[array[int], range]]":
        if self._days is None:
            lives, step, first = self.lives, self._rule.step, self._rule.first
            days, self._left = [], 0
            for day in range(1, lives.days + 1):
                changed = lives.changed_on(day)
                days.append(
                    (array("I", filter(self._joins, changed)), self._members(lives.sizes[day - 1], lives.sizes[day]))
                )
                self._left += sum(map(self._leaves, changed))
            sizes = [count_below(lives.base, step, first), *(len(joined) + len(new) for joined, new in days)]
            self._starts, self._days = list(accumulate(sizes)), days
        return self._days

    def _members(self, low: int, high: int) -> range:
        step, first = self._rule.step, self._rule.first
        return range(low + (first - low) % step, high, step)

    def _belongs(self, person: int) -> bool:
        return person % self._rule.step == self._rule.first

    def _joins(self, person: int) -> bool:
        """Return whether a person who changes joins then."""
        return person % self._rule.step == (self._rule.first + 1) % self._rule.step

    def _leaves(self, person: int) -> bool:
        """Return whether a person who changes leaves then."""
        return self._belongs(person) and person // self.lives.cycle % 2 == 0

    def __len__(self) -> int:
        days = self._by_day()
        return self._starts[-1] - self._left if days else self._starts[-1]

    @property
    def positions(self) -> int:
        """Return the number of positions, including those of people who have left."""
        self._by_day()
        return self._starts[-1]

    def person(self, position: int) -> int | None:
        """Return the member at a position, or None if that person has left."""
        person = self._person(position)
        return None if self._has_left(person) else person

    def _person(self, position: int) -> int:
        days = self._by_day()
        day = bisect_right(self._starts, position)
        if not day:
            return self._rule.first + position * self._rule.step
        joined, new = days[day - 1]
        at = position - self._starts[day - 1]
        return joined[at] if at < len(joined) else new[at - len(joined)]

    def time(self, position: int) -> int:
        """Return when the person at a position joined."""
        return self._joined(self._person(position))

    def _joined(self, person: int) -> int:
        if self._belongs(person):
            return max(self._rule.imported, self.lives.created.time(person))
        return self.lives.updated.time(self.lives.position(person))

    def _has_left(self, person: int) -> bool:
        return self._leaves(person) and self.lives.day_of_change(person) > 0

    def __contains__(self, person: object) -> bool:
        if not isinstance(person, int) or not 0 <= person < len(self.lives):
            return False
        if self._belongs(person):
            return not self._has_left(person)
        return self._joins(person) and self.lives.day_of_change(person) > 0

    def __getitem__(self, person: int) -> int:
        if person not in self:
            raise KeyError(person)
        return self._joined(person)

    def __iter__(self) -> Iterator[int]:
        return self.following(0)

    def following(self, person: int) -> Iterator[int]:
        """Yield the members from an index on, in order of their indexes."""
        step, first = self._rule.step, self._rule.first
        low = person - person % step
        for start in range(low, len(self.lives), step):
            yield from (at for at in sorted((start + first, start + (first + 1) % step)) if at >= person and at in self)

    def __setitem__(self, person: int, joined: int) -> None:
        raise ValueError("The members of a large account's lists cannot be changed.")

    def __delitem__(self, person: int) -> None:
        raise ValueError("The members of a large account's lists cannot be changed.")


def rule(at: int, imported: int) -> Rule:
    """Return the rule of a list or segment: the first one has half of the people, the next ones ever fewer."""
    step = round(2 * (1 + at) ** 1.2)
    return Rule(step, at * 7 % step, imported if at % 5 == 1 else 0)
