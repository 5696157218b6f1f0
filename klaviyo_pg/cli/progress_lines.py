"""Lines about the progress of a command that takes long, printed from time to time."""

import sys
from datetime import timedelta
from time import monotonic

SECONDS_BETWEEN_LINES = 5.0


class ProgressLines:
    """Prints on standard error how far a command has got, step by step."""

    def __init__(self) -> None:
        self._step, self._began, self._printed = "", 0.0, monotonic()

    def report(self, step: str, done: int, total: int) -> None:
        """Print how much of a step is done, unless a line was printed a moment ago."""
        now = monotonic()
        if step != self._step:
            self._step, self._began = step, now
        if now - self._printed < SECONDS_BETWEEN_LINES or not total:
            return
        print(progress_line(step, done / total, now - self._began), file=sys.stderr, flush=True)
        self._printed = now


def progress_line(step: str, share: float, seconds: float) -> str:
    """Return how much of a step is done, and about how long the rest takes if this share took so many seconds."""
    left = f", about {duration(seconds / share * (1 - share))} left" if share else ""
    return f"{step}: {share:.0%}{left}"


def duration(seconds: float) -> str:
    """Return a duration such as 0:01:30."""
    return str(timedelta(seconds=round(seconds)))
