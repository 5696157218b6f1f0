"""Time that passes, whatever the clock is set to. Knows no time of day."""

import time

_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the former exists on Linux only


def uptime() -> float:
    """Return the seconds since a fixed moment, including those during which the machine slept."""
    return time.clock_gettime(_CLOCK)
