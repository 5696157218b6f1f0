"""Giving up on the rest of a job while the API does not answer, instead of waiting for each part of it in turn."""

import psycopg

from klaviyo_pg.errors import Throttled, TooMuch, Unavailable


def is_transient(error: object) -> bool:
    """Return whether an error may disappear by itself, so that the same task deserves another attempt."""
    return isinstance(error, Unavailable | psycopg.OperationalError) and not isinstance(error, Throttled)


class Outage:
    """Consecutive failures of the API within one job. After `limit` of them the API counts as unavailable."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._errors: list[Exception] = []

    def failed(self, error: Exception) -> None:
        """Note a failure. Only a transient error counts: any other, such as a too large answer, is an answer."""
        if is_transient(error) and not isinstance(error, TooMuch):
            self._errors.append(error)
        else:
            self.succeeded()

    def succeeded(self) -> None:
        """Note an answer: the API is available."""
        if len(self._errors) < self._limit:
            self._errors.clear()

    @property
    def error(self) -> Exception | None:
        """The last failure if the API counts as unavailable, else None."""
        return self._errors[-1] if len(self._errors) >= self._limit else None
