"""How complete each metric is, day by day."""

import builtins
from datetime import UTC, date, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest

from klaviyo_pg.coverage import Coverage, Covered, coverage, markdown, picture, table
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.history import HistoryChunk
from klaviyo_pg.reconciliation import Compared
from klaviyo_pg.windows import Window

DAY = timedelta(days=1)
FIRST = datetime(2026, 7, 1, tzinfo=UTC)
TODAY = date(2026, 7, 6)
C = Covered


def compared(day: int, source: int | None, stored: int, state: str, hours: int = 24) -> Compared:
    start = FIRST + day * DAY
    return Compared("m1", start, start + timedelta(hours=hours), source, stored, state)


@pytest.mark.parametrize(
    ("claimed", "known", "chunks", "expected"),
    [
        pytest.param([], [], [], [C.MISSING], id="nothing is known"),
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
            id="hours beside their day",
        ),
        pytest.param(
            [(0, 5.5)], [], [(1, 3, 0)], [C.LOADED, C.NOTHING, C.NOTHING] + [C.LOADED] * 3, id="empty history"
        ),
    ],
)
def test_what_is_known_of_each_day(
    claimed: list[tuple[float, float]], known: list[Any], chunks: list[tuple[int, int, int]], expected: list[Covered]
) -> None:
    """Comparing with the source goes before what has been read; what nobody has read is not loaded."""
    found = coverage(
        "shop",
        {"m1": "Opened Email"},
        {"m1": [Window(FIRST + start * DAY, FIRST + end * DAY) for start, end in claimed]},
        [compared(*row) for row in known],
        [HistoryChunk("m1", FIRST + a * DAY, FIRST + b * DAY, n, state="done") for a, b, n in chunks],
        TODAY,
    )
    assert list(found.days["Opened Email"]) == expected
    assert found.last == TODAY


def test_names_that_metrics_share() -> None:
    """Are told apart by id; names stand in the order in which people count."""
    names = {"b": "Step 10", "a": "Step 2", "c": "Step 10"}
    assert list(coverage("shop", names, {}, [], [], TODAY).days) == ["Step 2", "Step 10 (b)", "Step 10 (c)"]


NAMES = ["Opened Email", "$x_2$ and \\alpha", "<b>bold</b> & | pipe", "bell \x07", "\u4e2d\u6587 \U0001f600", "n" * 80]


@pytest.fixture(params=[5, 1_826, 20_000], ids=["days", "weeks", "decades"])
def drawn(request: pytest.FixtureRequest) -> Coverage:
    """Names that are hard to write, over stretches of time."""
    first, kinds = TODAY - (request.param - 1) * DAY, list(Covered)
    return Coverage("sh$op_1", first, {name: [kinds[at % 5] for at in range(request.param)] for name in NAMES})


def test_a_picture(drawn: Coverage) -> None:
    """Small, the same each time, with every name as plain text."""
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


def test_a_table(drawn: Coverage) -> None:
    """Every day counts once, and a line is short enough to be read."""
    for row in table(drawn):
        assert sum(value for value in row.values() if isinstance(value, int)) == len(drawn.days["Opened Email"])
        assert len(str(row["days"])) <= 60
    lines = markdown(drawn).splitlines()
    assert len(lines) == 4 + len(NAMES)
    assert "| \\<b\\>bold\\</b\\> \\& \\| pipe |" in lines[6]


def test_days_together_are_as_bad_as_the_worst() -> None:
    """One day that differs is seen in a line of years."""
    days = [Covered.COMPLETE] * 2_000
    days[77] = Covered.DIFFERS
    [row] = table(Coverage("shop", TODAY - 1_999 * DAY, {"m": days}))
    assert str(row["days"]).count("!") == 1


def test_without_the_plotting_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that says what to install."""
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(BadSettings, match=r"^No pictures without matplotlib: pip install 'klaviyo-pg\[pictures\]'\.$"):
        picture(Coverage("shop", TODAY, {}), "png")
