"""A run in progress, with everything its runbook needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from klaviyo_pg.postgres.account import Account
from pipeline.outcome import Tally
from pipeline.runs import Log, Result, Run, transact
from pipeline.session import Session
from pipeline.workers import Workers

POLL_SECONDS = 0.5
"""Seconds between two looks at a run in progress."""


class Publisher(Protocol):
    """A place, other than the warehouse, where a run publishes its results for people."""

    def table(self, key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
        """Publish a table."""
        ...

    def markdown(self, key: str, text: str, description: str) -> None:
        """Publish a text in Markdown."""
        ...

    def progress(self, share: float) -> None:
        """Publish how much of the run is done: 0 to 1."""
        ...


@dataclass(frozen=True)
class Job:
    """A run in progress: its session, the workers that run its units, its errors so far, its log and its publisher."""

    session: Session
    run: Run
    workers: Workers
    tally: Tally
    log: Log
    publisher: Publisher

    @property
    def worker_count(self) -> int:
        """The number of chunks to read at once."""
        return self.session.worker_count(self.run.answer_seconds, self.session.requests_per_minute)

    def transact(self, work: Callable[[Account], Result]) -> Result:
        """Do some work in one transaction of the run, as `runs.transact` does."""
        return transact(self.session, self.run, work)
