"""The events of a derived account: time, metric, person, source and properties follow from an event's reference."""

from collections.abc import Iterator, Sequence

from sandbox.account.ids import EventIds
from sandbox.account.properties import Style
from sandbox.account.timeline import ADDED, Timeline, Window
from sandbox.derived.arithmetic import Computed
from sandbox.derived.calendar import Calendar
from sandbox.derived.metrics import Pattern, refs_of
from sandbox.derived.owners import Owners
from sandbox.derived.sources import Sources


class DerivedTimeline(Timeline):
    """A timeline whose generated events are computed. Added and removed events are held in memory, as in any other."""

    def __init__(
        self, ids: EventIds, calendar: Calendar, pattern: Pattern, owners: Owners, sources: Sources, styles: list[Style]
    ) -> None:
        self.calendar, self._pattern, self._event_owners, self._derived_sources = calendar, pattern, owners, sources
        times = Computed(lambda: len(self.calendar), lambda ref: self.calendar.time(ref))
        super().__init__(
            ids,
            times,
            Computed(times.__len__, pattern.metric),
            Computed(times.__len__, owners.person),
            Computed(times.__len__, self._source_number),
            styles,
            sources.all,
            [refs_of(pattern, metric, times) for metric in range(len(styles))],
        )
        self._derived_metrics = len(styles)

    def _source_number(self, ref: int) -> int:
        return self._derived_sources.number(self.metrics[ref], ref, self.times[ref])

    def row(self, ref: int) -> tuple[int, int, int, bytes]:
        # Computes time and metric once, where self.source_numbers would compute them again.
        time, metric, person = self.calendar.time(ref), self._pattern.metric(ref), self._event_owners.person(ref)
        source = self.sources[self._derived_sources.number(metric, ref, time)]
        return time, metric, person, self.styles[metric].properties(ref, time, person, source)

    def person(self, ref: int) -> int:
        return self._event_owners.person(ref) if ref < ADDED else super().person(ref)

    def last_event(self, person: int) -> int | None:
        """Return the second of a person's last event, without added ones."""
        ref = self._event_owners.last(person, len(self.calendar))
        return None if ref is None else self.calendar.time(ref)

    def earlier(self, ref: int) -> Iterator[int]:
        return self._event_owners.earlier(ref)

    def of_person(self, person: int, metric: int | None) -> Sequence[int]:
        refs = self._event_owners.refs(person, len(self.calendar))
        return refs if metric is None else [ref for ref in refs if self._pattern.metric(ref) == metric]

    def _span(self, window: Window) -> tuple[int, int]:
        if (window.metric or 0) >= self._derived_metrics:
            return 0, 0
        low, high = self.calendar.first(window.since), self.calendar.first(window.until)
        if window.metric is not None:
            low, high = (self._pattern.count(window.metric, bound) for bound in (low, high))
        return low, max(low, high)
