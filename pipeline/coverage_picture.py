"""The coverage of an account as an image. Needs the plotting library of the extra `pictures`."""

import io
import warnings
from collections.abc import Mapping
from datetime import date
from itertools import groupby
from typing import Any, Literal

from klaviyo_pg import extras
from klaviyo_pg.errors import BadSettings
from pipeline.coverage import Coverage, Covered, by_period, label

_MAX_COLUMNS = 400  # more of them would be narrower than two pixels
# Distinguishable with any color vision, and by lightness alone.
COLORS: Mapping[Covered, str] = {
    Covered.COMPLETE: "#0072B2",
    Covered.LOADED: "#9CCBEA",
    Covered.NOTHING: "#ECECEC",
    Covered.DIFFERS: "#D55E00",
    Covered.MISSING: "#F5D547",
}
"""The color of each state."""


def picture(covered: Coverage, kind: Literal["png", "svg"]) -> bytes:
    """Draw a line for each metric, with a column for each day, week or longer period.

    Raises BadSettings where the plotting library is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError:
        raise BadSettings(f"Drawing needs matplotlib. Install it: {extras.command('pictures')}") from None
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "klaviyo-pg", "font.size": 9}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a character that the font lacks is drawn as a box
        figure = _figure(covered)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {})
    return buffer.getvalue()


def _figure(covered: Coverage) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    size, unit = _period(covered)
    figure = Figure(figsize=(13, 1.3 + 0.23 * max(1, len(covered.days))), layout="constrained")
    axes = figure.add_subplot()
    _draw_days(axes, covered, size)
    _format_axes(axes, covered, size)
    title = f"{label(covered.account)}: {covered.first} to {covered.last}, by {unit} (UTC)"
    for text in (axes.set_title(title, loc="left", fontweight="bold"), *axes.get_yticklabels()):
        text.set_parse_math(False)  # names are data
    patches = [Patch(facecolor=color, label=value.value) for value, color in COLORS.items()]
    figure.legend(handles=patches, loc="outside lower left", ncols=len(patches), frameon=False)
    return figure


def _draw_days(axes: Any, covered: Coverage, size: int) -> None:
    for line, days in enumerate(covered.days.values()):
        at = _number(covered.first)
        for value, group in groupby(by_period(days, size)):
            width = len(list(group)) * size
            axes.broken_barh([(at, width)], (line - 0.42, 0.84), facecolor=COLORS[value], antialiased=False)
            at += width


def _format_axes(axes: Any, covered: Coverage, size: int) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, DateFormatter

    labels = [label(name) for name in covered.days]
    axes.set_xlim(_number(covered.first), _number(covered.last) + 1)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels=labels)
    locator = AutoDateLocator(minticks=5, maxticks=14)  # type: ignore[no-untyped-call]
    by_day = DateFormatter("%d %b")  # type: ignore[no-untyped-call]
    by_longer = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(by_day if size == 1 else by_longer)
    axes.tick_params(length=0, pad=4)
    axes.tick_params(axis="x", length=3)
    axes.grid(axis="x", color="white", linewidth=0.6)
    for side in axes.spines.values():
        side.set_visible(False)


def _period(covered: Coverage) -> tuple[int, str]:
    """Return how many days make one column, and what that is called."""
    days = (covered.last - covered.first).days + 1
    for size, unit in ((1, "day"), (7, "the worst day of each week"), (28, "the worst day of each four weeks")):
        if days <= size * _MAX_COLUMNS:
            return size, unit
    size = -(-days // _MAX_COLUMNS)
    return size, f"the worst day of each {size}"


def _number(day: date) -> int:
    """Return a day as the plotting library counts them."""
    return (day - date(1970, 1, 1)).days
