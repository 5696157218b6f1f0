"""Waiting that something else can end. Knows no reason to wait."""

from collections.abc import Callable
from time import monotonic, sleep

CHECK_INTERVAL = 0.25
"""Seconds between two checks during a wait."""


def pause(seconds: float, check: Callable[[], None]) -> None:
    """Wait for some seconds. Raises the error of the check as soon as it has one."""
    until = monotonic() + seconds
    while (left := until - monotonic()) > 0:
        check()
        sleep(min(left, CHECK_INTERVAL))
