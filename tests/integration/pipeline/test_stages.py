"""The stages that the live display shows of a run: every part that takes a while is one of them."""

from pipeline.progress import Stage
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, Warehouse, days_ago
from tests.runs import ALL_EVENTS


def stages(warehouse: Warehouse) -> list[Stage]:
    """Return the stages so far of the run in progress, or of the last one."""
    assert warehouse.session is not None
    return warehouse.session.progress.snapshot()


def sizes(warehouse: Warehouse) -> dict[str, tuple[int, int | None]]:
    """Return what has been done and how much there is in all, by title of stage, of stages with one item."""
    shown = {stage.title: stage.items[0] for stage in stages(warehouse) if len(stage.items) == 1}
    return {title: (item.done, item.total) for title, item in shown.items()}


def test_a_daily_run_shows_the_comparison_of_counts_and_member_lists(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily(*ALL_EVENTS)
    assert [stage.title for stage in stages(warehouse)][-3:] == [
        "Counts at the source",
        "Counts in the warehouse",
        "Member lists",
    ]
    assert [sizes(warehouse)[stage.title] for stage in stages(warehouse)[-3:]] == [(2, 2), (2, 2), (1, 1)]
    assert stages(warehouse)[-1].items[0].rows == warehouse.one("SELECT count(*) FROM member_lists")
    assert all(stage.ended is not None for stage in stages(warehouse))


def test_counting_is_shown_while_it_goes_on(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The display knows from the beginning how many metrics there are to count."""
    shown: list[Stage] = []
    shop.before("counts", lambda: shown.append(stages(warehouse)[-1]))
    warehouse.daily(*ALL_EVENTS, concurrency=1)
    assert [(stage.title, stage.ended) for stage in shown] == [("Counts at the source", None)]
    assert [(item.done, item.total) for item in shown[0].items] == [(0, 2)]


def test_counts_after_rereading_are_shown_too(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily(*ALL_EVENTS)
    shop.add_events("OPEN", days_ago(5) + DAY / 8)
    warehouse.daily(*ALL_EVENTS)
    assert [stage.title for stage in stages(warehouse)][-5:] == [
        "Counts at the source",
        "Counts in the warehouse",
        "Events that were missing",
        "Counts in the warehouse",
        "Member lists",
    ]


def test_reconcile_shows_counts_and_coverage(warehouse: Warehouse) -> None:
    warehouse.daily()
    warehouse.reconcile()
    assert sizes(warehouse) == {
        "Metrics": (1, 1),
        "Counts at the source": (2, 2),
        "Counts in the warehouse": (2, 2),
        "Coverage": (2, 2),
    }


def test_a_backfill_shows_its_coverage(warehouse: Warehouse) -> None:
    warehouse.backfill(days_ago(10))
    assert [stage.title for stage in stages(warehouse)] == ["Metrics and lists", "History", "People", "Coverage"]
