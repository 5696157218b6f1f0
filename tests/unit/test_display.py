"""The bars of a backfill, as they come out on screens of different heights."""

from io import StringIO

import pytest
from rich.console import Console

from tasks.display import Bars


def shown(bars: Bars, height: int = 40) -> list[str]:
    """The lines on a screen of 90 columns."""
    file = StringIO()
    Console(file=file, width=90, height=height).print(bars)
    return file.getvalue().splitlines()


@pytest.fixture
def bars() -> Bars:
    """Ten metrics, of which the largest is done."""
    bars = Bars()
    bars.sentence = "about 0:00:14 left"
    bars.update(None, "all", 10_000, 55_000)
    for number in range(1, 11):
        bars.update(f"id{number}", f"Metric {number}", 10_000 if number == 10 else 0, number * 1_000)
    return bars


def test_order(bars: Bars) -> None:
    """The sentence, the bar of all, and the metrics, the largest first."""
    lines = shown(bars)
    assert lines[0].strip() == "about 0:00:14 left"
    assert lines[1].startswith("all ") and "10,000 of 55,000  18%" in lines[1]
    assert [line.split()[1] for line in lines[2:]] == [str(number) for number in range(10, 0, -1)]


def test_short_screen(bars: Bars) -> None:
    """What is done makes room first, then what is small; that there is more is told."""
    lines = shown(bars, height=12)
    assert [line[:8] for line in lines[2:-1]] == [f"Metric {number}" for number in range(9, 2, -1)]
    assert lines[-1].strip() == "and 3 more, 1 of them done"


def test_names_are_data() -> None:
    """A name with a line break, mark-up or great length takes one line, as it is."""
    bars = Bars()
    for number, name in enumerate(["two\nlines", "[bold]mark-up[/]", "long " * 50]):
        bars.update(str(number), name, 1, 2)
    lines = shown(bars)
    assert len(lines) == 5
    assert "two\N{REPLACEMENT CHARACTER}lines" in lines[2] and "[bold]mark-up[/]" in lines[3]
