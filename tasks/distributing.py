"""History read by many workers: groups of chunks handed to runs of the deployment `chunk`, watched through the ledger.

What a run has done stands in the ledger, whatever becomes of it. Whether it is still alive is told by a lock that
Postgres drops with its connection.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling, Crashed
from prefect.task_runners import ThreadPoolTaskRunner
from psycopg import Connection

from klaviyo_pg.errors import BadSettings, KlaviyoPgError, Stopped, Throttled
from klaviyo_pg.history import HistoryChunk
from klaviyo_pg.postgres import claims, history, ledger
from tasks import edges, stopping
from tasks.chunks import Progress
from tasks.display import displayed
from tasks.extract import known_metrics
from tasks.history import Plan, count
from tasks.reading import Problems
from tasks.run import Run, patiently

DEPLOYMENT = "chunk/chunk"
_FULL_CHUNKS = 6  # in a group: enough that starting a run costs little of its time, few enough for many workers
_MOST = 50  # chunks in a group, however small they are
_ATTEMPTS = 5  # runs that a group is given, as long as none of them gets it done
_LOOK = 2.0  # seconds between two looks at ledger and runs
_DEAD = 20.0  # seconds without its lock after which a run that began counts as dead
_STUCK = 60.0  # seconds that a run may be about to begin
_NOBODY = 60.0  # seconds after which it is told that no worker takes up the runs


def claim_of(group: str) -> str:
    """The name of the claim of a group's run."""
    return f"chunk {group}"


@dataclass
class Group:
    """Chunks that one run reads, and the run that has them now."""

    chunks: Sequence[HistoryChunk]
    attempt: int = 0
    run: UUID | None = None
    missed_since: float | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """Told from all others by its chunks."""
        return hashlib.sha256(" ".join(map(str, self.chunks)).encode()).hexdigest()[:12]

    @property
    def claim(self) -> str:
        """What the run that reads it holds a claim of for as long as it is alive."""
        return claim_of(self.name)


def read_distributed(run: Run, plan: Plan, problems: Problems, given: Mapping[str, object]) -> None:
    """Have what is left of the plan's chunks read by runs of the chunk deployment, and wait for them.

    `given` are the parameters that lead each of them to the account and the warehouse. A run that dies costs the batch
    in hand; its group goes to another one. Raises BadSettings where there is no such deployment.
    """
    progress = Progress()
    source = edges.source(run.settings)
    names = known_metrics(run).names
    with (
        stopping.on_signals(),
        get_client(sync_client=True) as client,
        ThreadPoolTaskRunner[Any](max_workers=1) as counter,
        displayed(plan, names, source.event_requests_a_minute) as show,
    ):
        _check_deployment(client)
        counting = counter.submit(count, {"run": run, "plan": plan})
        watch = _Watch(run, client, given, problems)
        groups: list[Group] = []
        begun, is_complete = 0, False
        while (groups or not is_complete) and not stopping.asked():
            is_complete = plan.is_complete  # before looking at the chunks, so that none comes in between
            new, begun = _groups(plan.chunks, begun, is_complete, run.settings.chunk_events)
            for group in new:
                watch.hand_out(group)
            groups += new
            time.sleep(_LOOK)
            groups = watch.look(groups, progress)
            show(progress)
        if stopping.asked():
            watch.cancel(groups)
        result = counting.result(raise_on_failure=False)
        if isinstance(result, Exception) and not isinstance(result, Stopped):
            problems.add(result)
    if stopping.asked() and not problems.postponed:
        problems.add(Stopped("Stopped; the same command goes on where it stopped."))


def _check_deployment(client: SyncPrefectClient) -> None:
    try:
        client.read_deployment_by_name(DEPLOYMENT)
    except ObjectNotFound:
        raise BadSettings(
            f"There is no deployment {DEPLOYMENT} on this Prefect server: run prefect --no-prompt deploy --all."
        ) from None


def _groups(
    planned: Sequence[HistoryChunk], begun: int, is_complete: bool, chunk_events: int
) -> tuple[list[Group], int]:
    """Groups of the chunks behind the first `begun` ones, and how many chunks are in groups by then.

    A group holds as many events as a few full chunks. While more are being counted, what does not fill one waits.
    """
    groups: list[Group] = []
    waiting: list[HistoryChunk] = []
    for number, chunk in enumerate(planned[begun:], begun + 1):
        if chunk.state != "done":
            waiting.append(chunk)
        events = sum(each.waiting if each.expected is not None else chunk_events for each in waiting)
        if events >= _FULL_CHUNKS * chunk_events or len(waiting) >= _MOST:
            groups.append(Group(waiting))
            waiting, begun = [], number
    if is_complete:
        return groups + ([Group(waiting)] if waiting else []), len(planned)
    return groups, begun


class _Watch:
    """Looks after the runs that read the groups."""

    def __init__(self, run: Run, client: SyncPrefectClient, given: Mapping[str, object], problems: Problems) -> None:
        self._run, self._client, self._given, self._problems = run, client, given, problems
        self._logger = get_run_logger()
        self._told_of_nobody = False

    def hand_out(self, group: Group) -> None:
        """Have a group read by one more run; where Prefect's server does not take it, with the next look."""
        parameters = {
            **self._given,
            "run_id": self._run.id,
            "group": group.name,
            "chunks": [[chunk.metric_id, chunk.window_start.isoformat()] for chunk in group.chunks],
            "answer_seconds": self._run.answer_seconds,
        }
        try:
            created: Any = run_deployment(
                DEPLOYMENT,
                parameters=parameters,
                flow_run_name=f"{self._run.settings.klaviyo_integration} {group.chunks[0].window} and before",
                timeout=0,
                as_subflow=False,
                idempotency_key=f"{self._run.id}-{group.name}-{group.attempt + 1}",
            )
        except Exception as error:  # the server may be away for a while
            self._logger.warning("Prefect's server took no run: %s", type(error).__name__)
            group.run = None
            return
        group.attempt += 1
        group.run, group.missed_since, group.began = created.id, None, time.monotonic()

    def look(self, groups: Sequence[Group], progress: Progress) -> list[Group]:
        """Those of the groups that are not done; handed out again where their run did not get them done."""
        try:
            edges.keep_claims()
            stands = patiently(self._run, partial(self._stands, [group.claim for group in groups]))
            runs = {each.id: each for each in self._read([group.run for group in groups if group.run])}
        except (KlaviyoPgError, OSError):
            raise
        except Exception as error:  # Prefect's server may be away for a while; the runs get on without it
            self._logger.warning("Prefect's server did not answer: %s", type(error).__name__)
            return list(groups)
        chunks, alive, requests = stands
        progress.requests = requests
        for group in groups:
            for chunk in group.chunks:
                loaded = chunks[_key(chunk)].loaded - chunk.loaded
                progress.read[chunk] = progress.stored[chunk] = loaded
        left = [group for group in groups if any(chunks[_key(chunk)].state != "done" for chunk in group.chunks)]
        return [group for group in left if self._goes_on(group, runs.get(cast(UUID, group.run)), group.claim in alive)]

    def _stands(
        self, names: Sequence[str], connection: Connection
    ) -> tuple[dict[tuple[str, Any], HistoryChunk], set[str], int]:
        run = self._run
        chunks = {_key(each): each for each in history.chunks(connection, run.schema, run.integration_id)}
        requests, _ = ledger.run_requests(connection, run.schema, run.id)
        return chunks, claims.held(connection, run.schema, run.integration_id, names), requests

    def _read(self, ids: Sequence[UUID]) -> Sequence[FlowRun]:
        found: list[FlowRun] = []
        for start in range(0, len(ids), 100):
            which = FlowRunFilter(id=FlowRunFilterId(any_=list(ids[start : start + 100])))
            found += self._client.read_flow_runs(flow_run_filter=which)
        return found

    def _goes_on(self, group: Group, found: FlowRun | None, is_alive: bool) -> bool:
        """Whether the group is still on its way, by this run or by another one from now on."""
        if group.run is None:
            self.hand_out(group)
            return True
        state = found.state if found else None
        if state is None or state.is_final():
            return self._again(group, state.message if state else "The run is gone.", (state and state.name) or "lost")
        if is_alive or state.type == StateType.SCHEDULED:
            group.missed_since = None
            self._tell_of_nobody(group, state.type)
            return True
        now = time.monotonic()
        group.missed_since = group.missed_since or now
        if now - group.missed_since > (_DEAD if state.type == StateType.RUNNING else _STUCK):
            self._end(group, Crashed(message="The process that ran it is gone."))
            return self._again(group, "The process that ran it is gone.", "Crashed")
        return True

    def _again(self, group: Group, message: str | None, state: str) -> bool:
        if state == "To be continued":
            self._problems.add(Throttled(message))
            return False
        if group.attempt >= _ATTEMPTS or stopping.asked():
            self._problems.skipped.append(KlaviyoPgError(message or f"A run ended as {state}."))
            return False
        self._logger.warning("%s: %s; its chunks go to another run", group.chunks[0].window, message or state)
        self.hand_out(group)
        return True

    def _tell_of_nobody(self, group: Group, state: StateType) -> None:
        waits = state == StateType.SCHEDULED and time.monotonic() - group.began > _NOBODY
        if waits and group.attempt == 1 and not self._told_of_nobody:
            self._told_of_nobody = True
            self._logger.warning("Runs of %s wait for a worker: start more of them to be done sooner", DEPLOYMENT)

    def cancel(self, groups: Sequence[Group]) -> None:
        """Have the runs of these groups stopped: each finishes the batch in hand; one that begins yet stops at once."""
        runs = {}
        with suppress(Exception):  # Prefect's server may be away; then they go on to their end
            runs = {each.id: each for each in self._read([group.run for group in groups if group.run])}
        for group in groups:
            found = runs.get(cast(UUID, group.run))
            is_running = found is not None and found.state is not None and found.state.is_running()
            self._end(group, Cancelling() if is_running else Cancelled())

    def _end(self, group: Group, state: Any) -> None:
        with suppress(Exception):  # it may have ended by itself
            self._client.set_flow_run_state(cast(UUID, group.run), state, force=state.type != StateType.CANCELLING)


def _key(chunk: HistoryChunk) -> tuple[str, Any]:
    return chunk.metric_id, chunk.window_start
