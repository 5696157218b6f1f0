"""The suppressions of a derived account. They follow from a person's index, so that they can be counted and found.

A suppression begins when the person is created, so that the order of people is the order of their suppressions.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, overload

from sandbox.account.content import SUPPRESSION_REASONS
from sandbox.account.people import Suppression
from sandbox.derived.arithmetic import count_below
from sandbox.derived.lives import Lives

_EVERYWHERE, _FIRST = 6, 3  # one person in six is suppressed from all email marketing, the first has this index
_REASONS = len(SUPPRESSION_REASONS)
_SECOND = 7  # one suppressed person in seven has a second reason
_PERIOD = _REASONS * _SECOND
_OF_LIST, _FIRST_OF_LIST = 41, 5


class Row(NamedTuple):
    """A suppression of a person: the index and which of the person's suppressions it is."""

    person: int
    which: int


def reasons_of(person: int) -> list[str]:
    """Return the reasons for which a person is suppressed from all email marketing."""
    number, rest = divmod(person - _FIRST, _EVERYWHERE)
    if rest:
        return []
    reasons = [SUPPRESSION_REASONS[number % _REASONS]]
    return reasons if number % _SECOND else [*reasons, SUPPRESSION_REASONS[(number + 1) % _REASONS]]


class Suppressions(Mapping[int, list[Suppression]]):
    """The suppressions of each person who has any."""

    def __init__(self, lives: Lives, lists: Sequence[str]) -> None:
        self.lives, self._lists = lives, lists

    def __getitem__(self, person: int) -> list[Suppression]:
        if not 0 <= person < len(self.lives):
            raise KeyError(person)
        at = self.lives.created.time(person)
        rows = [Suppression(reason, at) for reason in reasons_of(person)]
        if person % _OF_LIST == _FIRST_OF_LIST:
            rows.append(Suppression("UNSUBSCRIBE", at, self._lists[person // _OF_LIST % len(self._lists)]))
        if not rows:
            raise KeyError(person)
        return rows

    def __iter__(self) -> Iterator[int]:
        return (person for person in range(len(self.lives)) if person in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Suppressed:
    """The suppressions from all email marketing, for a reason or for any, in order. A position is one of them.

    With `once`, only the first suppression of a person counts.
    """

    def __init__(self, lives: Lives, reason: str | None, once: bool = False) -> None:
        self._lives = lives
        self._rows = [
            Row(number, which)
            for number in range(_PERIOD)
            for which, each in enumerate(reasons_of(_FIRST + number * _EVERYWHERE))
            if reason in (None, each) and not (once and which)
        ]

    def __len__(self) -> int:
        periods, rest = divmod(count_below(len(self._lives), _EVERYWHERE, _FIRST), _PERIOD)
        return periods * len(self._rows) + bisect_left(self._rows, rest, key=lambda row: row.person)

    def row(self, position: int) -> Row:
        """Return the suppression at a position."""
        period, at = divmod(position, len(self._rows))
        row = self._rows[at]
        return Row(_FIRST + (period * _PERIOD + row.person) * _EVERYWHERE, row.which)

    def person(self, position: int) -> int | None:
        return self.row(position).person

    def time(self, position: int) -> int:
        return self._lives.created.time(self.row(position).person)


class Rows(Sequence[tuple[int, Suppression]]):
    """Suppressions with their people, in order of time or in reverse."""

    def __init__(self, lives: Lives, reason: str | None, descending: bool) -> None:
        self._lives, self._order, self._descending = lives, Suppressed(lives, reason), descending

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, at: int) -> tuple[int, Suppression]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[tuple[int, Suppression]]: ...
    def __getitem__(self, at: int | slice) -> tuple[int, Suppression] | Sequence[tuple[int, Suppression]]:
        if isinstance(at, slice):
            return [self[position] for position in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        person, which = self._order.row(len(self) - 1 - at if self._descending else at)
        return person, Suppression(reasons_of(person)[which], self._lives.created.time(person))


class SuppressedFromLists:
    """The suppressions from one list, or from any, in order."""

    def __init__(self, lives: Lives, lists: Sequence[str], list_id: str | None) -> None:
        self._lives = lives
        number = None if list_id is None else lists.index(list_id) if list_id in lists else -1
        self._first = _FIRST_OF_LIST + (number or 0) * _OF_LIST
        self._step = _OF_LIST if number is None else _OF_LIST * len(lists)
        self._is_none = number == -1

    def __len__(self) -> int:
        return 0 if self._is_none else count_below(len(self._lives), self._step, self._first)

    def person(self, position: int) -> int | None:
        return self._first + position * self._step

    def time(self, position: int) -> int:
        return self._lives.created.time(self._first + position * self._step)
