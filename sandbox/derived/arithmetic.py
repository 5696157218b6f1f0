"""Permutations and sequences that are computed item by item. Must not know what the items stand for."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from math import gcd
from typing import overload


class Permutation:
    """The numbers below `size` in another order, in constant memory."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.step = _coprime(size, seed)
        self.offset = seed // 7 % size
        self.inverse = pow(self.step, -1, size) if size > 1 else 0

    def at(self, position: int) -> int:
        """Return the number at a position."""
        return (position * self.step + self.offset) % self.size

    def position(self, number: int) -> int:
        """Return the position of a number."""
        return (number - self.offset) * self.inverse % self.size


def _coprime(size: int, seed: int) -> int:
    """Return a step that reaches every number below `size`, and that is not small unless `size` is."""
    step = size * 382 // 1000 + seed % max(1, size // 4) or 1
    while gcd(step, size) != 1:
        step += 1
    return step


class Computed(Sequence[int]):
    """A sequence of a length that may change, whose items are computed when they are read."""

    def __init__(self, length: Callable[[], int], item: Callable[[int], int]) -> None:
        self._length, self._item = length, item

    def __len__(self) -> int:
        return self._length()

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...
    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        if isinstance(at, slice):
            return list(map(self._item, range(*at.indices(self._length()))))
        if not 0 <= at < self._length():
            raise IndexError(at)
        return self._item(at)


def count_below(limit: int, step: int, first: int) -> int:
    """Return how many of the numbers first, first + step, ... are below a limit."""
    return max(0, -(-(limit - first) // step))


def shared_out(total: int, weights: Iterable[float]) -> list[int]:
    """Return the running sums of `total`, shared out by weight: 0 first and `total` last."""
    sums = list(accumulate(weights))
    return [0, *(round(total * each / sums[-1]) for each in sums)]
