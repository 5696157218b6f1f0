"""How a run looks when it is over: as a state of Prefect, as a summary for people, and as an exit code."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.catalogue import SPECIFIED
from klaviyo_pg.errors import KlaviyoPgError, Throttled
from klaviyo_pg.postgres import ledger
from klaviyo_pg.postgres.connect import transaction
from klaviyo_pg.settings import Settings
from tasks import edges
from tasks.reading import Problems
from tasks.run import Run

_COLUMNS = ("rows_read", "inserted", "updated", "unchanged", "rejected")


@dataclass(frozen=True)
class Ending:
    """A run that is over. Holds no settings: Prefect may keep what a flow returns."""

    run_id: str
    integration: str
    state: str
    sentences: tuple[str, ...]
    exit_code: int


class RunFailed(KlaviyoPgError):
    """The run failed."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(" ".join(ending.sentences))
        self.ending = ending
        self.exit_code = ending.exit_code


def ended(run: Run, problems: Problems) -> State[Any]:
    """Completed, Completed by the name of Partial (a scope is missing) or To be continued (a long pause), or Failed."""
    edges.release()
    ending = Ending(
        run.id, run.settings.klaviyo_integration, problems.state, tuple(problems.sentences), problems.exit_code
    )
    message = " ".join(ending.sentences) or None
    match ending.state:
        case "failed":
            return Failed(message=message, data=RunFailed(ending))
        case "partial":
            return Completed(name="Partial", message=message, data=ending)
        case "to be continued":
            return Completed(name="To be continued", message=message, data=ending)
    return Completed(message=message, data=ending)


def broken_off(error: KlaviyoPgError, run: Run | None) -> State[Any]:
    """Failed, before there was anything to count. Closes the run, if there is one and the database lets it."""
    if run is not None and isinstance(error, Throttled):
        problems = Problems(postponed=[error])
        _close(run, problems.state, str(error))
        return ended(run, problems)
    edges.release()
    if run is not None:
        _close(run, "failed", str(error))
    return Failed(message=str(error), data=error)


def _close(run: Run, state: str, message: str) -> None:
    with suppress(KlaviyoPgError, psycopg.Error), transaction(edges.engine(run.settings)) as connection:
        ledger.close_run(connection, run.schema, run.id, state, message)


def summary(settings: Settings, ending: Ending, seconds: float) -> Table:
    """What the run did, table by table."""
    with transaction(edges.engine(settings)) as connection:
        counts = ledger.run_counts(connection, settings.warehouse_schema, ending.run_id)
        requests, retries = ledger.run_requests(connection, settings.warehouse_schema, ending.run_id)
    table = Table(
        title=f"{escape(ending.integration)}: {ending.state}",
        caption=f"{requests} API calls, {retries} retries, {seconds:.1f} s",
    )
    table.add_column("table")
    for name in _COLUMNS:
        table.add_column(name.removeprefix("rows_"), justify="right")
    for described in SPECIFIED:
        known = counts.get(described.name, {})
        table.add_row(described.name, *(f"{known.get(name, 0):,}" for name in _COLUMNS))
    removed = sum(known["nul_characters"] for known in counts.values())
    if removed:
        table.caption = f"{table.caption}, {removed:,} NUL characters removed"
    return table


def show(settings: Settings, state: State[Any], seconds: float) -> int:
    """Print the summary, or what went wrong; gives the exit code."""
    result = state.result(raise_on_failure=False)
    ending = result.ending if isinstance(result, RunFailed) else result
    if isinstance(ending, Ending):
        Console().print(summary(settings, ending, seconds))
        for sentence in ending.sentences:
            print(sentence, file=sys.stderr)
        return ending.exit_code
    print(result, file=sys.stderr)
    return getattr(result, "exit_code", 1)
