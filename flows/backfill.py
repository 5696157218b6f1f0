"""The backfill: the history of events in planned chunks, read side by side, resumable at every batch."""

if __name__ == "__main__":  # before Prefect is imported, so that its server starts at the same time
    from klaviyo_pg.cli import main

    main("backfill")

from functools import partial

from prefect import State, flow

from klaviyo_pg.moments import parse_moment
from klaviyo_pg.parameters import parse_flag
from klaviyo_pg.settings import Settings
from pipeline.backfill import runbook
from pipeline.backfill.side_by_side import read_history
from tasks.blocks import AccountBlock, WarehouseBlock
from tasks.distributing import read_distributed
from tasks.flow_run import Runbook, follow
from tasks.flow_settings import settings_from
from tasks.naming import run_name


@flow(name="backfill", flow_run_name=run_name, validate_parameters=False, persist_result=False)
def backfill(
    start: str,
    end: str | None = None,
    integration: str | None = None,
    metrics: list[str] | None = None,
    tables: list[str] | None = None,
    restart: bool = False,
    distribute: bool = False,
    klaviyo: AccountBlock = None,
    warehouse: WarehouseBlock = None,
) -> State:
    """Load the history of events, up to the last midnight (UTC). Rerun with the same parameters to resume.

    Args:
        start: the first day.
        end: the end date, exclusive. Default: today.
        integration: the account's name in this warehouse. Default: KLAVIYO_INTEGRATION.
        metrics: names or ids of the metrics to read; a leading - leaves one out. Default: METRICS.
        tables: names of the tables to fill; of events, read only the metrics of these. Default: TABLES.
        restart: read again what has been read before.
        distribute: let runs of the deployment `backfill_part` read it, on as many workers as there are.
        klaviyo: the Prefect block with the account, or its name. Default: the account in the environment.
        warehouse: the Prefect block with the warehouse, or its name. Default: DATABASE_URL.
    """
    parameters = {"integration": integration, "klaviyo": klaviyo, "warehouse": warehouse}

    def prepare() -> tuple[Settings, Runbook]:
        settings = settings_from(klaviyo, warehouse, klaviyo_integration=integration, metrics=metrics, tables=tables)
        is_distributed, is_restart = parse_flag("distribute", distribute), parse_flag("restart", restart)
        read_plan = partial(read_distributed, parameters=parameters) if is_distributed else read_history
        first, last = parse_moment("start", start), None if end is None else parse_moment("end", end)
        return settings, partial(runbook.backfill, start=first, end=last, restart=is_restart, read_plan=read_plan)

    return follow(
        "backfill",
        prepare,
        selection={"start": start, "end": end, "restart": restart},
        is_limited=metrics is not None or tables is not None,
        tolerates_failures=True,
    )
