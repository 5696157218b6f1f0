"""All events in order of time, in a few bytes each: a time, a metric, a person and a source. The rest is computed.

An event is identified by its reference: its position in time, or ADDED plus a running number for an event that was
added later.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from sandbox.account.ids import EventIds
from sandbox.account.properties import Source, Style

ADDED = 1 << 40
NOBODY = 0xFFFFFFFF
EARLIEST, LATEST = -(1 << 36), 1 << 38  # seconds; the years 1 and 9999 lie in between
Position = tuple[int, int]  # the time and reference of the last event that a reader has seen


@dataclass(slots=True)
class AddedEvent:
    """An event that was not generated. id and timestamp are the JSON that readers get, or None to leave them out.

    `overrides` holds the same for other members that differ from the usual, by their names in the current dialect.
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
    overrides: dict[str, bytes | None] = field(default_factory=dict)


class Window(NamedTuple):
    """A selection of events: one metric or all of them, in the half-open seconds [since, until)."""

    metric: int | None = None
    since: int = EARLIEST
    until: int = LATEST


class Timeline:
    """Generated events in arrays sorted by time, merged with added events when they are read."""

    def __init__(
        self,
        ids: EventIds,
        times: Sequence[int],
        metrics: Sequence[int],
        persons: Sequence[int],
        source_numbers: Sequence[int],
        styles: list[Style],
        sources: list[Source],
        refs_of_metric: list[Sequence[int]] | None = None,
    ) -> None:
        self.ids, self.times, self.metrics, self.persons = ids, times, metrics, persons
        self.source_numbers, self.styles, self.sources = source_numbers, styles, sources
        self.added: list[AddedEvent] = []
        self._added_positions: dict[int | None, list[Position]] = {None: []}  # by metric
        self._added_by_id: dict[bytes | None, list[int]] = {}
        self._removed: set[int] = set()
        self._removed_positions: dict[int | None, list[Position]] = {}  # by metric
        self._owners: dict[int, int] = {}  # by person: the one that the person was merged into
        self._refs_of_metric = refs_of_metric or _by_metric(metrics, len(styles))
        self._refs_of_person: dict[int, Sequence[int]] | None = None  # made when it is first needed

    def __len__(self) -> int:
        return len(self.times) + len(self.added) - len(self._removed)

    def new_metric(self) -> int:
        """Register another metric and return its number."""
        self._refs_of_metric.append(array("I"))
        return len(self._refs_of_metric) - 1

    def add(self, event: AddedEvent) -> int:
        """Add an event and return its reference."""
        ref = ADDED + len(self.added)
        self.added.append(event)
        self._added_by_id.setdefault(event.id, []).append(ref)
        for metric in {None, event.metric}:
            insort(self._added_positions.setdefault(metric, []), (event.time, ref))
        return ref

    def remove(self, ref: int) -> None:
        """Remove an event from all reads and counts. Positions that refer to it stay valid."""
        self._removed.add(ref)
        for metric in {None, self.metric(ref)}:
            insort(self._removed_positions.setdefault(metric, []), (self.time(ref), ref))

    def _refs(self, metric: int | None) -> Sequence[int]:
        return range(len(self.times)) if metric is None else self._refs_of_metric[metric]

    def count(self, window: Window) -> int:
        """Return the number of events in the window."""
        low, high = self._span(window)
        added, removed = (
            positions.get(window.metric, []) for positions in (self._added_positions, self._removed_positions)
        )
        return high - low + len(_within(added, window)) - len(_within(removed, window))

    def _span(self, window: Window) -> tuple[int, int]:
        """Return where the window starts and ends among the references of its generated events."""
        return self._span_among(self._refs(window.metric), window)

    def _span_among(self, refs: Sequence[int], window: Window) -> tuple[int, int]:
        low = bisect_left(refs, window.since, key=self.times.__getitem__)
        return low, bisect_left(refs, window.until, lo=low, key=self.times.__getitem__)

    def of_person(self, person: int, metric: int | None) -> Sequence[int] | None:
        """Return the generated events of a person, if they can be found without reading those of all people."""
        return None

    def earlier(self, ref: int) -> Iterator[int]:
        """Yield the earlier generated events of the person of a generated event, the latest first."""
        person = self.persons[ref]
        if person == NOBODY:
            return
        if self._refs_of_person is None:
            self._refs_of_person = _by_person(self.persons)
        refs = self._refs_of_person[person]
        yield from reversed(refs[: bisect_left(refs, ref)])

    def read(
        self,
        window: Window,
        limit: int,
        after: Position | None = None,
        descending: bool = False,
        keep: Callable[[int], bool] | None = None,
        among: Sequence[int] | None = None,
    ) -> list[int]:
        """Return references of at most `limit` events after a position, by (time, reference) or its reverse.

        `keep` selects events. `among` has all those of its generated events that are of the window's metric.
        """
        low, high = self._span(window) if among is None else self._span_among(among, window)
        refs = self._refs(window.metric) if among is None else among
        added = _within(self._added_positions.get(window.metric, []), window)
        if _within(self._removed_positions.get(window.metric, []), window):
            keep = self._without_removed(keep)
        if after is not None:
            low, high, added = self._after(after, refs, low, high, added, descending)
        if keep is None:
            generated = list(refs[max(low, high - limit) : high] if descending else refs[low : min(low + limit, high)])
            added = added[-limit:] if descending else added[:limit]
        else:
            indexes = range(high - 1, low - 1, -1) if descending else range(low, high)
            generated = list(islice((refs[at] for at in indexes if keep(refs[at])), limit))
            added = [position for position in added if keep(position[1])]
        if added:
            merged = sorted(chain(((self.times[ref], ref) for ref in generated), added), reverse=descending)
            return [ref for _, ref in merged[:limit]]
        return generated[::-1] if descending and keep is None else generated

    def _without_removed(self, keep: Callable[[int], bool] | None) -> Callable[[int], bool]:
        removed = self._removed
        return lambda ref: ref not in removed and (keep is None or keep(ref))

    def _after(
        self, after: Position, refs: Sequence[int], low: int, high: int, added: list[Position], descending: bool
    ) -> tuple[int, int, list[Position]]:
        time, ref = after
        is_generated, time_of = ref < ADDED, self.times.__getitem__
        if descending:
            bound = bisect_left(refs, ref) if is_generated else bisect_right(refs, time, key=time_of)
            return low, max(low, min(high, bound)), added[: bisect_left(added, after)]
        bound = bisect_right(refs, ref) if is_generated else bisect_right(refs, time, key=time_of)
        return min(high, max(low, bound)), high, added[bisect_right(added, after) :]

    def every(self) -> Iterator[int]:
        """Return all references: the generated events in order of time, then the added ones."""
        refs = chain(range(len(self.times)), range(ADDED, ADDED + len(self.added)))
        return (ref for ref in refs if ref not in self._removed) if self._removed else refs

    def time(self, ref: int) -> int:
        """Return the second of the event. If its timestamp is garbage, return the second that it is sorted by."""
        return self.times[ref] if ref < ADDED else self.added[ref - ADDED].time

    def metric(self, ref: int) -> int | None:
        """Return the number of the event's metric."""
        return self.metrics[ref] if ref < ADDED else self.added[ref - ADDED].metric

    def person(self, ref: int) -> int:
        """Return the index of the event's person, or NOBODY."""
        return self.owner(self.persons[ref] if ref < ADDED else self.added[ref - ADDED].person)

    def merge(self, old: int, new: int) -> None:
        """Give the events of a person to another one. Nothing else about the events changes."""
        self._owners = {person: new if owner == old else owner for person, owner in self._owners.items()} | {old: new}

    def owner(self, person: int) -> int:
        """Return the index of the person who has the events that were created for a person."""
        return self._owners.get(person, person)

    def id(self, ref: int) -> str | None:
        """Return the event's id, or None if a test left it out."""
        if ref < ADDED:
            return self.ids.of(ref).decode()
        event_id = self.added[ref - ADDED].id
        return None if event_id is None else event_id.decode().strip('"')

    def find(self, event_id: str) -> int | None:
        """Return the reference of the first event with this id."""
        index, as_json = self.ids.index(event_id), b'"%b"' % event_id.encode()
        generated = [index] if 0 <= index < len(self.times) else []
        refs = chain(generated, self._added_by_id.get(as_json, []))
        return next((ref for ref in refs if ref not in self._removed), None)

    def source(self, ref: int) -> Source:
        """Return the cause of the event. Of an added event it has the $message and $flow only."""
        if ref >= ADDED:
            return Source(self.added[ref - ADDED].message, self.added[ref - ADDED].flow, b"", b"")
        return self._source(ref)

    def message_and_flow(self, ref: int) -> tuple[str | None, str | None]:
        """Return the event's $message and $flow."""
        source = self.source(ref)
        return source.message, source.flow

    def value(self, ref: int) -> float:
        """Return the event's $value as a number, or 0 if it has none."""
        return self.added[ref - ADDED].value if ref >= ADDED else self.styles[self.metrics[ref]].value(ref)

    def row(self, ref: int) -> tuple[int, int, int, bytes]:
        """Return the time, metric, person and properties of a generated event."""
        time, metric, person = self.times[ref], self.metrics[ref], self.persons[ref]
        return time, metric, person, self.styles[metric].properties(ref, time, person, self._source(ref))

    def _source(self, ref: int) -> Source:
        return self.sources[self.source_numbers[ref]]

    def properties(self, ref: int) -> bytes:
        """Return the event's properties as a JSON object."""
        if ref >= ADDED:
            return self.added[ref - ADDED].properties
        return self.row(ref)[3]


def _by_metric(metrics: Sequence[int], count: int) -> list[Sequence[int]]:
    """Return the references of each metric's events."""
    refs = [array("I") for _ in range(count)]
    for ref, metric in enumerate(metrics):
        refs[metric].append(ref)
    return list(refs)


def _by_person(persons: Sequence[int]) -> dict[int, Sequence[int]]:
    """Return the references of each person's events."""
    refs: dict[int, array[int]] = {}
    for ref, person in enumerate(persons):
        refs.setdefault(person, array("I")).append(ref)
    return dict(refs)


def _within(positions: list[Position], window: Window) -> list[Position]:
    if not positions:
        return []
    return positions[bisect_left(positions, (window.since, 0)) : bisect_left(positions, (window.until, 0))]
