"""The live display: what a run in progress looks like on screens of different heights."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from klaviyo_pg.cli.display import Figures, LiveDisplay, Screen
from klaviyo_pg.traffic import Traffic
from pipeline.progress import Item, Progress, Stage

NOW = 1000.0
FIGURES = Figures(now=NOW, elapsed=75, requests_per_second=12.34, limit_per_second=58.3, retries=3)

STEP = " for this step"


def lines(screen: Screen, height: int = 40) -> list[str]:
    """Return the lines on a screen of 90 columns."""
    file = StringIO()
    Console(file=file, width=90, height=height).print(screen)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def stage(
    *items: Item,
    ended: bool = False,
    is_counting: bool = False,
    spent: float = 10,
    unit: str = "events",
    at_once: int = 1,
) -> Stage:
    """Return a stage that began `spent` seconds ago."""
    return Stage("History", unit, items, is_counting, NOW - spent, NOW if ended else None, at_once)


METRICS = [
    Item(f"Metric {number}", done=10_000 if number == 10 else 0, total=number * 1_000) for number in range(1, 11)
]


def test_the_largest_items_come_first() -> None:
    """The screen shows the title, the sum of all items, the items by size, and the figures."""
    shown = lines(Screen([stage(*METRICS)], FIGURES))
    assert shown[0] == f"History, about 0:00:45 left{STEP}"
    assert shown[1].startswith("all ") and "10,000 of 55,000  18%" in shown[1]
    assert [line.split()[1] for line in shown[2:-1]] == [str(number) for number in range(10, 0, -1)]
    assert shown[-1] == "0:01:15 elapsed, 1,000 events/s, 12.3 requests/s of 58 allowed, 3 retries"


def test_a_short_screen_counts_what_it_hides() -> None:
    """Finished items make room first, then small ones; a line says how many there are."""
    shown = lines(Screen([stage(*METRICS)], FIGURES), height=12)
    assert [line[:8] for line in shown[2:-2]] == [f"Metric {number}" for number in range(9, 2, -1)]
    assert shown[-2] == "and 3 more, 1 of them complete"


def test_names_are_data() -> None:
    """A name with a line break, markup or great length takes one line, as it is."""
    names = ["two\nlines", "[bold]markup[/]", "long " * 50]
    shown = lines(Screen([stage(*(Item(name, 1, 2) for name in names))], FIGURES))
    assert len(shown) == 6
    assert "two lines" in shown[2] and "[bold]markup[/]" in shown[3]


def test_a_total_that_is_not_final_is_shown_as_such() -> None:
    """While a backfill counts, the total is that of what has been counted, and no share of it is shown."""
    [_, line, _] = lines(Screen([stage(Item("Opened Email", 51_601, 72_703), is_counting=True)], FIGURES))
    assert "51,601 of 72,703 so far" in line and "%" not in line


def test_a_finished_stage_without_items_had_nothing_to_do() -> None:
    assert lines(Screen([stage(ended=True)], FIGURES))[0] == "✓ History: nothing to do, in 0:00:10"


def test_the_time_of_the_last_run_is_shown() -> None:
    shown = lines(Screen([], replace(FIGURES, seconds_before=90)))
    assert shown[-1].startswith("0:01:15 elapsed (the last run took 0:01:30), ")


def test_a_finished_stage_takes_one_line() -> None:
    """A finished stage is summed up in one line, with a check mark only if all of it is done."""
    complete, stopped = Item("events", done=4, total=4, rows=1_234), Item("events", done=1, total=4)
    stages = [stage(complete, ended=True, unit="chunks"), stage(stopped, ended=True, unit="chunks")]
    shown = lines(Screen(stages, FIGURES))
    assert shown[:2] == ["✓ History: 4 chunks, 1,234 rows in 0:00:10", "· History: 1 of 4 chunks in 0:00:10"]


@pytest.mark.parametrize(
    ("in_progress", "expected"),
    [
        pytest.param(stage(Item("a", done=50, total=200)), f"about 0:00:30 left{STEP}", id="as fast as so far"),
        pytest.param(
            stage(Item("a", done=50, read=150, total=200)), f"about 0:00:10 left{STEP}", id="read but not stored"
        ),
        pytest.param(stage(Item("a", 50, 200), spent=4), f"time left{STEP} not known yet", id="in the first seconds"),
        pytest.param(stage(Item("a", done=0, total=200)), f"time left{STEP} not known yet", id="nothing done"),
        pytest.param(
            stage(Item("a", done=50, total=200), is_counting=True),
            "still counting, so the time left is not known yet",
            id="still counting",
        ),
        pytest.param(stage(Item("a", 50, 200), Item("b", 5)), f"time left{STEP} not known yet", id="no total"),
        pytest.param(stage(Item("a", 200, 200)), "finishing this step", id="all done"),
        pytest.param(stage(Item("a", 1_999, 2_000)), f"about 0:00:01 left{STEP}", id="less than a second"),
        pytest.param(stage(), "nothing left to read", id="nothing to do"),
        pytest.param(
            stage(Item("a", 34, 38), unit="chunks", at_once=4), "the last 4 chunks in progress", id="the last ones"
        ),
        pytest.param(stage(Item("a", 19, 38), unit="chunks", at_once=4), f"about 0:00:10 left{STEP}", id="chunks"),
    ],
)
def test_time_left(in_progress: Stage, expected: str) -> None:
    """The rest takes as long as what has been done; what was read but not stored counts as half done."""
    assert lines(Screen([in_progress], FIGURES))[0] == f"History, {expected}"


class _Session:
    def __init__(self) -> None:
        self.progress, self.traffic = Progress(), Traffic(10, 1)

    @property
    def requests_per_minute(self) -> int | None:
        return None


def test_the_display_follows_a_session() -> None:
    """The display shows a session's progress, and its last frame shows finished stages."""
    session, file = _Session(), StringIO()
    with (
        LiveDisplay(session, Console(file=file, force_terminal=True, width=90, height=20)),
        session.progress.stage("Metrics and lists", "chunks"),
    ):
        session.progress.expect("metrics", "metrics", 1)
        session.progress.add("metrics", done=1, rows=25)
    assert "Metrics and lists: 1 chunk, 25 rows" in file.getvalue()
    assert "requests/s, 1 retry" in file.getvalue()
