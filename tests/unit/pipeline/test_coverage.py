"""Coverage: how complete each metric is on each day, as a table and as a picture."""

import builtins
from datetime import UTC, date, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.postgres.ledgers.compared_history import ComparedHistory
from klaviyo_pg.postgres.ledgers.reconciliation import Comparison
from klaviyo_pg.states import ChunkState, CountState
from klaviyo_pg.windows import Window
from pipeline.coverage import Coverage, Covered, coverage, markdown, table
from pipeline.coverage_picture import picture

DAY = timedelta(days=1)
FIRST = datetime(2026, 7, 1, tzinfo=UTC)
TODAY = date(2026, 7, 6)
C = Covered


def compared(day: float, source: int | None, stored: int, state: str, hours: int = 24) -> Comparison:
    start = FIRST + day * DAY
    return Comparison("m1", start, start + timedelta(hours=hours), source, stored, CountState(state))


@pytest.mark.parametrize(
    ("read", "comparisons", "chunks", "expected"),
    [
        pytest.param([], [], [], [C.MISSING], id="nothing was read"),
        pytest.param([(0, 5.5)], [], [], [C.LOADED] * 6, id="read up to today"),
        pytest.param(
            [(0, 2), (3.5, 5.5)], [], [], [C.LOADED, C.LOADED, C.MISSING, C.MISSING, C.LOADED, C.LOADED], id="a gap"
        ),
        pytest.param([(0, 1.5), (1.5, 2)], [], [], [C.LOADED] * 2 + [C.MISSING] * 4, id="a day in two windows"),
        pytest.param(
            [(0, 5.5)],
            [(0, 3, 3, "complete"), (1, 3, 2, "differs"), (2, 0, 0, "complete"), (3, None, 4, "uncounted")],
            [],
            [C.COMPLETE, C.DIFFERS, C.NOTHING, C.LOADED, C.LOADED, C.LOADED],
            id="compared with the source",
        ),
        pytest.param(
            [(0, 5.5)],
            [(0, 3, 2, "differs"), (0, 2, 1, "differs", 1), (1, 3, 3, "complete"), (1, 0, 0, "complete", 1)],
            [],
            [C.DIFFERS, C.COMPLETE] + [C.LOADED] * 4,
            id="hours and their day",
        ),
        pytest.param(
            [(0, 5.5)], [], [(1, 3, 0)], [C.LOADED, C.NOTHING, C.NOTHING] + [C.LOADED] * 3, id="empty history"
        ),
        pytest.param(
            [(0.375, 5.5)],
            [(0.375, 3, 3, "complete", 15), (1, 3, 3, "complete")],
            [],
            [C.MISSING, C.COMPLETE] + [C.LOADED] * 4,
            id="a first day that is loaded in part, and agrees",
        ),
        pytest.param(
            [(0.375, 5.5)], [(0.375, 0, 0, "complete", 15)], [], [C.MISSING] + [C.LOADED] * 5, id="in part, empty"
        ),
        pytest.param(
            [(0.375, 5.5)], [(0.375, 3, 2, "differs", 15)], [], [C.DIFFERS] + [C.LOADED] * 5, id="in part, differs"
        ),
        pytest.param(
            [(0, 5.5)], [(0.375, 3, 3, "complete", 15)], [], [C.COMPLETE] + [C.LOADED] * 5, id="compared in part"
        ),
        pytest.param([(0, 5.5)], [(5, 3, 3, "complete", 11)], [], [C.LOADED] * 5 + [C.COMPLETE], id="today up to now"),
        pytest.param([(5.4, 5.5)], [(5.5, 3, 3, "complete", 1)], [], [C.MISSING], id="a first run today"),
    ],
)
def test_coverage_of_each_day(
    read: list[tuple[float, float]], comparisons: list[Any], chunks: list[tuple[int, int, int]], expected: list[Covered]
) -> None:
    """A comparison with the source decides a day's coverage; without one, the windows that were read do."""
    result = coverage(
        "shop",
        {"m1": "Opened Email"},
        {"m1": [Window(FIRST + start * DAY, FIRST + end * DAY) for start, end in read]},
        [compared(*row) for row in comparisons],
        [BackfillChunk("m1", FIRST + a * DAY, FIRST + b * DAY, n, state=ChunkState.DONE) for a, b, n in chunks],
        TODAY,
    )
    assert list(result.days["Opened Email"]) == expected
    assert result.last == TODAY


def test_a_later_comparison_of_history_overrides_that_a_backfill_found_it_empty() -> None:
    """An import can add old events. Of history, only days that differ are listed one by one."""
    read = Window(FIRST, FIRST + 5.5 * DAY)
    result = coverage(
        "shop",
        {"m1": "Opened Email"},
        {"m1": [read]},
        [compared(2, 3, 2, "differs")],
        [BackfillChunk("m1", FIRST + DAY, FIRST + 3 * DAY, 0, state=ChunkState.DONE)],
        TODAY,
        [ComparedHistory("m1", Window(FIRST, FIRST + 5 * DAY), CountState.COMPLETE, read.end)],
    )
    states = [C.COMPLETE, C.COMPLETE, C.DIFFERS, C.COMPLETE, C.COMPLETE, C.LOADED]
    assert list(result.days["Opened Email"]) == states


def test_shared_metric_names_show_the_id() -> None:
    """Metrics with the same name are distinguished by id, and names sort naturally: Step 2 before Step 10."""
    names = {"b": "Step 10", "a": "Step 2", "c": "Step 10"}
    assert list(coverage("shop", names, {}, [], [], TODAY).days) == ["Step 2", "Step 10 (b)", "Step 10 (c)"]


NAMES = ["Opened Email", "$x_2$ and \\alpha", "<b>bold</b> & | pipe", "bell \x07", "\u4e2d\u6587 \U0001f600", "n" * 80]


@pytest.fixture(params=[5, 1_826, 20_000], ids=["days", "weeks", "decades"])
def drawn(request: pytest.FixtureRequest) -> Coverage:
    """Coverage of metrics with difficult names, over a few days, several years and several decades."""
    first, kinds = TODAY - (request.param - 1) * DAY, list(Covered)
    return Coverage("sh$op_1", first, {name: [kinds[at % 5] for at in range(request.param)] for name in NAMES})


def test_the_picture_is_small_and_reproducible(drawn: Coverage) -> None:
    """The SVG is the same each time, is less than 2 MB, and contains every name as plain text."""
    assert picture(drawn, "png").startswith(b"\x89PNG")
    vector = picture(drawn, "svg")
    assert vector == picture(drawn, "svg")
    assert len(vector) < 2_000_000
    text = "".join(ElementTree.fromstring(vector).itertext())
    for name in (
        *NAMES[:3],
        "bell \ufffd",
        NAMES[4],
        "n" * 41 + "\u2026",
        "sh$op_1",
        *(each.value for each in Covered),
    ):
        assert name in text


def test_the_table_counts_each_day_once(drawn: Coverage) -> None:
    """The numbers of a row add up to the number of days, and its line of days has at most 60 characters."""
    for row in table(drawn):
        assert sum(value for value in row.values() if isinstance(value, int)) == len(drawn.days["Opened Email"])
        assert len(str(row["days"])) <= 60
    lines = markdown(drawn).splitlines()
    assert len(lines) == 4 + len(NAMES)
    assert "| \\<b\\>bold\\</b\\> \\& \\| pipe |" in lines[6]


def test_a_single_bad_day_shows_in_a_line_of_years() -> None:
    """Days that share a character are shown as the worst of them."""
    days = [Covered.COMPLETE] * 2_000
    days[77] = Covered.DIFFERS
    [row] = table(Coverage("shop", TODAY - 1_999 * DAY, {"m": days}))
    assert str(row["days"]).count("!") == 1


def test_a_picture_needs_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without matplotlib the error names the command that installs it."""
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(BadSettings, match=r"^Drawing needs matplotlib\. Install it: .*pip install .*\[pictures\]'$"):
        picture(Coverage("shop", TODAY, {}), "png")
