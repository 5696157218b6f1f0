"""The clocks of this machine, of the database and of the API, compared. Values in, values out; reads no clock."""

from datetime import datetime, timedelta
from typing import NamedTuple

from klaviyo_pg.errors import ClocksDiffer

_UNITS = (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))
_SET = "Set it, then rerun."
_SET_ONE = "Set the one that is wrong, then rerun."
_TOLERANCE = "To accept such a difference, increase CLOCK_TOLERANCE_SECONDS."


class Clocks(NamedTuple):
    """The time on three clocks at one moment. `api` is None if the API does not send it."""

    machine: datetime
    database: datetime
    api: datetime | None

    @property
    def earliest(self) -> datetime:
        """The time that has come on each of the clocks."""
        return min(time for time in self if time is not None)

    def check(self, tolerance: timedelta) -> None:
        """Raise ClocksDiffer if this machine's clock differs from one of the others by more than the tolerance."""
        others = [time for time in (self.database, self.api) if time is not None]
        if any(abs(self.machine - time) > tolerance for time in others):
            raise ClocksDiffer(self._sentences(tolerance))

    def _sentences(self, tolerance: timedelta) -> str:
        ahead = self.machine - self.database
        if self.api is None:
            return f"This machine's clock is {_relation(ahead)} the database's. {_SET_ONE} {_TOLERANCE}"
        [wrong, other], median = self._by_distance(self.api)
        if abs(other - median) > tolerance:
            return (
                f"This machine's clock is {_relation(ahead)} the database's and {_relation(self.machine - self.api)} "
                f"the API's. {_SET_ONE} {_TOLERANCE}"
            )
        difference = _relation(wrong - median)
        if wrong == self.machine:
            return f"This machine's clock is {difference} the database's and the API's. {_SET} {_TOLERANCE}"
        if wrong == self.database:
            return f"The database's clock is {difference} this machine's and the API's. {_SET} {_TOLERANCE}"
        return (
            f"The API's clock (the Date of its responses) is {difference} this machine's and the database's. If the "
            f"database runs on this machine, both have the wrong time. {_SET_ONE} {_TOLERANCE}"
        )

    def _by_distance(self, api: datetime) -> tuple[list[datetime], datetime]:
        """Return the first and the last of the three times, the more distant one first, and the one between them."""
        first, median, last = sorted([self.machine, self.database, api])
        return sorted([first, last], key=lambda time: abs(time - median), reverse=True), median


def check_with_api(machine: datetime, api: datetime, tolerance: timedelta) -> None:
    """Raise ClocksDiffer if the clocks of this machine and of the API differ by more than the tolerance."""
    if abs(machine - api) > tolerance:
        relation = _relation(machine - api)
        raise ClocksDiffer(f"This machine's clock is {relation} the API's. {_SET_ONE} {_TOLERANCE}")


def check_reading(read_at: datetime, now: datetime, elapsed: timedelta, tolerance: timedelta) -> None:
    """Raise ClocksDiffer if the clock was set since a page was read, at most `elapsed` ago."""
    ahead = max(read_at - now, now - read_at - elapsed)
    if ahead > tolerance:
        raise ClocksDiffer(
            f"This machine's clock was set during the run, by about {_span(ahead)}. What was read in between was not "
            "stored. Rerun with the same arguments to resume."
        )


def _relation(ahead: timedelta) -> str:
    return f"{_span(ahead)} {'fast' if ahead > timedelta() else 'slow'} compared with"


def _span(time: timedelta) -> str:
    """Return a length of time in the largest unit of which it has at least two."""
    seconds = round(abs(time.total_seconds()), -1)
    name, unit = next((each for each in _UNITS if seconds >= 2 * each[1]), _UNITS[-1])
    return f"{seconds / unit:,.0f} {name}"
