"""The numbered pages of v1."""

from collections.abc import Callable, Sequence
from typing import Any

from sandbox.content import dump
from sandbox.legacy_dialect import Parameters

_LAST_PAGE = 10**9


def paged(
    rows: Sequence[Any], asked: Parameters, render: Callable[[Any], Any], size: int = 50, most: int = 100
) -> bytes:
    """The page asked for, counted from 0. `end` is the place of its last row, and `page_size` how many rows it has."""
    page, count = asked.number("page", 0, 0, _LAST_PAGE), asked.number("count", size, 1, most)
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
