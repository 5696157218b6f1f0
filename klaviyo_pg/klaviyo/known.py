"""People who have been met before: the same person stands on many pages of events, and is worth reading once."""

from typing import NamedTuple


class Known(NamedTuple):
    """What is needed of a person who is known already."""

    id: str
    email: str | None


class KnownPeople:
    """Records of people, by their bytes, that need not be read again since they have been given before.

    It is the reader's: whoever drops what was read has to drop this, too. Bounded, so that memory stays flat.
    """

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._known: dict[int, Known] = {}

    def get(self, record: bytes) -> Known | None:
        """The person of a record that has been seen before, to the byte."""
        return self._known.get(hash(record))

    def add(self, record: bytes, person: Known) -> None:
        """Remember a record."""
        if len(self._known) >= self._most:
            self._known.clear()
        self._known[hash(record)] = person
