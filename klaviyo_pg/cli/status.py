"""The command `status`: the last run of each account, how recent its data is, and the progress of its backfill."""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.warehouse import chosen_accounts, open_warehouse
from klaviyo_pg.errors import BadSettings, KlaviyoPgError
from klaviyo_pg.foreign import LONGEST_MESSAGE, printable
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres import accounts, backfill_ledger, erase, lookups, reconciliation, run_ledger
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.recency import Recency, recency
from klaviyo_pg.postgres.run_ledger import LastRun
from pipeline.backfill.chunking import Summary, summaries
from pipeline.coverage import coverage_of
from pipeline.reconcile.compare import summary

_IMAGES = (".png", ".svg")
_HOUR = timedelta(hours=1)


class _State(NamedTuple):
    """An account as the ledger has it. Each line of its history is a metric with its name."""

    name: str
    last_run: LastRun | None
    recency: Recency
    differences: str | None
    erasing: int
    is_being_removed: bool
    history: Sequence[tuple[str, Summary]]
    has_backfill_run: bool


def status(arguments: Namespace) -> int:
    """Show the state of each account. Raises KlaviyoPgError if one is older than `max_age`."""
    settings, file = check_settings(), arguments.coverage
    if file and file.suffix not in _IMAGES:
        raise BadSettings(f"--coverage {file}: the name must end in {' or '.join(_IMAGES)}.")
    with open_warehouse(settings) as connection:
        shown = chosen_accounts(connection, settings.warehouse_schema, arguments.integration)
        if file and len(shown) != 1:
            raise BadSettings(f"--coverage draws one account, and there are {len(shown)}. Choose one: --integration.")
        states = [_state(name, account) for name, account in shown]
        stale = {state.name: _stale(state, arguments.max_age, datetime.now(UTC)) for state in states}
        if arguments.json:
            print(json.dumps([_document(state, stale[state.name]) for state in states], indent=2))
        elif not settings.quiet:
            for state in states:
                _show(state, ZoneInfo(settings.display_timezone))
        if file:
            _draw(file, *shown[0], settings.events_kept_since, prints=not arguments.json)
    if sentences := list(filter(None, stale.values())):
        raise KlaviyoPgError(" ".join(sentences))
    return 0


def _state(name: str, account: Account) -> _State:
    names = {row.id: row.name for row in lookups.metrics(account)}
    days = reconciliation.differences(account)
    found = sorted(summaries(backfill_ledger.chunks(account)), key=lambda row: -row.expected)
    return _State(
        name,
        last_run=run_ledger.last_run(account),
        recency=recency(account, name),
        differences=summary(days) if days else None,
        erasing=erase.pending(account),
        is_being_removed=not accounts.stays(account),
        history=[(printable(names.get(row.metric_id) or row.metric_id), row) for row in found],
        has_backfill_run=run_ledger.last_run(account, "backfill") is not None,
    )


def _stale(state: _State, max_age: timedelta | None, now: datetime) -> str | None:
    """Return a sentence about what is older than `max_age`; None if nothing is, or if it does not matter."""
    if max_age is None:
        return None
    run, data = state.recency
    if run is None:
        return f"{state.name} is stale: no daily run has been complete yet."
    if now - run > max_age:
        return f"{state.name} is stale: the last complete daily run finished {_age(now - run)} ago."
    if data is not None and now - data > max_age:
        return f"{state.name} is stale: its events were last read {_age(now - data)} ago."
    return None


def _age(age: timedelta) -> str:
    return f"{age / _HOUR:,.1f} hours"


def _document(state: _State, stale: str | None) -> dict[str, object]:
    """Return the state of an account as values for JSON. Missing values are null, and times are in UTC."""
    last = state.last_run
    return {
        "integration": state.name,
        "last_run": last and {**last._asdict(), "started_at": _utc(last.started_at)},
        "last_complete_run": _utc(state.recency.last_complete_run),
        "events_read_to": _utc(state.recency.events_read_to),
        "stale": stale,
        "differences": state.differences,
        "people_being_erased": state.erasing,
        "is_being_removed": state.is_being_removed,
        "history": [{"metric": name, **row._asdict()} for name, row in state.history],
    }


def _utc(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def _show(state: _State, zone: ZoneInfo) -> None:
    for line in _lines(state, zone):
        print(line)
    if state.history:
        Console().print(_table(state))
    elif state.has_backfill_run:
        print(
            f"{state.name}: no history is planned, because the last backfill ended before it had planned any. Rerun it "
            "to resume. Events that are loaded stay."
        )
    else:
        print(f"{state.name}: no backfill yet.")


def _lines(state: _State, zone: ZoneInfo) -> Iterator[str]:
    if last := state.last_run:
        started = f"{last.started_at.astimezone(zone):%Y-%m-%d %H:%M %Z}"
        yield f"{state.name}: last run {last.flow}, {last.state}, started {started}"
        if last.message:
            yield printable(last.message, LONGEST_MESSAGE)
    if state.is_being_removed:
        yield f"Removing {state.name} is not finished. Run klaviyo-pg remove {state.name} to resume it."
    if state.differences:
        yield f"{state.differences} See the table reconciliation."
    if state.erasing:
        people = counted(state.erasing, "person", "people")
        yield f"Erasing {people} is not finished. The next daily run does the rest, or klaviyo-pg erase."


def _table(state: _State) -> Table:
    table = Table(title=escape(f"{state.name}: history"))
    # rarely, and few terminals have room for another column
    has_uncounted = any(row.loaded_uncounted for _, row in state.history)
    columns = ["metric", "expected", "loaded", "left", "chunks done", "failed", "seconds"]
    for name in [*columns, "loaded uncounted"] if has_uncounted else columns:
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, row in state.history:
        table.add_row(
            escape(name),
            f"{row.expected:,}",
            f"{row.loaded:,}",
            f"{row.waiting:,}",
            f"{row.done} of {row.chunks}",
            str(row.failed),
            f"{row.seconds:,.1f}",
            *([f"{row.loaded_uncounted:,}"] if has_uncounted else ()),
        )
    return table


def _draw(file: Path, name: str, account: Account, since: datetime, prints: bool) -> None:
    from pipeline.coverage_picture import picture

    covered = coverage_of(account, name, datetime.now(UTC).date(), since)
    image = picture(covered, "svg" if file.suffix == ".svg" else "png")
    try:
        file.write_bytes(image)
    except OSError as error:
        raise BadSettings(f"--coverage {file}: cannot write the file ({error.strerror}).") from None
    if prints:
        print(f"Wrote {file}")
