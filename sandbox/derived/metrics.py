"""The metrics of a derived account, and which metric each event belongs to.

Events are numbered in order of time, and the metrics repeat in a pattern of slots. A metric has one or more slots, or
it is rare: it then has a slot in every second, fourth, eighth ... repetition, or it is silent and has none.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from sandbox.account.content import METRICS
from sandbox.derived.arithmetic import Computed, count_below
from sandbox.derived.options import DerivedOptions

_SLOTS = 4_096
_SILENT, _RARE = 0.2, 0.3  # shares of the metrics that are not in `content`
_LEVELS = 16  # of rarity, of which each has half the events of the one before
_FURTHER_SHARE = 8.0  # of all events, in percent, for the metrics that are not in `content`
_STYLES = ("site", "view", "plain_api", "order", "item", "view", "site", "text")


@dataclass(frozen=True, slots=True)
class DerivedMetric:
    """A metric's name, integration and style, its share of all events, and its kind: 0, "rare" or "silent"."""

    name: str
    integration: str | None
    style: str
    share: float
    kind: str = "frequent"


def describe_metrics(count: int) -> list[DerivedMetric]:
    """Return so many metrics: first those of the ordinary account, then ones of apps, forms and integrations."""
    ordinary = [DerivedMetric(kind.name, kind.integration, kind.style, kind.share) for kind in METRICS[:count]]
    further = max(0, count - len(METRICS))
    silent, rare = int(further * _SILENT), int(further * _RARE)
    frequent = further - silent - rare
    total = sum(1 / (1 + at) for at in range(frequent))
    made = [
        DerivedMetric(f"Custom Event {at + 1}", "api", _STYLES[at % 8], _FURTHER_SHARE / (1 + at) / total)
        for at in range(frequent)
    ]
    made += [DerivedMetric(f"Rare Event {at + 1}", "api", "view", 0, "rare") for at in range(rare)]
    made += [DerivedMetric(f"Unused Event {at + 1}", "api", "view", 0, "silent") for at in range(silent)]
    return ordinary + made


class Pattern:
    """The repeating slots. `metric` and `refs` are each other's inverse."""

    def __init__(self, metrics: Sequence[DerivedMetric], options: DerivedOptions) -> None:
        rare = [at for at, metric in enumerate(metrics) if metric.kind == "rare"]
        self._groups = [rare[at : at + _LEVELS] for at in range(0, len(rare), _LEVELS)]
        self._frequent = len(metrics)
        slots = [*_slots(metrics, _SLOTS - len(self._groups)), *range(len(metrics), len(metrics) + len(self._groups))]
        Random(options.number("pattern")).shuffle(slots)
        self._slots: Sequence[int] = array("H", slots)
        slots_of: list[list[int]] = [[] for _ in range(len(metrics) + len(self._groups))]
        for slot, owner in enumerate(self._slots):
            slots_of[owner].append(slot)
        self._metrics: list[Slots | Repetitions] = [Slots(slots_of[at]) for at in range(len(metrics))]
        for number, group in enumerate(self._groups):
            (slot,) = slots_of[len(metrics) + number]
            for level, metric in enumerate(group):
                self._metrics[metric] = Repetitions(slot, level, level == len(group) - 1)

    def metric(self, ref: int) -> int:
        """Return the number of an event's metric."""
        repetition, slot = divmod(ref, _SLOTS)
        metric = self._slots[slot]
        if metric < self._frequent:
            return metric
        group = self._groups[metric - self._frequent]
        zeros = ((repetition + 1) & -(repetition + 1)).bit_length() - 1
        return group[min(zeros, len(group) - 1)]

    def count(self, metric: int, limit: int) -> int:
        """Return how many of the events below a reference belong to a metric."""
        return self._metrics[metric].below(limit)

    def ref(self, metric: int, at: int) -> int:
        """Return the reference of a metric's event, counted from 0."""
        return self._metrics[metric].ref(at)


class Slots:
    """The references in some slots of every repetition."""

    def __init__(self, slots: Sequence[int]) -> None:
        self._slots: Sequence[int] = array("H", slots)

    def below(self, limit: int) -> int:
        """Return how many of the references are below a limit."""
        repetitions, slot = divmod(limit, _SLOTS)
        return repetitions * len(self._slots) + bisect_left(self._slots, slot)

    def ref(self, at: int) -> int:
        """Return the reference at a position, counted from 0."""
        repetition, slot = divmod(at, len(self._slots))
        return repetition * _SLOTS + self._slots[slot]


class Repetitions:
    """The references in a slot of the repetitions, counted from 1, that are divisible by 2 so often.

    The last level has those that are divisible by 2 more often, too.
    """

    def __init__(self, slot: int, level: int, is_last: bool) -> None:
        self._slot, self._level, self._is_last = slot, level, is_last

    def below(self, limit: int) -> int:
        """Return how many of the references are below a limit."""
        repetitions = count_below(limit, _SLOTS, self._slot)
        if self._is_last:
            return int(repetitions >> self._level)
        return int((repetitions + (1 << self._level)) >> (self._level + 1))

    def ref(self, at: int) -> int:
        """Return the reference at a position, counted from 0."""
        repetition: int = (at + 1 if self._is_last else 2 * at + 1) << self._level
        return (repetition - 1) * _SLOTS + self._slot


def refs_of(pattern: Pattern, metric: int, events: "Sequence[int]") -> Computed:
    """Return the references of a metric's events among all events."""
    return Computed(lambda: pattern.count(metric, len(events)), lambda at: pattern.ref(metric, at))


def _slots(metrics: Sequence[DerivedMetric], count: int) -> list[int]:
    """Return the metrics, each as often as its share of the slots requires, and at least once."""
    frequent = [at for at, metric in enumerate(metrics) if metric.kind == "frequent"]
    total, free = sum(metrics[at].share for at in frequent), count - len(frequent)
    slots = [at for at in frequent for _ in range(1 + int(metrics[at].share / total * free))]
    return slots + [frequent[0]] * (count - len(slots))
