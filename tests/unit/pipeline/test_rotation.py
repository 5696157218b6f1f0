"""The metrics that a daily run counts, within a budget of requests."""

from datetime import UTC, datetime, timedelta

from pipeline.reconcile.rotation import turn

NOW = datetime(2026, 7, 1, tzinfo=UTC)
METRICS = [f"m{number:04}" for number in range(2_000)]


def test_all_metrics_are_counted_if_the_budget_allows_it() -> None:
    assert turn(METRICS[:300], (), {}, 300, 1) == (frozenset(METRICS[:300]), 0)
    assert len(turn(METRICS[:300], (), {}, 300, 2).metric_ids) == 150, "each takes two requests"


def test_every_silent_metric_has_its_turn_within_seven_runs() -> None:
    """Metrics with events are counted by each of the runs, and no silent one twice before all were counted once."""
    active, compared = set(METRICS[:100]), dict[str, datetime]()
    turns = []
    for day in range(7):
        chosen = turn(METRICS, active, compared, 300, 1).metric_ids
        assert active <= chosen and len(chosen) <= 372
        compared |= dict.fromkeys(chosen, NOW + timedelta(days=day))
        turns.append(chosen - active)
    assert set().union(*turns) == set(METRICS) - active
    assert sum(map(len, turns[:6])) == len(set().union(*turns[:6]))


def test_the_number_of_runs_until_all_are_counted_is_known() -> None:
    chosen = turn(METRICS, METRICS[:100], {}, 1_000, 1)
    assert (len(chosen.metric_ids), chosen.runs) == (1_000, 2)


def test_silent_metrics_have_their_turn_if_active_ones_use_up_the_budget() -> None:
    chosen = turn(METRICS, METRICS[:1_990], {}, 10, 1)
    assert (len(chosen.metric_ids), chosen.runs) == (1_992, 4)
