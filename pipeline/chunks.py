"""Chunks of a run: a window of a stream, read and resumed as a unit."""

from datetime import datetime
from typing import NamedTuple

from klaviyo_pg.windows import FULL_READ, AnyWindow, exact


def key_of(stream: str, subject: str | None) -> str:
    """Return the name under which the ledger records a stream, or the part of it that concerns a metric or a list."""
    return stream if subject is None else f"{stream}/{subject}"


class Chunk(NamedTuple):
    """A window of a stream; of one metric or list where `subject` names it.

    Once the last chunk of its stream is stored, the watermarks of `marks` (subjects; None is the stream as a whole)
    advance to the present of the run: the stream has been read from `start` on. `reread` distinguishes chunks that are
    read again because counts differ. A divisible chunk that turns out to be long is divided while it is read: other
    readers get the rest of its window.
    """

    stream: str
    window: AnyWindow = FULL_READ
    subject: str | None = None
    start: datetime | None = None
    marks: tuple[str | None, ...] = ()
    reread: str = ""
    is_divisible: bool = False

    @property
    def key(self) -> str:
        """The name of its stream in the ledger."""
        key = key_of(self.stream, self.subject)
        return f"{key}/reread {self.reread}" if self.reread else key

    @property
    def part(self) -> str:
        """The name of its window in the ledger."""
        return exact(self.window) if self.is_divisible else str(self.window)

    @property
    def is_open(self) -> bool:
        """True if it reads up to the present, so that it has more to read the later it is read."""
        return self.window.end is None and not self.reread
