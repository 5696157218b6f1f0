"""A part of a distributed backfill: some of its chunks, read by another worker."""

from functools import partial

from prefect import State, flow

from pipeline.backfill.plan import part_of_plan
from pipeline.backfill.side_by_side import read_history
from pipeline.job import Job
from tasks.blocks import AccountBlock, WarehouseBlock
from tasks.flow_run import follow_part
from tasks.flow_settings import settings_from


@flow(name="backfill_part", validate_parameters=False, persist_result=False)
def backfill_part(
    run_id: str,
    group: str,
    answer_seconds: float = 0.0,
    integration: str | None = None,
    klaviyo: AccountBlock = None,
    warehouse: WarehouseBlock = None,
) -> State:
    """Read chunks of a backfill that is in progress. A backfill with `distribute` starts these runs.

    Args:
        run_id: the id of the backfill's run in the warehouse.
        group: the name of its chunks in backfill_chunks, and of the claim that shows that it is alive.
        answer_seconds: how long the API's first answer to the backfill took; it determines the number of readers.
        integration: the account's name in this warehouse. Default: KLAVIYO_INTEGRATION.
        klaviyo: the Prefect block with the account, or its name. Default: the account in the environment.
        warehouse: the Prefect block with the warehouse, or its name. Default: DATABASE_URL.
    """

    def runbook(job: Job) -> None:
        read_history(job, part_of_plan(job.session, job.run, group))

    configured = partial(settings_from, klaviyo, warehouse, klaviyo_integration=integration)
    return follow_part(configured, run_id, group, answer_seconds, runbook)
