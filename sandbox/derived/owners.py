"""The person of each event, and the events of each person. A few people have most of the events.

Events repeat a pattern of slots. Each slot belongs to a class of people, whose members take turns.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate

from sandbox.account.timeline import NOBODY
from sandbox.derived.arithmetic import Permutation
from sandbox.derived.options import DerivedOptions

_CLASSES = ((0.01, 18), (0.09, 21), (0.4, 19), (0.45, 3))  # the share of the people, and slots; others have no events
_SLOTS = 61  # coprime to the number of slots of the pattern of metrics
_ANONYMOUS = 509  # one event in so many has no person


class Owners:
    """The mapping in both directions. Only people before the added days have events."""

    def __init__(self, options: DerivedOptions) -> None:
        self._people = Permutation(options.members, options.number("people"))
        sizes = [max(1, int(options.members * share)) for share, _ in _CLASSES]
        self._first = [0, *accumulate(sizes)]
        self._turns = [Permutation(size, options.number("turns", at)) for at, size in enumerate(sizes)]
        order = Permutation(_SLOTS, options.number("slots"))
        owners = [at for at, (_, slots) in enumerate(_CLASSES) for _ in range(slots)]
        self._slots = [owners[order.at(slot)] for slot in range(_SLOTS)]
        self._slots_of = [[slot for slot, owner in enumerate(self._slots) if owner == at] for at in range(len(sizes))]
        self._rank = [self._slots_of[owner].index(slot) for slot, owner in enumerate(self._slots)]

    def person(self, ref: int) -> int:
        """Return the index of an event's person, or NOBODY."""
        if ref % _ANONYMOUS == 7:
            return NOBODY
        owner, turn = self._turn(ref)
        turns = self._turns[owner]
        return self._people.at(self._first[owner] + turns.at(turn % turns.size))

    def _turn(self, ref: int) -> tuple[int, int]:
        """Return the class of the people that an event belongs to, and its number among the events of the class."""
        repetition, slot = divmod(ref, _SLOTS)
        owner = self._slots[slot]
        return owner, repetition * len(self._slots_of[owner]) + self._rank[slot]

    def earlier(self, ref: int) -> Iterator[int]:
        """Yield the references of the earlier events of an event's person, the latest first."""
        if ref % _ANONYMOUS == 7:
            return
        owner, turn = self._turn(ref)
        size = self._turns[owner].size
        for each in range(turn - size, -1, -size):
            found = self._ref(owner, each)
            if found % _ANONYMOUS != 7:
                yield found

    def last(self, person: int, events: int) -> int | None:
        """Return the reference of a person's last event."""
        place = self._place(person, events)
        if place is None:
            return None
        owner, first, turns = place
        size, last = self._turns[owner].size, turns - 1
        for turn in range(last - (last - first) % size, -1, -size):
            ref = self._ref(owner, turn)
            if ref % _ANONYMOUS != 7:
                return ref
        return None

    def refs(self, person: int, events: int) -> list[int]:
        """Return the references of a person's events, in order."""
        place = self._place(person, events)
        if place is None:
            return []
        owner, first, turns = place
        refs = (self._ref(owner, turn) for turn in range(first, turns, self._turns[owner].size))
        return [ref for ref in refs if ref % _ANONYMOUS != 7]

    def _place(self, person: int, events: int) -> tuple[int, int, int] | None:
        """Return a person's class and first turn, and the number of turns of the class among the events."""
        if person >= self._people.size:
            return None
        rank = self._people.position(person)
        owner = bisect_right(self._first, rank) - 1
        if owner >= len(self._turns):
            return None
        first = self._turns[owner].position(rank - self._first[owner])
        repetitions, rest = divmod(events, _SLOTS)
        slots = self._slots_of[owner]
        turns = repetitions * len(slots) + bisect_left(slots, rest)
        return (owner, first, turns) if first < turns else None

    def _ref(self, owner: int, turn: int) -> int:
        slots = self._slots_of[owner]
        repetition, rank = divmod(turn, len(slots))
        return repetition * _SLOTS + slots[rank]
