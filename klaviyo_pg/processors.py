"""The processors that this process may use. Knows no settings."""

import os
from contextlib import suppress
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_FEW = 2  # processors that the database, the loader and a reader share already
_MOST = 8  # processes: more than the API's limit needs


def count() -> int:
    """Return the number of processors, as far as the affinity and the control group of this process allow."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        quota, period = _LIMIT.read_text().split()
        allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed


def spare(processors: int, has_database: bool) -> int:
    """Return how many processes to use. A database on this machine needs half of the processors."""
    if processors <= _FEW:
        return 1
    return min(_MOST, processors // 2 if has_database else processors)
