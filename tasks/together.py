"""What one task reads, one after the other: Prefect has its cost for each task."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import psycopg

from klaviyo_pg.errors import Stopped, Throttled, Unavailable, UserError

ChunkType = TypeVar("ChunkType")


def is_passing(error: object) -> bool:
    """Whether an error is worth another try of the same task."""
    return isinstance(error, Unavailable | psycopg.OperationalError) and not isinstance(error, Throttled)


class Together(Generic[ChunkType]):
    """Chunks for one task. One that fails is noted in `failed`, and does not stop the others."""

    def __init__(self, chunks: Sequence[ChunkType]) -> None:
        self.chunks = chunks
        self.failed: dict[ChunkType, Exception] = {}
        self._read: set[ChunkType] = set()

    def each(self, read: Callable[[ChunkType], object]) -> None:
        """Read the chunks, those left out that an earlier try of the same task has read.

        Raises at once what concerns all of them: being asked to stop, what only the user can mend, a long pause that
        the API wants. Raises one of other errors at the end: where there is one that may pass, that one.
        """
        self.failed.clear()
        for chunk in self.chunks:
            if chunk in self._read:
                continue
            try:
                read(chunk)
            except Stopped:
                raise
            except Exception as error:
                self.failed[chunk] = error
                if isinstance(error, UserError | Throttled):
                    raise
            else:
                self._read.add(chunk)
        if self.failed:
            errors = list(self.failed.values())
            raise next(filter(is_passing, errors), errors[0])
