"""All events in order of time, in a few bytes each: a time, a metric, a person and a source; the rest is worked out.

An event is known by its reference: its place in time, or, for one added later, ADDED and a running number.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from sandbox.ids import EventIds
from sandbox.properties import Source, Style

ADDED = 1 << 40
NOBODY = 0xFFFFFFFF
EARLIEST, LATEST = -(1 << 36), 1 << 38  # seconds; the years 1 and 9999 lie within
Mark = tuple[int, int]  # a time and a reference: where a reader has got to


@dataclass(slots=True)
class AddedEvent:
    """One event that was not generated; id and timestamp are JSON as the reader shall see it, None if left out.

    `odd` holds the same for other members, named as in the current dialect, where they are not the usual ones.
    """

    time: int
    metric: int | None
    person: int
    properties: bytes
    id: bytes | None
    timestamp: bytes | None
    message: str | None
    flow: str | None
    value: float = 0.0
    odd: dict[str, bytes | None] = field(default_factory=dict)


class Window(NamedTuple):
    """Which events to read: of one metric (or of all), in the half-open seconds [since, until)."""

    metric: int | None = None
    since: int = EARLIEST
    until: int = LATEST


class Timeline:
    """Generated events in arrays sorted by time, and added events beside them."""

    def __init__(
        self,
        ids: EventIds,
        times: "array[int]",
        metrics: "array[int]",
        persons: "array[int]",
        sources: "array[int]",
        styles: list[Style],
        known_sources: list[Source],
    ) -> None:
        self.ids, self.times, self.metrics, self.persons, self.sources = ids, times, metrics, persons, sources
        self.styles, self.known_sources = styles, known_sources
        self.added: list[AddedEvent] = []
        self._marks: dict[int | None, list[Mark]] = {None: []}
        self._added_with: dict[bytes | None, list[int]] = {}  # this id
        self._removed: set[int] = set()
        self._removed_marks: dict[int | None, list[Mark]] = {}
        self._of_metric = [array("I") for _ in styles]
        for place, metric in enumerate(metrics):
            self._of_metric[metric].append(place)

    def __len__(self) -> int:
        return len(self.times) + len(self.added) - len(self._removed)

    def new_metric(self) -> int:
        """Room for one more metric; gives its number."""
        self._of_metric.append(array("I"))
        return len(self._of_metric) - 1

    def add(self, event: AddedEvent) -> int:
        """Put one more event in; gives its reference."""
        ref = ADDED + len(self.added)
        self.added.append(event)
        self._added_with.setdefault(event.id, []).append(ref)
        for metric in {None, event.metric}:
            insort(self._marks.setdefault(metric, []), (event.time, ref))
        return ref

    def remove(self, ref: int) -> None:
        """Take an event out of all that is read and counted. Marks at it stay good."""
        self._removed.add(ref)
        for metric in {None, self.metric(ref)}:
            insort(self._removed_marks.setdefault(metric, []), (self.time(ref), ref))

    def _places(self, metric: int | None) -> Sequence[int]:
        return range(len(self.times)) if metric is None else self._of_metric[metric]

    def count(self, window: Window) -> int:
        """How many events the window holds."""
        low, high, marks = self._bounds(window)
        return high - low + len(marks) - len(_within(self._removed_marks.get(window.metric, []), window))

    def _bounds(self, window: Window) -> tuple[int, int, list[Mark]]:
        places, time_of = self._places(window.metric), self.times.__getitem__
        low = bisect_left(places, window.since, key=time_of)
        high = bisect_left(places, window.until, lo=low, key=time_of)
        return low, high, _within(self._marks.get(window.metric, []), window)

    def read(
        self,
        window: Window,
        limit: int,
        after: Mark | None = None,
        descending: bool = False,
        keep: Callable[[int], bool] | None = None,
    ) -> list[int]:
        """References of at most `limit` events behind the mark, in order of (time, reference) or its reverse."""
        low, high, marks = self._bounds(window)
        places = self._places(window.metric)
        if _within(self._removed_marks.get(window.metric, []), window):
            keep = self._without_removed(keep)
        if after is not None:
            low, high, marks = self._behind(after, places, low, high, marks, descending)
        if keep is None:
            part = places[max(low, high - limit) : high] if descending else places[low : min(low + limit, high)]
            found = list(part)
            added = marks[-limit:] if descending else marks[:limit]
        else:
            walk = range(high - 1, low - 1, -1) if descending else range(low, high)
            found = list(islice((places[at] for at in walk if keep(places[at])), limit))
            added = [mark for mark in marks if keep(mark[1])]
        if added:
            merged = sorted(chain(((self.times[place], place) for place in found), added), reverse=descending)
            return [ref for _, ref in merged[:limit]]
        return found[::-1] if descending and keep is None else found

    def _without_removed(self, keep: Callable[[int], bool] | None) -> Callable[[int], bool]:
        removed = self._removed
        return lambda ref: ref not in removed and (keep is None or keep(ref))

    def _behind(
        self, after: Mark, places: Sequence[int], low: int, high: int, marks: list[Mark], descending: bool
    ) -> tuple[int, int, list[Mark]]:
        time, ref = after
        generated = ref < ADDED
        if descending:
            edge = bisect_left(places, ref) if generated else bisect_right(places, time, key=self.times.__getitem__)
            return low, max(low, min(high, edge)), marks[: bisect_left(marks, after)]
        edge = bisect_right(places, ref) if generated else bisect_right(places, time, key=self.times.__getitem__)
        return min(high, max(low, edge)), high, marks[bisect_right(marks, after) :]

    def every(self) -> Iterator[int]:
        """All references: the generated events in order of time, then the added ones."""
        refs = chain(range(len(self.times)), range(ADDED, ADDED + len(self.added)))
        return (ref for ref in refs if ref not in self._removed) if self._removed else refs

    def time(self, ref: int) -> int:
        """When the event happened (for a garbage timestamp: where it is sorted)."""
        return self.times[ref] if ref < ADDED else self.added[ref - ADDED].time

    def metric(self, ref: int) -> int | None:
        """The number of the event's metric."""
        return self.metrics[ref] if ref < ADDED else self.added[ref - ADDED].metric

    def person(self, ref: int) -> int:
        """The index of the event's person, or NOBODY."""
        return self.persons[ref] if ref < ADDED else self.added[ref - ADDED].person

    def id(self, ref: int) -> str | None:
        """The event's id, None where a test has left it out."""
        if ref < ADDED:
            return self.ids.of(ref).decode()
        given = self.added[ref - ADDED].id
        return None if given is None else given.decode().strip('"')

    def find(self, event_id: str) -> int | None:
        """The reference of the first event with this id."""
        index, wanted = self.ids.index(event_id), b'"%b"' % event_id.encode()
        generated = [index] if 0 <= index < len(self.times) else []
        refs = chain(generated, self._added_with.get(wanted, []))
        return next((ref for ref in refs if ref not in self._removed), None)

    def message_and_flow(self, ref: int) -> tuple[str | None, str | None]:
        """What the event says in $message and $flow."""
        if ref >= ADDED:
            return self.added[ref - ADDED].message, self.added[ref - ADDED].flow
        source = self.known_sources[self.sources[ref]]
        return source.message, source.flow

    def value(self, ref: int) -> float:
        """The event's $value as a number, 0 without one."""
        return self.added[ref - ADDED].value if ref >= ADDED else self.styles[self.metrics[ref]].value(ref)

    def properties(self, ref: int) -> bytes:
        """The event's properties as a JSON object."""
        if ref >= ADDED:
            return self.added[ref - ADDED].properties
        return self.styles[self.metrics[ref]].properties(
            ref, self.times[ref], self.persons[ref], self.known_sources[self.sources[ref]]
        )


def _within(marks: list[Mark], window: Window) -> list[Mark]:
    return marks[bisect_left(marks, (window.since, 0)) : bisect_left(marks, (window.until, 0))] if marks else []
