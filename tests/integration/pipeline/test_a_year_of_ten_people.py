"""A year in the life of ten people: after each run the warehouse equals a model in plain Python."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.histories import History, Period, Step, histories
from tests.integration.databases import Databases
from tests.play import Stage

_DAY = 86_400


@pytest.fixture(scope="module")
def stage(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return a warehouse for all histories, with a clock."""
    with databases.lend() as database, psycopg.connect(database, autocommit=True) as connection:
        yield Stage.opened(connection, database, tmp_path_factory.mktemp("data"))


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(history=histories(most_runs=5))
def test_the_warehouse_equals_the_model_after_each_run(stage: Stage, history: History) -> None:
    """`python -m benchmarks.ten_people` plays more histories."""
    stage.play_shortened(history)


def step(action: str, person: int = 0, other: int = 0, after: int = 60, variant: bool = True, on: int = 0) -> Step:
    return Step(after, action, person, on, other, variant)


def period(run: str, *steps: Step, after: int = 60) -> Period:
    return Period(steps, after, run)


HISTORIES = {
    "a list is renamed after someone left it": (
        period("daily", step("subscribe"), step("unsubscribe", variant=False)),
        period("daily", step("rename_list", other=2, after=_DAY)),
        period("daily", step("create_list", after=_DAY)),
        period("sweep", step("delete_list", on=3, after=_DAY)),
    ),
    "someone leaves and the list is renamed before the next run": (
        period("daily", step("subscribe")),
        period("daily", step("unsubscribe", variant=False, after=_DAY), step("rename_list", other=2)),
        period("backfill", after=_DAY),
        period("daily", after=_DAY),
    ),
    "someone who was absent joins and disappears before the next sweep": (
        period("sweep", step("subscribe"), step("opt_in")),
        period("sweep", step("leave"), after=_DAY),
        period("sweep", step("subscribe", after=9 * _DAY), step("leave")),
        period("sweep", after=8 * _DAY),
    ),
    "a profile is merged into one that was erased": (
        period("daily", step("open_email", 1), step("open_email", 2)),
        period("sweep", step("erase", 2, variant=False, after=9 * _DAY), step("merge", 1, 2)),
        period("sweep", after=3 * _DAY),
    ),
    "an erased profile is merged into another one": (
        period("daily", step("open_email", 1), step("subscribe", 1), step("open_email", 2)),
        period("sweep", step("erase", 1, variant=False), step("merge", 1, 2)),
        period("sweep", after=3 * _DAY),
    ),
    "a profile is merged twice": (
        period("daily", step("open_email", 1), step("subscribe", 1), step("open_email", 2), step("unsubscribe", 2)),
        period("daily", step("merge", 1, 2)),
        period("sweep", step("merge", 1, 4, after=9 * _DAY), after=_DAY),
        period("sweep", after=_DAY),
    ),
    "someone with two merged profiles is erased": (
        period("daily", step("open_email", 0), step("open_email", 1), step("open_email", 2)),
        period("sweep", step("merge", 0, 1)),
        period("sweep", step("merge", 1, 2, after=9 * _DAY)),
        period("daily", step("erase", 2, variant=False)),
    ),
    "an address passes to someone else": (
        period("daily", step("suppress"), step("subscribe"), step("opt_in")),
        period("daily", step("change_address"), step("take_address", 1), step("opt_in", 1), step("subscribe", 1)),
        period("daily", step("suppress")),
    ),
}


_SLOW = dict.fromkeys(
    (
        "a list is renamed after someone left it",
        "a profile is merged into one that was erased",
        "a profile is merged twice",
    ),
    pytest.mark.slow,
)
"""Histories of which each resembles one of the others."""


@pytest.mark.parametrize(
    "periods", [pytest.param(periods, id=name, marks=_SLOW.get(name, ())) for name, periods in HISTORIES.items()]
)
def test_single_histories(stage: Stage, periods: tuple[Period, ...]) -> None:
    stage.play(History(periods, "mark"))
