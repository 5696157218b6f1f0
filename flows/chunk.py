"""A part of a backfill: some of its chunks, read by a worker of their own."""

from prefect import State, flow

from klaviyo_pg.errors import KlaviyoPgError
from tasks.backfilling import read_history
from tasks.blocks import settings_from
from tasks.distributing import claim_of
from tasks.ending import broken_off, ended
from tasks.history import Plan, named
from tasks.reading import Problems
from tasks.run import join


@flow(name="chunk", validate_parameters=False, persist_result=False)
def chunk(
    run_id: str,
    group: str,
    chunks: list[list[str]],
    answer_seconds: float = 0.0,
    integration: str | None = None,
    klaviyo: str | None = None,
    warehouse: str | None = None,
) -> State:
    """Read chunks of a backfill that is under way; `backfill` with `distribute` starts these runs.

    Args:
        run_id: the backfill's run in the warehouse.
        group: what the lock is called that tells this run to be alive.
        chunks: metric id and start of each chunk, as in backfill_chunks.
        answer_seconds: what the API's first answer took the backfill; how many readers are worth it follows from it.
        integration: what this warehouse calls the account; KLAVIYO_INTEGRATION where not given.
        klaviyo: name of the Prefect block that holds the account; the environment's account where not given.
        warehouse: name of the Prefect block that holds the warehouse; DATABASE_URL where not given.
    """
    try:
        settings = settings_from(klaviyo, warehouse, klaviyo_integration=integration)
        run, problems = join(settings, run_id, "backfill", claim_of(group), answer_seconds), Problems()
        read_history(run, Plan(named(run, chunks)), problems)
        return ended(run, problems)
    except KlaviyoPgError as error:
        return broken_off(error, None)
