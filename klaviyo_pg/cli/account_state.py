"""The state of an account as the command `status` shows it: its last run, its recency, and the history it has loaded.

Reads the warehouse's ledger. Knows no terminal.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from klaviyo_pg.foreign import printable
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres import accounts, lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erase
from klaviyo_pg.postgres.ledgers import backfill_ledger, reconciliation, run_ledger
from klaviyo_pg.postgres.ledgers.run_ledger import LastRun
from klaviyo_pg.postgres.recency import Recency, recency
from klaviyo_pg.states import FINISHED
from pipeline.backfill.chunking import Summary, summaries
from pipeline.reconcile.compare import summary

_HOUR = timedelta(hours=1)
_LONGEST_RELATIVE = timedelta(days=4)


class AccountState(NamedTuple):
    """An account as the ledger has it. Each line of its history is a metric with its name.

    `last_limited_run` is when the last daily run finished that arguments had limited. `differing_days` are days of a
    metric whose counts differ from Klaviyo's, and `differences` is a sentence about them.
    """

    name: str
    last_run: LastRun | None
    recency: Recency
    last_limited_run: datetime | None
    differing_days: int
    differences: str | None
    erasing: int
    is_being_removed: bool
    history: Sequence[tuple[str, Summary]]
    has_backfill_run: bool

    @property
    def has_unfinished_history(self) -> bool:
        """True if a backfill has chunks to read, or ended before it had planned any."""
        if not self.history:
            return self.has_backfill_run
        return any(row.done < row.chunks for _, row in self.history)

    @property
    def needs_attention(self) -> bool:
        """True if something is in progress, unfinished or wrong, apart from the age of the data."""
        has_ended_well = self.last_run is not None and self.last_run.state in FINISHED
        is_quiet = has_ended_well and not (self.differing_days or self.erasing or self.is_being_removed)
        return not is_quiet or self.has_unfinished_history


def read(name: str, account: Account) -> AccountState:
    """Read the state of the account with this name."""
    names = {row.id: row.name for row in lookups.metrics(account)}
    days = reconciliation.differences(account)
    found = sorted(summaries(backfill_ledger.chunks(account)), key=lambda row: -row.expected)
    return AccountState(
        name,
        last_run=run_ledger.last_run(account),
        recency=recency(account, name),
        last_limited_run=run_ledger.last_limited_run(account),
        differing_days=len(days),
        differences=summary(days) if days else None,
        erasing=erase.pending(account),
        is_being_removed=not accounts.stays(account),
        history=[(printable(names.get(row.metric_id) or row.metric_id), row) for row in found],
        has_backfill_run=run_ledger.last_run(account, "backfill") is not None,
    )


def staleness(state: AccountState, max_age: timedelta, now: datetime) -> str | None:
    """Return a sentence about what is older than `max_age`; None if nothing is."""
    complete, data = state.recency
    if complete is None:
        return f"{state.name} is stale: no daily run has been complete yet.{_limited(state, now)}"
    if now - complete > max_age:
        finished = f"the last complete daily run finished {age(now - complete)} ago."
        return f"{state.name} is stale: {finished}{_limited(state, now)}"
    if data is not None and now - data > max_age:
        return f"{state.name} is stale: its events were last read {age(now - data)} ago."
    return None


def _limited(state: AccountState, now: datetime) -> str:
    """Return a sentence about a limited run that is newer than the last complete one; nothing without one."""
    last, complete = state.last_limited_run, state.recency.last_complete_run
    if last is None or (complete is not None and last < complete):
        return ""
    return (
        f" The daily run that finished {age(now - last)} ago does not count, because it was limited (--tables, "
        "--metrics or --since)."
    )


def age(passed: timedelta) -> str:
    """Return a time that has passed, in hours or, from four days on, in days."""
    if passed < _LONGEST_RELATIVE:
        return f"{passed / _HOUR:,.1f} hours"
    return counted(passed.days, "day")


def document(state: AccountState, stale: str | None, rows: Mapping[str, object] | None) -> dict[str, object]:
    """Return the state of an account as values for JSON. Missing values are null, and times are in UTC."""
    return {
        "integration": state.name,
        "last_run": state.last_run and _run(state.last_run),
        "last_complete_run": _utc(state.recency.last_complete_run),
        "last_limited_run": _utc(state.last_limited_run),
        "events_read_to": _utc(state.recency.events_read_to),
        "stale": stale,
        "differing_days": state.differing_days,
        "differences": state.differences,
        "people_being_erased": state.erasing,
        "is_being_removed": state.is_being_removed,
        "history": [{"metric": name, **row._asdict()} for name, row in state.history],
        "rows": rows,
    }


def _run(run: LastRun) -> dict[str, object]:
    seconds = None if run.duration is None else run.duration.total_seconds()
    times = {"started_at": _utc(run.started_at), "finished_at": _utc(run.finished_at), "seconds": seconds}
    return {**run._asdict(), **times}


def _utc(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")
