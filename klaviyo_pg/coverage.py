"""How complete each metric is, day by day: as a picture and as text. Values in, values out; knows no database."""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from itertools import groupby
from typing import Literal

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.history import HistoryChunk
from klaviyo_pg.reconciliation import COMPLETE, DIFFERS, Compared
from klaviyo_pg.windows import Window

_DAY = timedelta(days=1)
_MOST_COLUMNS = 400  # of a picture: more of them would be thinner than two pixels
_LONGEST_LABEL = 42  # characters
_STRIP = 60  # characters of a line of text


class Covered(Enum):
    """What is known of a metric's day. Of several days together the first of these that holds for any."""

    DIFFERS = "differs"
    MISSING = "not loaded"
    LOADED = "loaded, not compared"
    COMPLETE = "complete"
    NOTHING = "no events"


# Told apart by people of any colour vision, and by their lightness alone.
_COLOURS = {
    Covered.COMPLETE: "#0072B2",
    Covered.LOADED: "#9CCBEA",
    Covered.NOTHING: "#ECECEC",
    Covered.DIFFERS: "#D55E00",
    Covered.MISSING: "#F5D547",
}
_SIGNS = {
    Covered.COMPLETE: "█",
    Covered.LOADED: "▒",
    Covered.NOTHING: "·",
    Covered.DIFFERS: "!",
    Covered.MISSING: "○",
}
_SEVEREST_FIRST = list(Covered)


@dataclass(frozen=True)
class Coverage:
    """Metric by day: for each metric, by name, one value for each day from `first` on."""

    account: str
    first: date
    days: Mapping[str, Sequence[Covered]]

    @property
    def last(self) -> date:
        return self.first + (max(map(len, self.days.values()), default=1) - 1) * _DAY


def coverage(
    account: str,
    names: Mapping[str, str],
    claimed: Mapping[str, Sequence[Window]],
    compared: Iterable[Compared],
    chunks: Iterable[HistoryChunk],
    today: date,
) -> Coverage:
    """What is known, from the first day that anything is known of up to today.

    `names` has the name of each metric id; `claimed` what has been read of each without a gap.
    """
    judged = _judged(compared)
    empty = [chunk for chunk in chunks if chunk.state == "done" and chunk.expected == 0]
    empty_windows: dict[str, list[Window]] = {}
    for chunk in empty:
        empty_windows.setdefault(chunk.metric_id, []).append(Window(chunk.window_start, chunk.window_end))
    starts = [window.start.date() for windows in claimed.values() for window in windows if window.start]
    first = min([*starts, *(day for _, day in judged), today])
    every = [first + number * _DAY for number in range((today - first).days + 1)]
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    days = {}
    for metric_id, name in sorted(names.items(), key=lambda item: (_in_order(item[1]), item[0])):
        loaded, nothing = _days(claimed.get(metric_id, ()), today), _days(empty_windows.get(metric_id, ()), today)
        days[f"{name} ({metric_id})" if name in shared else name] = [
            judged.get((metric_id, day)) or _unjudged(day, loaded, nothing) for day in every
        ]
    return Coverage(account, first, days)


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sorts Step 2 before Step 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.casefold())]


def _unjudged(day: date, loaded: set[date], nothing: set[date]) -> Covered:
    if day in nothing:
        return Covered.NOTHING
    return Covered.LOADED if day in loaded else Covered.MISSING


def _judged(compared: Iterable[Compared]) -> dict[tuple[str, date], Covered]:
    """What comparing with the source told of each metric and day."""
    found: dict[tuple[str, date], Covered] = {}
    for (metric_id, day), rows in groupby(sorted(compared), lambda row: (row.metric_id, row.window_start.date())):
        known = list(rows)
        if any(row.state == DIFFERS for row in known):
            found[metric_id, day] = Covered.DIFFERS
        elif all(row.state == COMPLETE for row in known):
            has_events = any(row.source_events for row in known)
            found[metric_id, day] = Covered.COMPLETE if has_events else Covered.NOTHING
    return found


def _days(windows: Iterable[Window], today: date) -> set[date]:
    """The days that lie in the windows as a whole; today as far as it has come."""
    found: set[date] = set()
    for start, end in _united(windows):
        day = start.date() if start == _midnight(start.date()) else start.date() + _DAY
        while day <= today and (_midnight(day + _DAY) <= end or (day == today and _midnight(day) < end)):
            found.add(day)
            day += _DAY
    return found


def _united(windows: Iterable[Window]) -> list[tuple[datetime, datetime]]:
    united: list[tuple[datetime, datetime]] = []
    for start, end in sorted((window.start, window.end) for window in windows if window.start and window.end):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((start, end))
    return united


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _together(days: Sequence[Covered], size: int) -> list[Covered]:
    """Each so many days as one."""
    return [min(days[at : at + size], key=_SEVEREST_FIRST.index) for at in range(0, len(days), size)]


def picture(found: Coverage, kind: Literal["png", "svg"]) -> bytes:
    """The coverage as an image: a line for each metric, a column for each day, week or longer stretch.

    Raises BadSettings where the plotting library is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, DateFormatter
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise BadSettings("No pictures without matplotlib: pip install 'klaviyo-pg[pictures]'.") from None
    size, unit = _stretch(found)
    labels = [_label(name) for name in found.days]
    height = 1.3 + 0.23 * max(1, len(labels))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "klaviyo-pg", "font.size": 9}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a sign that the font lacks is drawn as a box
        figure = Figure(figsize=(13, height), layout="constrained")
        axes = figure.add_subplot()
        begin = _number(found.first)
        for line, days in enumerate(found.days.values()):
            at = begin
            for value, group in groupby(_together(days, size)):
                width = len(list(group)) * size
                axes.broken_barh([(at, width)], (line - 0.42, 0.84), facecolor=_COLOURS[value], antialiased=False)
                at += width
        axes.set_xlim(begin, _number(found.last) + 1)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_yticks(range(len(labels)), labels=labels)
        locator = AutoDateLocator(minticks=5, maxticks=14)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(
            DateFormatter("%d %b")  # type: ignore[no-untyped-call]
            if size == 1
            else ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        )
        axes.tick_params(length=0, pad=4)
        axes.tick_params(axis="x", length=3)
        axes.grid(axis="x", color="white", linewidth=0.6)
        for side in axes.spines.values():
            side.set_visible(False)
        title = axes.set_title(
            f"{_label(found.account)}: {found.first} to {found.last}, by {unit} (UTC)", loc="left", fontweight="bold"
        )
        for text in (title, *axes.get_yticklabels()):
            text.set_parse_math(False)  # names are data
        patches = [Patch(facecolor=colour, label=value.value) for value, colour in _COLOURS.items()]
        figure.legend(handles=patches, loc="outside lower left", ncols=len(patches), frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {})
    return buffer.getvalue()


def _stretch(found: Coverage) -> tuple[int, str]:
    """How many days make one column, and what that is called."""
    days = (found.last - found.first).days + 1
    for size, unit in ((1, "day"), (7, "the worst day of each week"), (28, "the worst day of each four weeks")):
        if days <= size * _MOST_COLUMNS:
            return size, unit
    size = -(-days // _MOST_COLUMNS)
    return size, f"the worst day of each {size}"


def _number(day: date) -> int:
    """A day as the plotting library counts them."""
    return (day - date(1970, 1, 1)).days


def _label(text: str) -> str:
    shown = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(each)[0] == "C" else each for each in text)
    return shown if len(shown) <= _LONGEST_LABEL else f"{shown[: _LONGEST_LABEL - 1]}…"


def table(found: Coverage) -> list[dict[str, str | int]]:
    """The same as rows of text and numbers: days of each kind, and a strip of signs from the first day to the last."""
    size = max(1, -(-((found.last - found.first).days + 1) // _STRIP))
    return [
        {
            "metric": _label(name),
            **{value.value: sum(day is value for day in days) for value in _COLOURS},
            "days": "".join(_SIGNS[value] for value in _together(days, size)),
        }
        for name, days in found.days.items()
    ]


def markdown(found: Coverage) -> str:
    """The same as a table in Markdown."""
    rows = table(found)
    names = ["metric", *(value.value for value in _COLOURS), "days"]
    lines = [
        f"{_escaped(_label(found.account))}: days from {found.first} to {found.last} (UTC). "
        + ", ".join(f"{sign} {value.value}" for value, sign in _SIGNS.items())
        + ".",
        "",
        f"| {' | '.join(names)} |",
        f"|---|{'---:|' * len(_COLOURS)}---|",
    ]
    for row in rows:
        cells = [_escaped(str(row["metric"])), *(str(row[name]) for name in names[1:-1]), f"`{row['days']}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """A name as nothing but text: no link, no mark-up, no end of a cell."""
    return "".join(f"\\{each}" if each in "\\`*_{}[]()<>#+!|~&$" else each for each in text)
