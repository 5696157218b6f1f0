"""The progress of a run, counted by its worker threads and shown by a display. Knows neither terminal nor Prefect."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic

SETTLED_SECONDS = 5.0
"""Seconds of a stage after which its speed says something about the rest of it."""


@dataclass(frozen=True)
class Item:
    """One line of a stage, such as a stream or a metric: what has been done, and how much there is in all.

    `done` and `total` are in the stage's unit; `total` is None while it is unknown. `read` counts what has been read
    but not necessarily stored yet.
    """

    name: str
    done: int = 0
    total: int | None = None
    read: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Stage:
    """A part of a run that is shown as a block: its title, its unit ("chunks", "events"), and its items by key.

    Its units are done `at_once` at a time. While `is_counting`, the totals are only those so far.
    """

    title: str
    unit: str
    items: tuple[Item, ...]
    is_counting: bool
    began: float
    ended: float | None = None
    at_once: int = 1

    @property
    def all_items(self) -> Item:
        """The sum of the items; its total is None while that of an item is unknown."""
        totals = [item.total for item in self.items]
        known = [total for total in totals if total is not None]
        return Item(
            "all",
            done=sum(item.done for item in self.items),
            total=sum(known) if len(known) == len(totals) else None,
            read=sum(item.read for item in self.items),
            rows=sum(item.rows for item in self.items),
        )


class Progress:
    """Counts of a run in progress, by stage and item. Safe to share between threads.

    Each `add` calls `on_add` with the key of the item and how much more of it has been read.
    """

    def __init__(self, on_add: Callable[[str, int], None] | None = None) -> None:
        self._on_add = on_add
        self._lock = threading.Lock()
        self._stages: list[Stage] = []
        self._items: dict[str, Item] = {}
        self._finished: list[Stage] = []
        self.seconds_before: float | None = None
        """The duration of the last comparable run; None if there was none."""

    @contextmanager
    def stage(self, title: str, unit: str, is_counting: bool = False, at_once: int = 1) -> Iterator[None]:
        """Show what the block does as a stage, `at_once` units at a time.

        `is_counting` says that the totals are not final yet.
        """
        with self._lock:
            self._items = {}
            self._stages = [Stage(title, unit, (), is_counting, monotonic(), at_once=at_once)]
        try:
            yield
        finally:
            with self._lock:
                self._finished.append(self._current(ended=monotonic()))
                self._stages, self._items = [], {}

    def counted(self) -> None:
        """Note that the totals of the stage are final."""
        with self._lock:
            self._stages = [replace(stage, is_counting=False) for stage in self._stages]

    def expect(self, key: str, name: str, total: int | None) -> None:
        """Set the total of an item, and its name."""
        with self._lock:
            self._items[key] = replace(self._items.get(key, Item(name)), name=name, total=total)

    def add(self, key: str, done: int = 0, read: int = 0, rows: int = 0) -> None:
        """Add to what has been done of an item."""
        with self._lock:
            item = self._items.get(key, Item(key))
            self._items[key] = replace(item, done=item.done + done, read=item.read + read, rows=item.rows + rows)
        if self._on_add is not None:
            self._on_add(key, read)

    def complete(self, key: str, done: int, rows: int = 0) -> None:
        """Note that an item whose total was unknown is complete."""
        self.add(key, done=done, rows=rows)
        with self._lock:
            self._items[key] = replace(self._items[key], total=self._items[key].done)

    def items(self) -> list[Item]:
        """Return the items of the stage in progress."""
        with self._lock:
            return list(self._items.values())

    def snapshot(self) -> list[Stage]:
        """Return the stages so far; the last one may be in progress (`ended` is None)."""
        with self._lock:
            return [*self._finished, *([self._current()] if self._stages else [])]

    def _current(self, ended: float | None = None) -> Stage:
        return replace(self._stages[0], items=tuple(self._items.values()), ended=ended)
