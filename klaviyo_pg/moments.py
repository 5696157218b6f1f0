"""Times that people write: dates, ISO 8601 times, and times relative to the present. Knows no settings."""

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta

from klaviyo_pg.errors import BadSettings

_FIRST_YEAR = 1900  # no email is older, and every year back costs requests
_LAST_YEAR = 9998  # a day can still be added without overflowing datetime
_RELATIVE = re.compile(r"(\d{1,6}) ?(h|hours?|d|days?|w|weeks?|mo|months?|y|years?)(?: ago)?")
_RELATIVE_DAYS = {"today": 0, "yesterday": 1}


def parse_since(label: str, value: object) -> datetime | None:
    """Parse the time from which events are read. Returns None if `value` is None.

    `label` names the argument in errors. Raises BadSettings, also if the time is in the future.
    """
    moment = None if value is None else parse_moment(label, value)
    if moment is not None and moment > datetime.now(UTC):
        raise BadSettings(f"{label} {value}: must not be in the future.")
    return moment


def parse_moment(label: str, value: object, now: datetime | None = None) -> datetime:
    """Parse a date, an ISO 8601 time, which is in UTC unless it has an offset, or a relative time such as 7d.

    It is text, or what a parameter of a deployed run can be instead, such as the number 20260131.

    A relative time is a midnight (UTC), or for hours the beginning of an hour: a rerun on the same day then resumes.
    `label` names the argument in errors. Raises BadSettings.
    """
    text = str(value)
    try:
        moment = _relative(text.strip().lower(), now or datetime.now(UTC)) or datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise BadSettings(
            f"{label} {text}: use a date such as 2026-01-31, an ISO 8601 time, or a relative time such as 12h, 7d, 2w, "
            "3mo, 1y or yesterday."
        ) from None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise BadSettings(f"{label} {text}: use a year from {_FIRST_YEAR} to {_LAST_YEAR}.")
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def _relative(text: str, now: datetime) -> datetime | None:
    """Return the time that a relative time means; None if the text is not one."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in _RELATIVE_DAYS:
        return midnight - timedelta(days=_RELATIVE_DAYS[text])
    if not (matched := _RELATIVE.fullmatch(text)):
        return None
    count, unit = int(matched[1]), matched[2].removesuffix("s")
    match unit:
        case "h" | "hour":
            return now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=count)
        case "mo" | "month":
            return _months_before(midnight, count)
        case "y" | "year":
            return _months_before(midnight, 12 * count)
    return midnight - timedelta(days=count * (7 if unit in ("w", "week") else 1))


def _months_before(moment: datetime, count: int) -> datetime:
    """Return the same day so many months before, or the last day of that month if it is shorter."""
    year, month = divmod(moment.year * 12 + moment.month - 1 - count, 12)
    return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))
