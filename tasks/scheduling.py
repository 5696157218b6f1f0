"""Schedules of an account in the deployments on the Prefect server. `prefect deploy` leaves them as they are."""

from collections.abc import Iterable, Iterator, Mapping

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from klaviyo_pg.errors import BadSettings
from tasks.blocks import KlaviyoCredentials, load_block
from tasks.warehouse_block import database_url

_OF_DEPLOYMENT = "default"  # the slug of the schedule in prefect.yaml


def schedule(account: str, warehouse: str | None, crons: Mapping[str, str | None], timezone: str | None) -> list[str]:
    """Let flows load an account at these times. Return a sentence for each flow.

    Args:
        account: the name of its block, which becomes the name of the schedules.
        warehouse: the name of a block. Default: the warehouse of the deployment.
        crons: the times by flow. Default: those of the deployment's own schedule.
        timezone: that of the times. Default: that of the deployment's own schedule.

    Raises BadSettings if a block or a deployment does not exist, or if a time or the time zone is invalid.
    """
    load_block(KlaviyoCredentials, account)
    parameters = {"klaviyo": account}
    if warehouse is not None:
        database_url(warehouse)
        parameters["warehouse"] = warehouse
    with get_client(sync_client=True) as client:
        planned = [(each, _cron(each, crons[each.name], timezone)) for each in _deployments(client, crons)]
        for deployment, cron in planned:
            _put(client, deployment, account, cron, parameters)
    return [f"Scheduled {each.name} of {account}: {cron.cron} ({cron.timezone or 'UTC'})." for each, cron in planned]


def unschedule(account: str, flows: Iterable[str]) -> list[str]:
    """Delete the schedules of an account. Return a sentence for each flow. Raises BadSettings without deployments."""
    sentences = []
    with get_client(sync_client=True) as client:
        for deployment in list(_deployments(client, flows)):
            found = _with_slug(deployment, account)
            if found is not None:
                client.delete_deployment_schedule(deployment.id, found.id)
            sentences.append(f"{deployment.name} of {account} {'is no longer' if found else 'was not'} scheduled.")
    return sentences


def _deployments(client: SyncPrefectClient, flows: Iterable[str]) -> Iterator[DeploymentResponse]:
    for flow in flows:
        name = f"{flow}/{flow}"
        try:
            yield client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise BadSettings(
                f"This Prefect server has no deployment {name}: run prefect --no-prompt deploy --all."
            ) from None


def _cron(deployment: DeploymentResponse, cron: str | None, timezone: str | None) -> CronSchedule:
    own = _with_slug(deployment, _OF_DEPLOYMENT)
    usual = own.schedule if own and isinstance(own.schedule, CronSchedule) else None
    if cron is None and usual is None:
        raise BadSettings(
            f"The deployment {deployment.name} has no schedule {_OF_DEPLOYMENT}: set --{deployment.name}."
        )
    given = {name: value for name, value in (("cron", cron), ("timezone", timezone)) if value is not None}
    try:
        return CronSchedule(**(usual.model_dump() if usual else {}) | given)
    except ValidationError:
        raise BadSettings(
            f"{' in '.join(given.values())} is not a time that cron knows, such as '15 5 * * *' in Europe/Berlin."
        ) from None


def _with_slug(deployment: DeploymentResponse, slug: str) -> DeploymentSchedule | None:
    return next((each for each in deployment.schedules if each.slug == slug), None)


def _put(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    slug: str,
    cron: CronSchedule,
    parameters: Mapping[str, str],
) -> None:
    values = dict(parameters)
    found = _with_slug(deployment, slug)
    if found is None:
        new = DeploymentScheduleCreate(schedule=cron, parameters=values, slug=slug)
        client.create_deployment_schedules(deployment.id, [new])
    else:
        client.update_deployment_schedule(deployment.id, found.id, active=True, schedule=cron, parameters=values)
