"""The backfill: history in planned chunks, side by side, resumable at every batch."""

from prefect import State, flow

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.settings import parse_moment
from tasks import command
from tasks.backfilling import read_history, report
from tasks.blocks import settings_from
from tasks.distributing import read_distributed
from tasks.ending import broken_off, ended
from tasks.history import Plan, history_window, plan
from tasks.naming import run_name
from tasks.plan import Chunk
from tasks.reading import Problems, read
from tasks.run import begin, finish


@flow(name="backfill", flow_run_name=run_name, validate_parameters=False, persist_result=False)
def backfill(
    start: str,
    end: str | None = None,
    integration: str | None = None,
    metrics: list[str] | None = None,
    restart: bool = False,
    distribute: bool = False,
    klaviyo: str | None = None,
    warehouse: str | None = None,
) -> State:
    """Load the history of events, up to the last midnight (UTC). Again the same: go on where it stopped.

    Args:
        start: the first day.
        end: the day behind the last one; today where not given.
        integration: what this warehouse calls the account; KLAVIYO_INTEGRATION where not given.
        metrics: names or ids of the metrics to read; a leading - leaves one out. METRICS where not given.
        restart: read again what has been read before.
        distribute: have it read by runs of the deployment `chunk`, on as many workers as there are.
        klaviyo: name of the Prefect block that holds the account; the environment's account where not given.
        warehouse: name of the Prefect block that holds the warehouse; DATABASE_URL where not given.
    """
    run = None
    try:
        settings = settings_from(klaviyo, warehouse, klaviyo_integration=integration, metrics=metrics)
        first, problems = parse_moment("--start", start), Problems()
        last = None if end is None else parse_moment("--end", end)
        run = begin(settings, "backfill", {"start": start, "end": end})
        window = history_window(run.as_of, first, last)
        read(run, [Chunk("metrics"), Chunk("lists")], problems)
        planned = Plan(()) if problems.stop else plan(run, window, restart)
        if distribute:
            given = {"integration": integration, "klaviyo": klaviyo, "warehouse": warehouse}
            read_distributed(run, planned, problems, given)
        else:
            read_history(run, planned, problems)
        report(run, window)
        finish(run, problems.state, problems.sentences)
        return ended(run, problems)
    except KlaviyoPgError as error:
        return broken_off(error, run)


if __name__ == "__main__":
    command.main(backfill)
