"""The daily sync: everything that a Klaviyo account gained or changed since the last run."""

from prefect import State, flow

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.settings import parse_since
from tasks import command
from tasks.blocks import settings_from
from tasks.ending import broken_off, ended
from tasks.naming import run_name
from tasks.plan import DIMENSIONS, Chunk, streams
from tasks.planning import plan
from tasks.reading import Problems, read
from tasks.reconciling import find_late
from tasks.run import begin, derive_memberships, finish


@flow(name="daily", flow_run_name=run_name, validate_parameters=False, persist_result=False)
def daily(
    integration: str | None = None,
    since: str | None = None,
    metrics: list[str] | None = None,
    tables: list[str] | None = None,
    klaviyo: str | None = None,
    warehouse: str | None = None,
) -> State:
    """Bring the warehouse up to the present.

    Args:
        integration: what this warehouse calls the account; KLAVIYO_INTEGRATION where not given.
        since: read events from this date or time on, whatever has been read before.
        metrics: names or ids of the metrics to read; a leading - leaves one out. METRICS where not given.
        tables: names of the tables to bring up to date; all of them where not given.
        klaviyo: name of the Prefect block that holds the account; the environment's account where not given.
        warehouse: name of the Prefect block that holds the warehouse; DATABASE_URL where not given.
    """
    run = None
    try:
        settings = settings_from(klaviyo, warehouse, klaviyo_integration=integration, metrics=metrics)
        wanted, start, problems = streams(tables or ()), parse_since(since), Problems()
        run = begin(settings, "daily", {"since": since, "tables": sorted(tables or ())})
        read(run, [Chunk(stream) for stream in DIMENSIONS if stream in wanted], problems)
        phases = plan(run, wanted, start, problems)
        for phase in phases:
            if not problems.stop:
                read(run, phase, problems)
        find_late(run, wanted, phases, problems)
        derive_memberships(run)
        finish(run, problems.state, problems.sentences)
        return ended(run, problems)
    except KlaviyoPgError as error:
        return broken_off(error, run)


if __name__ == "__main__":
    command.main(daily)
