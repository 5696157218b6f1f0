"""Runs of the deployment `backfill_part` on Prefect's server: each reads a group of chunks."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from klaviyo_pg.errors import BadSettings
from pipeline.runs import Run
from tasks.groups import Group
from tasks.naming import part_name

DEPLOYMENT = "backfill_part/backfill_part"
_NO_LOGIN = (401, 403)
_TRANSIENT = (408, 429)  # statuses of requests that the server may accept later
_MAX_IDS = 100  # of the runs in a request


class PartRuns:
    """The runs that read the groups of one backfill.

    `parameters` lead each of them to the account and the warehouse.
    """

    def __init__(self, client: SyncPrefectClient, run: Run, parameters: Mapping[str, object]) -> None:
        self._client, self._run = client, run
        self._parameters = {**parameters, "run_id": run.id, "answer_seconds": run.answer_seconds}

    def check_deployment(self) -> None:
        """Raise BadSettings if the server has no such deployment."""
        try:
            self._client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            raise _no_deployment() from None

    def submit(self, group: Group) -> FlowRun:
        """Return a run of the group that has not ended. It is created, unless an earlier process has done so.

        Raises BadSettings if the server would refuse the run again, and another error if it may accept it later.
        """
        try:
            created = self._created(group)
            while created.state is not None and created.state.is_final():  # of a process before this one
                group.serial += 1
                created = self._created(group)
        except Exception as error:
            if refusal := _refusal(error):
                raise refusal from error
            raise
        return created

    def _created(self, group: Group) -> FlowRun:
        """Return the group's run with its serial number, in the state that it has by now."""
        created = run_deployment(
            DEPLOYMENT,
            parameters={**self._parameters, "group": group.name},
            flow_run_name=part_name(self._run.settings.klaviyo_integration, group.chunks),
            timeout=0,
            as_subflow=False,
            idempotency_key=f"{self._run.id}-{group.name}-{group.serial}",
        )
        return cast(FlowRun, created)

    def states(self, groups: Iterable[Group]) -> Mapping[UUID | None, State[Any] | None]:
        """Return the states of the groups' runs by ID. Those that the server does not have are left out."""
        ids = [group.run for group in groups if group.run]
        read: list[FlowRun] = []
        for start in range(0, len(ids), _MAX_IDS):
            which = FlowRunFilter(id=FlowRunFilterId(any_=ids[start : start + _MAX_IDS]))
            read += self._client.read_flow_runs(flow_run_filter=which)
        return {each.id: each.state for each in read}

    def end(self, group: Group, state: State[Any]) -> None:
        """Let the group's run end in this state, as far as the server can be reached and the run has not ended yet."""
        with suppress(Exception):
            self._client.set_flow_run_state(cast(UUID, group.run), state, force=state.type != StateType.CANCELLING)


def _no_deployment() -> BadSettings:
    return BadSettings(f"This Prefect server has no deployment {DEPLOYMENT}: run prefect --no-prompt deploy --all.")


def _refusal(error: Exception) -> BadSettings | None:
    """Return the error of a run that Prefect's server would refuse again; None if the server may accept it later."""
    if isinstance(error, ObjectNotFound):
        return _no_deployment()
    status = error.response.status_code if isinstance(error, PrefectHTTPStatusError) else 0
    if not 400 <= status < 500 or status in _TRANSIENT:
        return None
    if status in _NO_LOGIN:
        return BadSettings(f"Prefect's server refused the login (status {status}): check PREFECT_API_KEY.")
    return BadSettings(
        f"Prefect's server refused a run of {DEPLOYMENT} (status {status}): run prefect --no-prompt deploy --all."
    )
