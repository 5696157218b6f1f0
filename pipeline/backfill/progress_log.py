"""The display of a backfill in progress: events by metric, and a line in the log every few seconds."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from time import monotonic

from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from pipeline.job import Job

_LOG_EVERY = 10.0  # seconds
_COUNTING = "still counting, so the time left is not known yet"


class ProgressLog:
    """The progress of a backfill: which events it has to read, and how long that will take."""

    def __init__(self, job: Job, names: Mapping[str, str | None]) -> None:
        self._job, self._names = job, names
        self._totals: dict[str, int] = {}
        self._without_total: set[str] = set()
        self._is_complete = False
        self._began = self._logged = monotonic()
        self._requests_before = job.session.traffic.requests

    def expect(self, chunks: Iterable[BackfillChunk], is_complete: bool) -> None:
        """Add chunks to what has to be read; `is_complete` says that there will be no others."""
        progress = self._job.session.progress
        for chunk in chunks:
            if chunk.is_uncounted:
                self._without_total.add(chunk.metric_id)
            elif chunk.waiting:
                self._totals[chunk.metric_id] = self._totals.get(chunk.metric_id, 0) + chunk.waiting
            else:
                continue
            total = None if chunk.metric_id in self._without_total else self._totals[chunk.metric_id]
            progress.expect(chunk.metric_id, self._names.get(chunk.metric_id) or chunk.metric_id, total)
        if is_complete and not self._is_complete:
            self._is_complete = True
            progress.counted()

    @property
    def stored(self) -> int:
        """The number of events that have been stored so far."""
        return sum(item.done for item in self._job.session.progress.items())

    def log(self, requests: int | None = None) -> None:
        """Log where the backfill stands, unless it was logged a moment ago. `requests`: those of other processes."""
        if monotonic() - self._logged >= _LOG_EVERY:
            self._logged = monotonic()
            self._job.log.info(self._sentence(requests))
            if not self._without_total:
                share = self.stored / max(1, sum(self._totals.values()))
                self._job.publisher.progress(min(1.0, share))

    def _sentence(self, requests: int | None) -> str:
        seconds = max(monotonic() - self._began, 1e-9)
        items = self._job.session.progress.items()
        read, stored, total = sum(item.read for item in items), self.stored, sum(self._totals.values())
        sent = self._job.session.traffic.requests - self._requests_before if requests is None else requests
        limit = self._job.session.requests_per_minute
        allowed = "" if limit is None else f" of {limit / 60:,.0f} allowed"
        if not (total or self._without_total):
            return "Nothing left to read." if self._is_complete else f"Nothing to read so far, {_COUNTING}"
        of = "" if self._without_total else f" of {total:,}"
        so_far = "" if self._is_complete else " so far"
        return (
            f"{stored:,}{of} events{so_far}, {stored / seconds:,.0f} events/s, "
            f"{sent / seconds:,.1f} requests/s{allowed}, {self._forecast(read, stored, total, seconds)}"
        )

    def _forecast(self, read: int, stored: int, total: int, seconds: float) -> str:
        """Return the time left: the rest takes as long, event for event, as what has been done.

        Reading and storing are half of the work each, so that events in the spool count as half.
        """
        done = (read + stored) / 2
        if not self._is_complete:
            return _COUNTING
        if self._without_total:
            return "time left not known: some events were not counted"
        if stored >= total:
            return "finishing"
        if not done:
            return "time left not known yet"
        return f"about {timedelta(seconds=max(1, round(seconds / done * max(0.0, total - done))))} left for the events"
