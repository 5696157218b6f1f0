"""When people are created, and when they are last updated, before and on the added days."""

from bisect import bisect_right

from sandbox.derived.arithmetic import Permutation
from sandbox.derived.calendar import created_calendar, people_of_a_day, updated_calendar
from sandbox.derived.options import STRIDE, DerivedOptions

_BLOCK = 4_096  # people who are updated in another order than they were created in


class Lives:
    """The people in order of creation, which is their index, and in order of their last update.

    On each added day, one of `cycle` people changes, and then new people come.
    """

    def __init__(self, options: DerivedOptions) -> None:
        self.cycle, self.base = options.cycle, options.members
        self._day_of = pow(STRIDE, -1, self.cycle)
        created = created_calendar(options)
        updated = updated_calendar(options, created, _BLOCK)
        self._full = Permutation(_BLOCK, options.number("block"))
        self._rest = Permutation(self.base % _BLOCK or 1, options.number("rest"))
        self.sizes = [self.base]  # people before each added day
        self.starts = [self.base]  # positions in the order of updates before each added day
        for day in range(1, options.added_days + 1):
            changed, new = len(self.changed_on(day)), options.daily_people
            created = created.extended(people_of_a_day(0, new))
            updated = updated.extended(people_of_a_day(changed, new))
            self.sizes.append(self.sizes[-1] + new)
            self.starts.append(self.starts[-1] + changed + new)
        self.created, self.updated = created, updated

    def __len__(self) -> int:
        return self.sizes[-1]

    @property
    def days(self) -> int:
        return len(self.sizes) - 1

    def changed_on(self, day: int) -> range:
        """Return the people who change on an added day, counted from 1, in order of time."""
        return range(day * STRIDE % self.cycle, self.sizes[day - 1], self.cycle)

    def new_on(self, day: int) -> range:
        """Return the people who are created on an added day."""
        return range(self.sizes[day - 1], self.sizes[day])

    def day_of_change(self, person: int) -> int:
        """Return the day on which a person changes, or 0 if that person does not."""
        day = person * self._day_of % self.cycle
        return day if 1 <= day <= self.days and person < self.sizes[day - 1] else 0

    def position(self, person: int) -> int:
        """Return the position of a person in the order of updates."""
        day = self.day_of_change(person)
        if day:
            return self.starts[day - 1] + person // self.cycle
        if person < self.base:
            block, within = divmod(person, _BLOCK)
            return block * _BLOCK + self._of(block).position(within)
        day = bisect_right(self.sizes, person)
        return self.starts[day - 1] + len(self.changed_on(day)) + person - self.sizes[day - 1]

    def person(self, position: int) -> int | None:
        """Return the person who was last updated there, or None if that person was updated again."""
        if position < self.base:
            block, within = divmod(position, _BLOCK)
            person = block * _BLOCK + self._of(block).at(within)
            return None if self.day_of_change(person) else person
        day = bisect_right(self.starts, position)
        changed, at = self.changed_on(day), position - self.starts[day - 1]
        if at < len(changed):
            return changed[at]
        new = self.new_on(day)[at - len(changed)]
        return None if self.day_of_change(new) else new

    def _of(self, block: int) -> Permutation:
        return self._full if (block + 1) * _BLOCK <= self.base else self._rest
