"""The states that the warehouse records, as enumerations. Their values are what the tables contain."""

from enum import StrEnum


class RunState(StrEnum):
    """The state of a run, in `runs.state`."""

    RUNNING = "running"
    COMPLETE = "complete"
    PARTIAL = "partial"
    TO_BE_CONTINUED = "to be continued"
    FAILED = "failed"


UNFINISHED = (RunState.RUNNING, RunState.FAILED, RunState.TO_BE_CONTINUED)
"""The states of a run that the next run with the same selection resumes."""


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
