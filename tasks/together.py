"""What one task reads, one after the other: Prefect has its cost for each task."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import psycopg

from klaviyo_pg.errors import Stopped, Throttled, Unavailable, UserError

ChunkType = TypeVar("ChunkType")
_AWAY = 2  # errors that may pass, one after the other: the next chunk would only wait for the same


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
        the API wants, an API that is away for one after the other. Raises one of other errors at the end: where there
        is one that may pass, that one.
        """
        waiting = [chunk for chunk in self.chunks if chunk not in self._read]
        waiting.sort(key=self.failed.__contains__)  # so that none waits for those that fail every time
        self.failed.clear()
        in_a_row = 0
        for chunk in waiting:
            try:
                read(chunk)
            except Stopped:
                raise
            except Exception as error:
                self.failed[chunk] = error
                if isinstance(error, UserError | Throttled):
                    raise
                in_a_row = in_a_row + 1 if is_passing(error) else 0
                if in_a_row == _AWAY:
                    break
            else:
                in_a_row = 0
                self._read.add(chunk)
        if self.failed:
            errors = list(self.failed.values())
            raise next(filter(is_passing, errors), errors[0])
