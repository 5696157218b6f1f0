"""The states that the warehouse records, as enumerations. Their values are what the tables contain."""

from enum import StrEnum


class RunState(StrEnum):
    """The state of a run, in `runs.state`.

    A run that is complete with differences has read everything, but the source's counts differ from what is stored.
    """

    RUNNING = "running"
    COMPLETE = "complete"
    COMPLETE_WITH_DIFFERENCES = "complete with differences"
    PARTIAL = "partial"
    TO_BE_CONTINUED = "to be continued"
    STOPPED = "stopped"
    FAILED = "failed"


UNFINISHED = (RunState.RUNNING, RunState.FAILED, RunState.STOPPED, RunState.TO_BE_CONTINUED)
"""The states of a run that the next run with the same selection resumes."""

FINISHED = (RunState.COMPLETE, RunState.COMPLETE_WITH_DIFFERENCES)
"""The states of a run that has left nothing out."""


class ChunkState(StrEnum):
    """The state of a chunk, in `chunks.state` and `backfill_chunks.state`."""

    PLANNED = "planned"
    DONE = "done"
    FAILED = "failed"


class CountState(StrEnum):
    """The result of comparing one count with the source, in `reconciliation.state`."""

    COMPLETE = "complete"
    DIFFERS = "differs"
    UNCOUNTED = "uncounted"
