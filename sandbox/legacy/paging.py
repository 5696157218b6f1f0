"""The numbered pages of v1."""

from collections.abc import Callable, Sequence
from typing import Any

from sandbox.encoding import dump
from sandbox.legacy.dialect import Parameters

_LAST_PAGE = 10**9


def paged(
    rows: Sequence[Any], parameters: Parameters, render: Callable[[Any], Any], size: int = 50, max_size: int = 100
) -> bytes:
    """Return the requested page, counted from 0. `end` is the index of its last row, `page_size` its number of rows."""
    page, count = parameters.number("page", 0, 0, _LAST_PAGE), parameters.number("count", size, 1, max_size)
    start = page * count
    shown = rows[start : start + count]
    return dump(
        {
            "object": "$list",
            "data": [render(row) for row in shown],
            "page": page,
            "start": start,
            "end": max(0, start + len(shown) - 1),
            "total": len(rows),
            "page_size": len(shown),
        }
    )
