"""Groups of a distributed backfill's chunks: one run reads a group. Knows no server and no ledger."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas.objects import State, StateType

from klaviyo_pg.grouping import grouped
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk, part_claim
from klaviyo_pg.states import ChunkState

_FULL_CHUNKS = 6  # in a group: enough that starting a run costs little of its time, few enough for many workers
_MAX_CHUNKS = 50  # in a group, however small they are
_DEAD = 20.0  # seconds without its claim after which a run that has begun counts as dead
_STUCK = 60.0  # seconds that a run may take to begin


class Condition(Enum):
    """The condition of a group's run."""

    MISSING = auto()  # Prefect's server has not accepted one
    WAITING = auto()  # for a worker
    READING = auto()
    DEAD = auto()
    ENDED = auto()


@dataclass
class Group:
    """Chunks that one run reads, and the run that has them now.

    The ledger keeps the name, so that the next process of the backfill finds the run by it.

    `attempt` counts the runs that this process has given it, `serial` those of all processes of the backfill. The claim
    has been missed since `missed_since`, all that time in the state `missed_in`.
    """

    chunks: Sequence[BackfillChunk]
    name: str = field(default_factory=lambda: uuid4().hex[:12])
    attempt: int = 0
    serial: int = 1
    run: UUID | None = None
    missed_since: float | None = None
    missed_in: StateType | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def claim(self) -> str:
        """The claim that the run which reads it holds for as long as it is alive."""
        return part_claim(self.name)

    @property
    def seconds_since_submission(self) -> float:
        """The time in seconds since its run was submitted."""
        return time.monotonic() - self.began

    def begin(self, run: UUID | None) -> None:
        """Give it this run; None if Prefect's server has not accepted one."""
        self.run = run
        if run is not None:
            self.attempt += 1
            self.began = time.monotonic()
            self._note_missing(None)

    def observe(self, state: State[Any] | None, is_alive: bool) -> Condition:
        """Return the condition of its run, from the run's state, and whether the run holds the claim."""
        has_begun = state is not None and state.type != StateType.SCHEDULED
        self._note_missing(state.type if state and has_begun and not is_alive else None)
        if self.run is None:
            return Condition.MISSING
        if is_alive:  # in whichever state: its claim would keep another run out
            return Condition.READING
        if state is None or state.is_final():
            return Condition.ENDED
        if state.type == StateType.SCHEDULED:
            return Condition.WAITING
        return Condition.DEAD if self._is_dead() else Condition.READING

    def _note_missing(self, state: StateType | None) -> None:
        """Note that the run is in this state without its claim; None if it holds it, or cannot hold it yet."""
        if state is None:
            self.missed_since = self.missed_in = None
        elif state != self.missed_in:
            self.missed_since, self.missed_in = time.monotonic(), state

    def _is_dead(self) -> bool:
        """Return whether the run has been without its claim for so long that its process must be gone."""
        if self.missed_since is None:
            return False
        return time.monotonic() - self.missed_since > (_DEAD if self.missed_in == StateType.RUNNING else _STUCK)


def recorded_groups(chunks: Iterable[BackfillChunk]) -> list[Group]:
    """Return the groups of an earlier process, as far as they are not done. Their runs may still be alive."""
    unfinished = (chunk for chunk in chunks if chunk.state is not ChunkState.DONE)
    by_name = grouped((chunk.group_name, chunk) for chunk in unfinished if chunk.group_name is not None)
    return [Group(each, name) for name, each in by_name.items()]


def full_groups(
    chunks: Sequence[BackfillChunk], is_complete: bool, chunk_events: int
) -> tuple[list[Group], list[BackfillChunk]]:
    """Return groups of about as many events as a few full chunks have, and the chunks that do not fill one yet."""
    groups: list[Group] = []
    waiting: list[BackfillChunk] = []
    for chunk in chunks:
        if chunk.state is not ChunkState.DONE:
            waiting.append(chunk)
        events = sum(each.waiting if each.expected is not None else chunk_events for each in waiting)
        if events >= _FULL_CHUNKS * chunk_events or len(waiting) >= _MAX_CHUNKS:
            groups.append(Group(waiting))
            waiting = []
    if is_complete and waiting:
        return [*groups, Group(waiting)], []
    return groups, waiting
