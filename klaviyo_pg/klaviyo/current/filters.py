"""The conditions of the current dialect's filters. Knows no resource."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from klaviyo_pg.windows import AnyWindow

ARCHIVED: Mapping[str, str] = MappingProxyType({"false": "", "true": "archived "})
"""The values of the filter `archived`, each of which needs a separate request, and the prefixes of their parts."""
_MARGIN = timedelta(seconds=1)  # before a window, which includes its start: greater-than excludes its bound


def between(field: str, window: AnyWindow) -> Iterator[str]:
    """Yield the conditions of a window, which begins a second early, with operators that every time field supports."""
    if window.start is not None:
        yield f"greater-than({field},{moment(window.start - _MARGIN)})"
    if window.end is not None:
        yield f"less-than({field},{moment(window.end)})"


def quoted(text: str) -> str:
    """Return a string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def moment(moment: datetime) -> str:
    """Return a time literal."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
