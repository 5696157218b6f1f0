"""Values in answers whose form decides nothing: what has another type than expected counts as missing."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from klaviyo_pg import rows

_LARGEST = 2**63 - 1
_LARGEST_DECIMAL = 1e30  # more than any amount of money
_EARLIEST_YEAR, _LATEST_YEAR = 1970, 9000  # of a date with which one can calculate


def boolean(value: Any) -> bool | None:
    """Return a boolean; None for anything else."""
    return value if isinstance(value, bool) else None


def whole_number(value: Any) -> int | None:
    """Return a whole number that the database can store; None for anything else."""
    return value if type(value) is int and abs(value) <= _LARGEST else None


def decimal(value: Any) -> str | None:
    """Return a number, which can be written as text, as text; None for anything else."""
    try:
        number = float(value) if type(value) in (int, float, str) else math.nan
    except (ValueError, OverflowError):
        return None
    if not abs(number) <= _LARGEST_DECIMAL:
        return None
    return str(value if type(value) is int else number)


def document(value: Any) -> str | None:
    """Return a value as JSON; None for null."""
    return None if value is None else msgspec.json.encode(value).decode()


def moment(value: Any) -> datetime | None:
    """Return a time, which may have a space instead of the T; None for anything else."""
    try:
        return rows.utc(datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return None


def http_date(value: str) -> datetime | None:
    """Return the time in a header; None for anything else, and for one with which one cannot calculate."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC) if _EARLIEST_YEAR <= date.year <= _LATEST_YEAR else None


def member(value: Any, *path: str) -> Any:
    """Return a member of nested objects; None where it is missing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def elements(value: Any) -> list[Any]:
    """Return the elements of a list; none of anything else."""
    return value if isinstance(value, list) else []


def identifier(value: Any) -> str | None:
    """Return an ID; None for anything else, and for text with a NUL, which without it could be another ID."""
    return value if isinstance(value, str) and value and "\0" not in value else None


def related_id(relationships: Any, name: str) -> str | None:
    """Return the id of a related resource; None if the response does not include it."""
    return identifier(member(relationships, name, "data", "id"))
