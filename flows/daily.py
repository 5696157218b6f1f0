"""The daily sync: everything that a Klaviyo account gained or changed since the last run."""

if __name__ == "__main__":  # before Prefect is imported, so that its server starts at the same time
    from klaviyo_pg.cli import main

    main("daily")

from functools import partial

from prefect import State, flow

from klaviyo_pg.moments import parse_since
from klaviyo_pg.settings import Settings
from pipeline.daily.runbook import sync
from tasks.blocks import AccountBlock, WarehouseBlock
from tasks.flow_run import Runbook, follow
from tasks.flow_settings import settings_from
from tasks.naming import run_name


@flow(name="daily", flow_run_name=run_name, validate_parameters=False, persist_result=False)
def daily(
    integration: str | None = None,
    since: str | None = None,
    metrics: list[str] | None = None,
    tables: list[str] | None = None,
    klaviyo: AccountBlock = None,
    warehouse: WarehouseBlock = None,
) -> State:
    """Bring the warehouse up to the present.

    Args:
        integration: the account's name in this warehouse. Default: KLAVIYO_INTEGRATION.
        since: read events from this date or time on, whatever has been read before.
        metrics: names or ids of the metrics to read; a leading - leaves one out. Default: METRICS.
        tables: names of the tables to fill; a leading - leaves one out. Default: TABLES.
        klaviyo: the Prefect block with the account, or its name. Default: the account in the environment.
        warehouse: the Prefect block with the warehouse, or its name. Default: DATABASE_URL.
    """

    def prepare() -> tuple[Settings, Runbook]:
        settings = settings_from(klaviyo, warehouse, klaviyo_integration=integration, metrics=metrics, tables=tables)
        return settings, partial(sync, since=parse_since("since", since))

    return follow(
        "daily",
        prepare,
        selection={"since": since},
        is_limited=since is not None or metrics is not None or tables is not None,
    )
