"""The metrics that a daily run counts: those with events every time, the silent ones in turn. Values in, values out."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from klaviyo_pg.windows import NEVER

_TURNS = 7
"""Runs in which each silent metric is counted once."""
MOST_MISSED = timedelta(days=_TURNS - 1)
"""The longest time for which a silent metric is left out, with a daily run every day."""


class Turn(NamedTuple):
    """The metrics to count now, and the number of runs after which the others have been counted as well."""

    metric_ids: frozenset[str]
    runs: int


def turn(
    metric_ids: Collection[str],
    active: Collection[str],
    compared: Mapping[str, datetime],
    budget: int,
    requests: int,
) -> Turn:
    """Choose the metrics to count: all of them if the budget allows it, otherwise the active ones and some others.

    What was counted longest ago comes first. The silent metrics get the rest of the budget, but at least enough
    requests for all of them to have their turn in seven runs. Counting one metric takes so many `requests`.
    """
    affordable = max(1, budget // requests)
    if len(metric_ids) <= affordable:
        return Turn(frozenset(metric_ids), 0)
    chosen = [each for each in metric_ids if each in active]
    silent = sorted(_silent(metric_ids, active), key=lambda each: (compared.get(each, NEVER), each))
    number = max(affordable - len(chosen), -(-len(silent) // _TURNS))
    left = len(silent) - number
    return Turn(frozenset((*chosen, *silent[:number])), -(-left // number) if left > 0 else 0)


def _silent(metric_ids: Iterable[str], active: Collection[str]) -> list[str]:
    return [each for each in metric_ids if each not in active]
