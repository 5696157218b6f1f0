"""Counts reconciled with the source: what the warehouse lacks is read again, what still differs is reported."""

if __name__ == "__main__":  # before Prefect is imported, so that its server starts at the same time
    from klaviyo_pg.cli import main

    main("reconcile")

from prefect import State, flow

from klaviyo_pg.settings import Settings
from pipeline.reconcile import runbook
from tasks.blocks import AccountBlock, WarehouseBlock
from tasks.flow_run import Runbook, follow
from tasks.flow_settings import settings_from
from tasks.naming import run_name


@flow(name="reconcile", flow_run_name=run_name, validate_parameters=False, persist_result=False)
def reconcile(
    integration: str | None = None,
    days: int | None = None,
    metrics: list[str] | None = None,
    tables: list[str] | None = None,
    klaviyo: AccountBlock = None,
    warehouse: WarehouseBlock = None,
) -> State:
    """Compare what is stored with what the source counts, and read what differs again, once.

    Args:
        integration: the account's name in this warehouse. Default: KLAVIYO_INTEGRATION.
        days: how many days back. Default: RECONCILE_DAYS.
        metrics: names or ids of the metrics to compare; a leading - leaves one out. Default: METRICS.
        tables: names of event tables, whose metrics to compare; a leading - leaves one out. Default: TABLES.
        klaviyo: the Prefect block with the account, or its name. Default: the account in the environment.
        warehouse: the Prefect block with the warehouse, or its name. Default: DATABASE_URL.
    """
    changes = {"klaviyo_integration": integration, "metrics": metrics, "tables": tables, "reconcile_days": days}

    def prepare() -> tuple[Settings, Runbook]:
        settings = settings_from(klaviyo, warehouse, **changes)
        settings.check_reconcile_days("RECONCILE_DAYS" if days is None else "days")
        return settings, runbook.reconcile

    return follow(
        "reconcile",
        prepare,
        selection={},
        is_limited=metrics is not None or tables is not None,
    )
