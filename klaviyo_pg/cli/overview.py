"""Tables of plain text for the command `status`, each row on one line, also in a pipe: accounts, and stored rows."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from klaviyo_pg.cli.account_state import AccountState
from klaviyo_pg.foreign import printable
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres.ledgers.run_ledger import LastRun
from klaviyo_pg.states import FINISHED, RunState

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_LONGEST_IN_HOURS = 4 * _DAY
_LONGEST_NAME = 24
_COLUMNS = ("account", "complete", "last run", "started", "took", "read", "new", "changed", "rejected", "differs")
_LEFT = 4  # columns that are aligned to the left
_NONE = "-"


def overview(
    states: Sequence[AccountState], stale: Collection[str], max_age: timedelta, zone: ZoneInfo, now: datetime
) -> Iterator[str]:
    """Yield a line for each account, after a headline and the names of the columns. `stale` are names of accounts."""
    hours = f"{max_age / _HOUR:,g} hours"
    yield f"{counted(len(states), 'account')}, {len(stale)} stale (older than {hours}). Times are in {zone}."
    rows = [_row(state, state.name in stale, zone, now) for state in states]
    yield from columns([(*_COLUMNS, "state"), *rows], _LEFT)


def columns(rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Yield rows of texts with aligned columns: the first `left` and the last to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    for row in rows:
        texts = (
            text.ljust(width) if at < left or at == last else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(texts).rstrip()


def _row(state: AccountState, is_stale: bool, zone: ZoneInfo, now: datetime) -> tuple[str, ...]:
    complete, run = state.recency.last_complete_run, state.last_run
    since = "never" if complete is None else _age(now - complete)
    return (
        printable(state.name, _LONGEST_NAME),
        f"{since}, stale" if is_stale and complete else since,
        *(_run(run, zone, now) if run else [_NONE] * 7),
        counted(state.differing_days, "day") if state.differing_days else _NONE,
        "being removed" if state.is_being_removed else _state(run),
    )


def _run(run: LastRun, zone: ZoneInfo, now: datetime) -> tuple[str, ...]:
    took = _NONE if run.duration is None else str(timedelta(seconds=round(run.duration.total_seconds())))
    rows = (run.rows_read, run.inserted, run.updated, run.rejected)
    return run.flow, _start(run.started_at.astimezone(zone), now), took, *(f"{number:,}" for number in rows)


def _state(run: LastRun | None) -> str:
    """Return the state of a run; of one that is complete with differences only `complete`: a column has those."""
    if run is None:
        return "no run yet"
    return RunState.COMPLETE if run.state in FINISHED else run.state


def _start(started: datetime, now: datetime) -> str:
    return f"{started:%m-%d %H:%M}" if started.year == now.astimezone(started.tzinfo).year else f"{started:%Y-%m-%d}"


def _age(passed: timedelta) -> str:
    return f"{passed / _HOUR:,.1f} h" if passed < _LONGEST_IN_HOURS else f"{passed.days:,} d"
