"""The decision whether a request is repeated after an error, and when. Sends nothing and waits for nothing."""

import random
from dataclasses import dataclass
from time import monotonic

from klaviyo_pg.errors import Garbled, KlaviyoPgError, Throttled, TooMuch, Unavailable
from klaviyo_pg.klaviyo.refusals import RESUME

_TRIES_OF_GARBLED = 3  # a host that is not the API returns garbage every time
_TRIES_OF_TOO_MUCH = 2  # where a smaller page can be requested instead
_FIRST_WAIT = 0.5  # seconds, doubled from try to try
_LONGEST_WAIT = 60.0  # seconds, unless the API asks for more


@dataclass(frozen=True)
class Patience:
    """The seconds that one request may take, the number of tries, and the seconds in which they may begin."""

    timeout: float = 120.0
    attempts: int = 8
    budget: float = 900.0


class Retries:
    """The decision whether to retry one request, and when. Waiting for a rate limit does not count as a failure."""

    def __init__(self, request: str, patience: Patience, can_ask_for_less: bool) -> None:
        self._request, self._patience, self._can_ask_for_less = request, patience, can_ask_for_less
        self._tries = self._failed = self._garbled = self._too_much = 0
        self._until: float | None = None

    @property
    def has_begun(self) -> bool:
        """True after the first try."""
        return self._tries > 0

    @property
    def seconds_left(self) -> float | None:
        """The seconds in which retries may begin. None before the first failure, from which on they are counted."""
        return None if self._until is None else max(0.0, self._until - monotonic())

    def pause_after(self, error: KlaviyoPgError) -> float:
        """Return the seconds to wait before the next try. Raises the error if no retry is left.

        A pause that the API asks for is never cut short: if it is longer than what is left, the request ends at once.
        If it asks for none, the usual pause keeps the same refusal from being repeated without end.
        """
        self._tries += 1
        now = monotonic()
        self._until = now + self._patience.budget if self._until is None else self._until
        if not self._deserves_retry(error):
            raise error
        asked = (error.retry_after if isinstance(error, Unavailable) else None) or 0.0
        seconds = asked or self._usual_pause
        if seconds <= max(0.0, self._until - now):
            return seconds
        if not asked or isinstance(error, Throttled):
            raise error
        raise Throttled(
            f"{self._request}: the API is not available and asks for a pause of {asked:.0f} s, longer than "
            f"RETRY_BUDGET_SECONDS allows to wait. {RESUME}",
            asked,
        ) from None

    @property
    def _usual_pause(self) -> float:
        return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(self._tries - 1, 10) + random.random())

    def _deserves_retry(self, error: KlaviyoPgError) -> bool:
        if isinstance(error, Throttled):
            return True
        self._failed += 1
        if self._failed >= self._patience.attempts:
            return False
        match error:
            case Garbled():
                self._garbled += 1
                return self._garbled < _TRIES_OF_GARBLED
            case TooMuch() if self._can_ask_for_less:
                self._too_much += 1
                return self._too_much < _TRIES_OF_TOO_MUCH
        return isinstance(error, Unavailable)
