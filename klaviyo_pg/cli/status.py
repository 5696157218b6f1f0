"""The command `status`: an overview of the accounts, and the details of those that have something unfinished."""

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.catalogue import DATA, STORED
from klaviyo_pg.cli.account_state import AccountState, age, document, read, staleness
from klaviyo_pg.cli.overview import columns, overview
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.warehouse import chosen_accounts, open_warehouse
from klaviyo_pg.errors import BadSettings, KlaviyoPgError
from klaviyo_pg.foreign import LONGEST_MESSAGE, printable
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers.run_ledger import LastRun
from klaviyo_pg.postgres.stored_rows import StoredRows, count_rows
from pipeline.coverage import coverage_of

_IMAGES = (".png", ".svg")
_MAX_AGE = timedelta(hours=26)  # a day, and two hours for a run that starts later or takes longer
Chosen = Sequence[tuple[str, Account]]
"""Accounts with their names."""


def status(arguments: Namespace) -> int:
    """Show the state of each account. Raises KlaviyoPgError if one is older than the argument `max_age`."""
    settings, file = check_settings(), arguments.coverage
    zone, now = ZoneInfo(settings.display_timezone), datetime.now(UTC)
    if file and file.suffix not in _IMAGES:
        raise BadSettings(f"--coverage {file}: the name must end in {' or '.join(_IMAGES)}.")
    with open_warehouse(settings) as connection:
        chosen = chosen_accounts(connection, settings.warehouse_schema, arguments.integration)
        if file and len(chosen) != 1:
            raise BadSettings(f"--coverage draws one account, and there are {len(chosen)}. Choose one: --integration.")
        states = [read(name, account) for name, account in chosen]
        max_age = arguments.max_age or _MAX_AGE
        stale = {state.name: text for state in states if (text := staleness(state, max_age, now))}
        rows = count_rows(chosen[0][1], (*DATA, *STORED)) if arguments.rows else None
        if arguments.json:
            print(json.dumps(_documents(chosen, states, stale, rows), indent=2))
        elif not settings.quiet:
            if len(states) > 1:
                print("\n".join(overview(states, stale, max_age, zone, now)))
            for state in states:
                if len(states) == 1 or state.needs_attention or state.name in stale:
                    _show(state, stale, zone, now, is_chosen=len(states) == 1)
            if rows:
                print("\n".join(_row_lines(chosen, rows)))
        if file:
            _draw(file, *chosen[0], settings.events_kept_since, prints=not arguments.json)
    if stale and arguments.max_age:
        raise KlaviyoPgError(" ".join(stale.values()))
    return 0


def _documents(
    chosen: Chosen, states: Sequence[AccountState], stale: Mapping[str, str], rows: StoredRows | None
) -> list[dict[str, object]]:
    """Return each account as values for JSON, with its rows by table if they were counted."""
    return [
        document(state, stale.get(state.name), rows and _rows_of(account, rows))
        for (_, account), state in zip(chosen, states, strict=True)
    ]


def _rows_of(account: Account, rows: StoredRows) -> dict[str, dict[str, object]]:
    return {
        table: {"rows": number, "is_estimated": table in rows.estimated}
        for table, number in sorted(rows.by_account.get(account.integration_id, {}).items())
    }


def _row_lines(chosen: Chosen, rows: StoredRows) -> Iterator[str]:
    """Yield a line for each account and table that has rows of it."""
    lines = [
        (printable(name), table, f"about {number:,}" if table in rows.estimated else f"{number:,}", "")
        for name, account in chosen
        for table, number in sorted(rows.by_account.get(account.integration_id, {}).items())
    ]
    yield from ("", *columns([("account", "table", "rows", ""), *lines], left=2))


def _show(state: AccountState, stale: Mapping[str, str], zone: ZoneInfo, now: datetime, is_chosen: bool) -> None:
    for line in _lines(state, stale.get(state.name), zone, now):
        print(line)
    if state.history and (is_chosen or state.has_unfinished_history):
        Console().print(_table(state))
    elif state.has_backfill_run and not state.history:
        print(
            f"{state.name}: no history is planned, because the last backfill ended before it had planned any. Rerun it "
            "to resume. Events that are loaded stay."
        )
    elif is_chosen:
        print(f"{state.name}: no backfill yet.")


def _lines(state: AccountState, stale: str | None, zone: ZoneInfo, now: datetime) -> Iterator[str]:
    if last := state.last_run:
        yield f"{state.name}: last run {_run(last, zone)}"
        if last.message:
            yield printable(last.message, LONGEST_MESSAGE)
    if stale:
        yield stale
    elif complete := state.recency.last_complete_run:
        yield f"The last complete daily run finished {age(now - complete)} ago."
    if state.is_being_removed:
        yield f"Removing {state.name} is not finished. Run klaviyo-pg remove {state.name} to resume it."
    if state.differences:
        yield f"{state.differences} See the table reconciliation."
    if state.erasing:
        people = counted(state.erasing, "person", "people")
        yield f"Erasing {people} is not finished. The next daily run does the rest, or klaviyo-pg erase."


def _run(run: LastRun, zone: ZoneInfo) -> str:
    started = f"{run.flow}, {run.state}, started {run.started_at.astimezone(zone):%Y-%m-%d %H:%M %Z}"
    if run.duration is None:
        return started
    took = timedelta(seconds=round(run.duration.total_seconds()))
    rows = f"{run.rows_read:,} rows read ({run.inserted:,} new, {run.updated:,} changed), {run.rejected:,} rejected"
    return f"{started}, took {took}: {rows}"


def _table(state: AccountState) -> Table:
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
