"""The output of a command after a run: rows by table, errors, and commands to run next. Knows no flow."""

import os
import re
import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.catalogue import DATA, STORED
from klaviyo_pg.cli.output import json_line, print_error, with_account
from klaviyo_pg.cli.warehouse import chosen_account
from klaviyo_pg.errors import UserError
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres.connect import connect, translated
from klaviyo_pg.postgres.ledgers import backfill_ledger, run_ledger
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings
from klaviyo_pg.states import FINISHED, RunState
from pipeline.outcome import RowCounts, RunFailed, RunReport, describe

_COLUMNS = ("rows_read", "inserted", "updated", "unchanged", "rejected")
_HISTORY_YEARS = 5  # for the suggested start of a backfill
_TOP_MESSAGES = (
    "SELECT m.name, count(*) AS opens FROM {schema}.opens o JOIN {schema}.messages m ON m.message_key = o.campaign_key "
    "AND m.esp_integration_id = o.esp_integration_id GROUP BY m.name ORDER BY opens DESC LIMIT 10"
)
_REJECTS = "SELECT table_name, reason, count(*) FROM {schema}.rejects GROUP BY 1, 2 ORDER BY 3 DESC"
_DIFFERENCES = (
    "SELECT name, newest_event, last_reconciled, difference, differing_events FROM {schema}.freshness "
    "WHERE count_state = 'differs'"
)


class Times(NamedTuple):
    """Seconds that the start and the run took."""

    starting: float
    running: float


@dataclass(frozen=True)
class Invocation:
    """The command line of this process, and the prefix that commands for the same warehouse need.

    `integration` is its argument; None stands for the setting.
    """

    line: str
    flow: str
    is_demo: bool
    prefix: str
    integration: str | None = None

    @classmethod
    def of(cls, arguments: Namespace, prefix: str) -> "Invocation":
        """Describe the command of this process."""
        return cls(_line(), arguments.command.name, arguments.sandbox is not None, prefix, arguments.integration)

    @property
    def program(self) -> str:
        """The command `klaviyo-pg`, for the warehouse of this command."""
        return self.prefix + _relative(Path(sys.executable).with_name("klaviyo-pg"))


def _line() -> str:
    script = Path(sys.argv[0])
    program = ["-m", script.parent.name] if script.name == "__main__.py" else [_relative(script)]
    if script.suffix == ".py":
        program.insert(0, _relative(Path(sys.executable)))
    return shlex.join([*program, *sys.argv[1:]])


def _relative(program: Path) -> str:
    """Return a program as it can be typed in the current folder."""
    program = program.absolute()
    if program.is_relative_to(Path.cwd()):
        return os.path.relpath(program)
    found = shutil.which(program.name)
    return program.name if found and Path(found).absolute() == program else str(program)


class _Ledger(NamedTuple):
    """The warehouse's records about a run."""

    counts: RowCounts
    requests: int
    retries: int
    new_rejects: int
    has_history: bool
    has_finished_before: bool

    def tables_with(self, number: str) -> list[str]:
        """Return the names of the tables for which a number is not 0."""
        return [name for name, numbers in self.counts.items() if numbers[number]]

    def total(self, number: str) -> int:
        """Return the sum of a number over all tables."""
        return sum(numbers[number] for numbers in self.counts.values())


def show(settings: Settings, result: object, times: Times, invocation: Invocation) -> int:
    """Print the summary of a run, or the error that ended it, and return the exit code."""
    report = result.report if isinstance(result, RunFailed) else result
    if not isinstance(report, RunReport):
        assert isinstance(result, BaseException)
        print_error(describe(result), settings.klaviyo_integration)
        return getattr(result, "exit_code", 1)
    level = _level(report)
    if settings.quiet and level == "info":
        return report.exit_code
    ledger = _read(settings, report)
    if settings.log_format == "json":
        json_line(level, f"{report.integration}: {report.state}", _result(report, ledger, times, invocation))
        return report.exit_code
    if settings.quiet:
        _print_sentences(report)
        return report.exit_code
    console = Console()
    console.print(table(report, ledger.counts))
    console.print(_figures(ledger, times), highlight=False, soft_wrap=True)
    _print_sentences(report)
    for purpose, command in _next_commands(settings, report, ledger, invocation):
        print(f"{purpose}\n  {command}")
    return report.exit_code


def _print_sentences(report: RunReport) -> None:
    for sentence in report.sentences:
        print(with_account(sentence, report.integration), file=sys.stderr)


def _level(report: RunReport) -> str:
    """Return the level of a result as a line of the log. A sentence means that something is wrong."""
    if report.state is RunState.FAILED:
        return "error"
    return "info" if report.state in FINISHED and not report.sentences else "warning"


def _result(report: RunReport, ledger: _Ledger, times: Times, invocation: Invocation) -> dict[str, object]:
    """Return the result of a run for programs. Tables without rows are left out."""
    return {
        "account": report.integration,
        "flow": invocation.flow,
        "run_id": report.run_id,
        "state": report.state,
        "exit_code": report.exit_code,
        "sentences": report.sentences,
        "rows": {name: numbers for name, numbers in ledger.counts.items() if any(numbers.values())},
        "requests": ledger.requests,
        "retries": ledger.retries,
        "new_rejects": ledger.new_rejects,
        "seconds": round(times.starting + times.running, 1),
    }


def _read(settings: Settings, report: RunReport) -> _Ledger:
    with translated(), connect(embedded.warehouse_url(settings), settings.warehouse_schema) as connection:
        account = chosen_account(connection, settings.warehouse_schema, report.integration)
        requests, retries = run_ledger.run_requests(account, report.run_id)
        return _Ledger(
            run_ledger.run_counts(account, report.run_id),
            requests,
            retries,
            new_rejects=run_ledger.new_rejects(account, report.run_id),
            has_history=bool(backfill_ledger.chunks(account)),
            has_finished_before=run_ledger.has_finished_before(account, report.run_id),
        )


def table(report: RunReport, counts: RowCounts) -> Table:
    """Return the rows of a run by table, without the tables that have none."""
    shown = Table(title=f"{escape(report.integration)}: {report.state}")
    shown.add_column("table")
    for name in _COLUMNS:
        shown.add_column(name.removeprefix("rows_"), justify="right")
    for described in (*DATA, *STORED):
        numbers = [counts.get(described.name, {}).get(name, 0) for name in _COLUMNS]
        if any(numbers):
            shown.add_row(described.name, *(f"{number:,}" for number in numbers))
    return shown


def _figures(ledger: _Ledger, times: Times) -> str:
    new = ledger.new_rejects
    rejected, replaced, removed = map(ledger.total, ("rejected", "replaced_values", "nul_characters"))
    parts = [
        f"Started in {times.starting:.1f} s, ran for {times.running:.1f} s",
        f"{ledger.requests:,} API calls",
        f"{ledger.retries:,} retries",
    ]
    problems = [
        *([f"{rejected:,} rejected"] if rejected else []),
        *([f"{replaced:,} values replaced that Postgres cannot hold"] if replaced else []),
    ]
    lines = [", ".join(parts)]
    if problems:
        records = counted(new, "new record") if new else "no new records"
        lines.append(f"{', '.join(problems)}; {records} in the table rejects")
    if removed:
        tables = ", ".join(ledger.tables_with("nul_characters"))
        lines.append(f"{removed:,} NUL characters removed, which Postgres cannot hold, from {tables}")
    return "\n".join(lines)


def _next_commands(
    settings: Settings, report: RunReport, ledger: _Ledger, invocation: Invocation
) -> Iterator[tuple[str, str]]:
    """Yield the commands that are useful after a run, each with its purpose."""
    schema, program = _identifier(settings.warehouse_schema), invocation.program
    if report.state not in FINISHED:
        needs_correction = report.exit_code == UserError.exit_code
        yield "When that is corrected, rerun to resume:" if needs_correction else "Rerun to resume:", invocation.line
    if report.state is RunState.COMPLETE_WITH_DIFFERENCES:
        yield "See where the counts differ:", _psql(program, _DIFFERENCES.format(schema=schema))
    if ledger.new_rejects:
        yield "See which records were rejected, and why:", _psql(program, _REJECTS.format(schema=schema))
    if report.state in (RunState.FAILED, RunState.STOPPED):
        return
    if invocation.flow == "daily" and not ledger.has_history and not invocation.is_demo:
        start = f"{datetime.now(UTC).year - _HISTORY_YEARS}-01-01"
        account = f" --integration {shlex.quote(invocation.integration)}" if invocation.integration else ""
        yield (
            "Load older events (--plan counts them, and forecasts the time):",
            f"{program} backfill --start {start}{account} --plan",
        )
    if not (settings.database_url or ledger.has_finished_before):
        yield "Look at the data:", f"{program} psql"
        yield "or, for example:", _psql(program, _TOP_MESSAGES.format(schema=schema))


def _psql(program: str, query: str) -> str:
    return f"{program} psql -c {shlex.quote(query)}"


def _identifier(name: str) -> str:
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"{}"'.format(name.replace('"', '""'))
