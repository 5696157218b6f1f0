"""Counts reconciled with the source: what the warehouse lacks is read again, what differs still is told."""

from prefect import State, flow

from klaviyo_pg.errors import KlaviyoPgError
from tasks import artifacts, command
from tasks.blocks import settings_from
from tasks.ending import broken_off, ended
from tasks.naming import run_name
from tasks.plan import Chunk
from tasks.reading import read
from tasks.reconciling import Findings
from tasks.reconciling import reconcile as compare
from tasks.run import begin, finish


@flow(name="reconcile", flow_run_name=run_name, validate_parameters=False, persist_result=False)
def reconcile(
    integration: str | None = None,
    days: int | None = None,
    metrics: list[str] | None = None,
    klaviyo: str | None = None,
    warehouse: str | None = None,
) -> State:
    """Compare what is stored with what the source counts; read again what differs, once.

    Args:
        integration: what this warehouse calls the account; KLAVIYO_INTEGRATION where not given.
        days: how many days back; RECONCILE_DAYS where not given.
        metrics: names or ids of the metrics to compare; a leading - leaves one out. METRICS where not given.
        klaviyo: name of the Prefect block that holds the account; the environment's account where not given.
        warehouse: name of the Prefect block that holds the warehouse; DATABASE_URL where not given.
    """
    run = None
    try:
        changes = {"klaviyo_integration": integration, "metrics": metrics, "reconcile_days": days}
        settings, findings = settings_from(klaviyo, warehouse, **changes), Findings()
        run = begin(settings, "reconcile", {"days": settings.reconcile_days})
        read(run, [Chunk("metrics")], findings)
        compare(run, findings)
        artifacts.covered(run)
        finish(run, findings.state, findings.sentences)
        return ended(run, findings)
    except KlaviyoPgError as error:
        return broken_off(error, run)


if __name__ == "__main__":
    command.main(reconcile)
