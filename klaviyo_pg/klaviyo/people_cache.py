"""A cache of the people whose rows have been stored. Event pages repeat the same people, and each is stored once."""

import threading
from collections.abc import Iterable, Mapping
from mmap import mmap
from typing import NamedTuple, Protocol


class KnownPerson(NamedTuple):
    """The data of a person that events need."""

    id: str
    email: str | None


class KnownPeople(Protocol):
    """The people whose records need not be read again, by the bytes of the record."""

    def get(self, record: bytes) -> KnownPerson | None:
        """Return the person if a record with exactly these bytes has been added."""
        ...

    def has_stored(self, record: bytes) -> bool:
        """Return whether a record with exactly these bytes has been stored, also if its person has been forgotten."""
        ...

    def add(self, record: bytes, person: KnownPerson) -> None:
        """Remember a record."""
        ...


class PeopleCache:
    """The people whose rows are stored, shared by the readers of a process. Safe to share between threads.

    It is emptied when it is full, so its memory is bounded. A person who is missing is stored again, unchanged. Of the
    stored records themselves, many more are remembered: by a hash of 8 bytes, each in the one place that it can have,
    where a later one replaces it.
    """

    def __init__(self, most: int = 100_000, most_records: int = 1 << 21) -> None:
        self._most, self._most_records = most, most_records
        self._people: dict[int, KnownPerson] = {}
        self._records = memoryview(mmap(-1, 8 * most_records)).cast("q")  # takes memory only where it is written to
        self._writing = threading.Lock()

    def get(self, record: bytes) -> KnownPerson | None:
        """Return the person if a record with exactly these bytes has been stored."""
        return self._people.get(hash(record))

    def has_stored(self, record: bytes) -> bool:
        """Return whether a record with exactly these bytes has been stored and not been forgotten."""
        digest = hash(record)
        return self._records[digest % self._most_records] == digest

    def update(self, people: Mapping[int, KnownPerson]) -> None:
        """Add people, by the hash of their record."""
        with self._writing:
            for record, person in people.items():
                if len(self._people) >= self._most:
                    self._people.clear()
                self._people[record] = person
                self._records[record % self._most_records] = record


class PendingPeople:
    """One reader's view of a cache. It adds the people that the reader has read but whose rows are not stored yet.

    A reader that fails drops this object. Then its people count as new again, and other readers are not affected.
    """

    def __init__(self, cache: PeopleCache) -> None:
        self._cache = cache
        self._pending: dict[int, KnownPerson] = {}
        self._added: list[int] = []

    def get(self, record: bytes) -> KnownPerson | None:
        """Return the person if a record with exactly these bytes is stored or pending."""
        return self._pending.get(hash(record)) or self._cache.get(record)

    def has_stored(self, record: bytes) -> bool:
        """Return whether a record with exactly these bytes is stored or pending."""
        return hash(record) in self._pending or self._cache.has_stored(record)

    def add(self, record: bytes, person: KnownPerson) -> None:
        """Remember a record whose person has been read."""
        self._pending[hash(record)] = person
        self._added.append(hash(record))

    def take_added(self) -> list[int]:
        """Return the hashes of the records that were added since the last call."""
        added, self._added = self._added, []
        return added

    def commit(self, records: Iterable[int]) -> None:
        """Move people to the cache, by the hash of their record. Call this once their rows are stored."""
        self._cache.update({record: self._pending.pop(record) for record in records})
