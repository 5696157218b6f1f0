"""The charts of a report, as SVG for an HTML page: its colors come from the page's style sheet. Needs the plotting
library of the extra `pictures`.

The page has the numbers of each chart in a table too.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.util import find_spec
from typing import Any
from xml.etree import ElementTree

from klaviyo_pg.foreign import printable
from pipeline.coverage import Coverage, Covered, by_period, label
from pipeline.coverage_picture import COLORS

_WIDTH = 4.8  # inches: a text of 8 points is readable on a phone, whose screen is about as wide
_MOST_COLUMNS = 90
_LARGE = 1000  # from here on, numbers have a prefix: 12k, 3M
_TEXT, _LINE = "#111111", "#888888"
_FILLS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
_VARIABLES = {
    _TEXT: "currentColor",
    _LINE: "var(--line)",
    **{color.lower(): f"var(--{value.name.lower()})" for value, color in COLORS.items()},
    **{color: f"var(--series-{number})" for number, color in enumerate(_FILLS)},
}
"""Colors by which a part of a chart is drawn, and the variables of the style sheet that take their place."""
_STACKED = (Covered.COMPLETE, Covered.LOADED, Covered.NOTHING, Covered.DIFFERS, Covered.MISSING)
_STYLE: Any = {  # settings of the plotting library
    "svg.fonttype": "none",
    "font.size": 8,
    "text.color": _TEXT,
    "text.parse_math": False,  # names are data
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _LINE,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "grid.color": _LINE,
    "grid.linewidth": 0.3,
}
_KEPT = frozenset({"fill", "stroke", "stroke-width", "font-size", "text-anchor", "opacity"})
_NUMBER = re.compile(r"-?\d+\.\d+")
_SPACE = re.compile(r">\s+<")


def is_available() -> bool:
    """Return whether the plotting library is installed."""
    return find_spec("matplotlib") is not None


def metrics_by_day(covered: Coverage) -> str:
    """Draw how many metrics are in each state on each day."""
    size = -(-((covered.last - covered.first).days + 1) // _MOST_COLUMNS)
    columns = list(zip(*(by_period(days, size) for days in covered.days.values()), strict=True))
    first = (covered.first - date(1970, 1, 1)).days
    edges = [first + number * size for number in range(len(columns) + 1)]

    def draw(axes: Any) -> None:
        below = [0] * len(columns)
        for kind in _STACKED:
            above = [base + column.count(kind) for base, column in zip(below, columns, strict=True)]
            axes.stairs(above, edges, baseline=below, fill=True, facecolor=COLORS[kind])
            below = above
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, max(1, len(covered.days)))
        _date_axis(axes)
        axes.set_ylabel("metrics")

    return _svg(draw, 2.0, {})


def by_day(days: Sequence[date], series: Mapping[str, Sequence[float]], unit: str, number: int) -> str:
    """Draw a bar for each day, made of the series. `number` is how many days are shown, up to the last one."""
    at = [(day - date(1970, 1, 1)).days for day in days]

    def draw(axes: Any) -> None:
        below = [0.0] * len(at)
        for values, color in zip(series.values(), _FILLS, strict=False):
            axes.bar(at, values, 0.8, below, color=color)
            below = [base + value for base, value in zip(below, values, strict=True)]
        axes.set_xlim(max(at) - number, max(at) + 1)
        _date_axis(axes)
        _number_axis(axes.yaxis)
        axes.set_ylabel(unit)

    return _svg(draw, 1.8, dict(zip(series, _FILLS, strict=False)))


def by_name(names: Sequence[str], series: Mapping[str, Sequence[float]], unit: str) -> str:
    """Draw a horizontal bar for each name, made of the series."""

    def draw(axes: Any) -> None:
        before = [0.0] * len(names)
        for values, color in zip(series.values(), _FILLS, strict=False):
            axes.barh(range(len(names)), values, 0.7, before, color=color)
            before = [base + value for base, value in zip(before, values, strict=True)]
        axes.set_yticks(range(len(names)), labels=[label(printable(name))[:32] for name in names])
        axes.invert_yaxis()
        axes.xaxis.grid(True)
        axes.set_axisbelow(True)
        _number_axis(axes.xaxis)
        axes.set_xlabel(unit)

    return _svg(draw, 0.7 + 0.2 * len(names), dict(zip(series, _FILLS, strict=False)))


def _date_axis(axes: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _number_axis(axis: Any) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5))
    if max(axis.get_view_interval()) >= _LARGE:
        axis.set_major_formatter(EngFormatter(sep=""))


def _svg(draw: Any, height: float, legend: Mapping[str, str]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        has_legend = len(legend) > 1
        figure = Figure(figsize=(_WIDTH, height + 0.4 * has_legend), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.tick_params(length=0, pad=4)
        axes.spines[["top", "right"]].set_visible(False)
        if has_legend:
            patches = [Patch(facecolor=color, label=name) for name, color in legend.items()]
            columns = min(3, len(patches))
            figure.legend(handles=patches, loc="outside lower left", ncols=columns, frameon=False, handlelength=1)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return inline(buffer.getvalue())


def inline(image: bytes) -> str:
    """Return an image of the plotting library as an element of HTML, without styles, scripts, links and IDs."""
    root = ElementTree.fromstring(image)
    for parent in list(root.iter()):
        for child in list(parent):
            if _name(child.tag) in ("metadata", "defs"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _name(element.tag)
        element.attrib = _attributes(element.attrib)
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "aria-hidden": "true", "focusable": "false"}
    return _SPACE.sub("><", ElementTree.tostring(root, encoding="unicode")).strip()


def _attributes(given: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that say where and in which color something is drawn."""
    found = {name: _rounded(value) for name, value in given.items() if name in ("d", "x", "y", "transform", "viewBox")}
    styles = [each.partition(":") for each in given.get("style", "").split(";")]
    for name, _, value in [(name.strip(), "", value.strip()) for name, _, value in styles]:
        if name == "font":
            found["font-size"] = value.split("px")[0]
        elif name in _KEPT:
            found[name] = _VARIABLES.get(value.lower(), value)
    return found


def _rounded(text: str) -> str:
    return _NUMBER.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), text).replace("\n", "")


def _name(tag: str) -> str:
    return tag.rpartition("}")[2]
