"""History read by many workers: groups of chunks handed to runs of the deployment `backfill_part`, and watched.

What a run has done is in the ledger, whatever becomes of the run. Whether it is alive is shown by a claim, a lock that
Postgres drops with its connection.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Any, NamedTuple, cast
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling, Crashed

from klaviyo_pg.errors import BadSettings, KlaviyoPgError, Stopped, Throttled
from klaviyo_pg.grouping import grouped
from klaviyo_pg.postgres import backfill_ledger, claims, run_ledger
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.backfill_ledger import BackfillChunk, part_claim
from klaviyo_pg.states import ChunkState, RunState
from pipeline.backfill.counting import Counting
from pipeline.backfill.plan import Plan
from pipeline.backfill.progress_log import ProgressLog
from pipeline.job import Job
from pipeline.streams.events import stored_metrics
from pipeline.workers import Inbox
from tasks.flow_run import MISCONFIGURED, state_name
from tasks.naming import part_name

DEPLOYMENT = "backfill_part/backfill_part"
_FULL_CHUNKS = 6  # in a group: enough that starting a run costs little of its time, few enough for many workers
_MAX_CHUNKS = 50  # in a group, however small they are
_MAX_ATTEMPTS = 5  # runs that a group gets
_POLL_SECONDS = 2.0  # between two looks at the ledger and the runs
_DEAD = 20.0  # seconds without its claim after which a run that has begun counts as dead
_STUCK = 60.0  # seconds that a run may take to begin
_NO_LOGIN = (401, 403)
_TRANSIENT = (408, 429)  # statuses of requests that the server may accept later
_NO_WORKER = 60.0  # seconds after which a warning says that no worker takes up the runs

Key = tuple[str, datetime]


@dataclass
class Group:
    """Chunks that one run reads, and the run that has them now.

    The ledger keeps the name, so that the next process of the backfill finds the run by it.

    `attempt` counts the runs that this process has given it, `serial` those of all processes of the backfill. The claim
    has been missed since `missed_since`, all that time in the state `missed_in`.
    """

    chunks: Sequence[BackfillChunk]
    name: str = field(default_factory=lambda: uuid4().hex[:12])
    attempt: int = 0
    serial: int = 1
    run: UUID | None = None
    missed_since: float | None = None
    missed_in: StateType | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def claim(self) -> str:
        """The claim that the run which reads it holds for as long as it is alive."""
        return part_claim(self.name)

    def note_missing(self, state: StateType | None) -> None:
        """Note that the run is in this state without its claim; None if it holds it, or cannot hold it yet."""
        if state is None:
            self.missed_since = self.missed_in = None
        elif state != self.missed_in:
            self.missed_since, self.missed_in = time.monotonic(), state

    def is_dead(self) -> bool:
        """Return whether the run has been without its claim for so long that its process must be gone."""
        if self.missed_since is None:
            return False
        return time.monotonic() - self.missed_since > (_DEAD if self.missed_in == StateType.RUNNING else _STUCK)


class _Condition(Enum):
    """The condition of a group's run."""

    MISSING = auto()  # Prefect's server has not accepted one
    WAITING = auto()  # for a worker
    READING = auto()
    DEAD = auto()
    ENDED = auto()


def read_distributed(job: Job, plan: Plan, parameters: Mapping[str, object]) -> None:
    """Let runs of the deployment read what is left of a plan, and wait for them.

    `parameters` lead each of them to the account and the warehouse. A run that dies costs the batch in hand; its group
    goes to another run. Raises BadSettings where there is no such deployment.
    """
    stop = job.session.stop
    with (
        stop.on_signals(),
        get_client(sync_client=True) as client,
        job.session.progress.stage("History", "events", is_counting=plan.needs_counting),
        job.workers.pool(1) as pool,
        _watching(job, client, parameters) as watch,
    ):
        _check_deployment(client)
        inbox, progress_log = Inbox(), ProgressLog(job, job.transact(stored_metrics).names)
        counting = Counting(job, plan, pool, inbox, job.tally.add_error)
        waiting: list[BackfillChunk] = []
        is_done = False
        while not (is_done or stop.is_requested or job.tally.must_stop):
            _handle(inbox)
            new = counting.take()
            progress_log.expect(new, counting.is_complete)
            watch.hand_out(_recorded_groups(new))
            waiting += (chunk for chunk in new if chunk.group_name is None)
            groups, waiting = _groups(waiting, counting.is_complete, job.run.settings.chunk_events)
            _record(job, groups)
            watch.hand_out(groups)
            watch.poll()
            progress_log.log(watch.requests)
            is_done = counting.is_complete and not (watch.groups or waiting or len(inbox))
        counting.report()
    if stop.is_requested and not job.tally.is_postponed:
        job.tally.add_error(Stopped("Stopped. Rerun with the same arguments to resume."))


def _handle(inbox: Inbox) -> None:
    """Handle results of counting for about as long as the time between two looks."""
    until = time.monotonic() + _POLL_SECONDS
    while (left := until - time.monotonic()) > 0:
        if len(inbox):
            inbox.handle_next(left)
        else:
            time.sleep(left)


def _check_deployment(client: SyncPrefectClient) -> None:
    try:
        client.read_deployment_by_name(DEPLOYMENT)
    except ObjectNotFound:
        raise _no_deployment() from None


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


def _recorded_groups(chunks: Iterable[BackfillChunk]) -> list[Group]:
    """Return the groups of an earlier process, as far as they are not done. Their runs may still be alive."""
    unfinished = (chunk for chunk in chunks if chunk.state is not ChunkState.DONE)
    by_name = grouped((chunk.group_name, chunk) for chunk in unfinished if chunk.group_name is not None)
    return [Group(each, name) for name, each in by_name.items()]


def _record(job: Job, groups: Sequence[Group]) -> None:
    """Record new groups in the ledger."""

    def record(account: Account) -> None:
        for group in groups:
            backfill_ledger.group(account, group.chunks, group.name)

    if groups:
        job.transact(record)


def _groups(
    chunks: Sequence[BackfillChunk], is_complete: bool, chunk_events: int
) -> tuple[list[Group], list[BackfillChunk]]:
    """Return groups of about as many events as a few full chunks have, and the chunks that do not fill one yet."""
    groups: list[Group] = []
    waiting: list[BackfillChunk] = []
    for chunk in chunks:
        if chunk.state is not ChunkState.DONE:
            waiting.append(chunk)
        events = sum(each.waiting if each.expected is not None else chunk_events for each in waiting)
        if events >= _FULL_CHUNKS * chunk_events or len(waiting) >= _MAX_CHUNKS:
            groups.append(Group(waiting))
            waiting = []
    if is_complete and waiting:
        return [*groups, Group(waiting)], []
    return groups, waiting


class _Ledger(NamedTuple):
    """The progress of the parts of a backfill, from the ledger."""

    chunks: Mapping[Key, BackfillChunk]
    alive: set[str]
    requests: int


class _Watch:
    """Watches the runs that read the groups. `groups` are those that are not done."""

    def __init__(self, job: Job, client: SyncPrefectClient, parameters: Mapping[str, object]) -> None:
        self._job, self._client, self._parameters = job, client, parameters
        self.groups: list[Group] = []
        self._has_warned = False
        self._shown: dict[Key, int] = {}
        self.requests = 0

    def hand_out(self, groups: Iterable[Group]) -> None:
        """Let runs read these groups."""
        for group in groups:
            self.groups.append(group)
            self._hand_out(group)

    def _hand_out(self, group: Group) -> None:
        """Let another run read a group; if Prefect's server is away, try again at the next look.

        Raises BadSettings if the server does not accept such a run.
        """
        try:
            created = self._run_of(group)
            while created.state is not None and created.state.is_final():  # of a process before this one
                group.serial += 1
                created = self._run_of(group)
        except Exception as error:
            if refusal := _refusal(error):
                raise refusal from error
            self._job.log.warning("Prefect's server did not accept a run: %s", type(error).__name__)
            group.run = None
            return
        group.attempt += 1
        group.run, group.began = created.id, time.monotonic()
        group.note_missing(None)

    def _run_of(self, group: Group) -> FlowRun:
        """Return the group's run with its serial number. It is created, unless an earlier process has done so."""
        run = self._job.run
        parameters = {
            **self._parameters,
            "run_id": run.id,
            "group": group.name,
            "answer_seconds": run.answer_seconds,
        }
        created = run_deployment(
            DEPLOYMENT,
            parameters=parameters,
            flow_run_name=part_name(run.settings.klaviyo_integration, group.chunks),
            timeout=0,
            as_subflow=False,
            idempotency_key=f"{run.id}-{group.name}-{group.serial}",
        )
        return cast(FlowRun, created)

    def poll(self) -> None:
        """Forget the groups that are done, and hand out again those whose run has not read them."""
        job, groups = self._job, tuple(self.groups)
        job.session.claims.keep()
        ledger = job.transact(lambda account: self._look_up(account, groups))
        self.requests = ledger.requests
        self._show(groups, ledger)
        self.groups = [
            group
            for group in groups
            if any(ledger.chunks[_key(chunk)].state is not ChunkState.DONE for chunk in group.chunks)
        ]
        try:
            flow_runs = self._flow_runs()
        except Exception as error:  # Prefect's server may be away for a while; the runs continue without it
            job.log.warning("Prefect's server did not answer: %s", type(error).__name__)
            return
        self.groups = [
            group
            for group in self.groups
            if self._follow_up(group, flow_runs.get(cast(UUID, group.run)), group.claim in ledger.alive)
        ]

    def _look_up(self, account: Account, groups: Sequence[Group]) -> _Ledger:
        chunks = {_key(each): each for each in backfill_ledger.chunks(account)}
        requests, _ = run_ledger.run_requests(account, self._job.run.id)
        return _Ledger(chunks, claims.held(account, [group.claim for group in groups]), requests)

    def _show(self, groups: Sequence[Group], ledger: _Ledger) -> None:
        for group in groups:
            for chunk in group.chunks:
                key = _key(chunk)
                loaded = ledger.chunks[key].loaded - chunk.loaded
                more = loaded - self._shown.get(key, 0)
                if more:
                    self._job.session.progress.add(chunk.metric_id, done=more, read=more)
                    self._shown[key] = loaded

    def _flow_runs(self) -> Mapping[UUID, FlowRun]:
        """Return the groups' runs by ID, as Prefect's server has them."""
        ids = [group.run for group in self.groups if group.run]
        read: list[FlowRun] = []
        for start in range(0, len(ids), 100):
            which = FlowRunFilter(id=FlowRunFilterId(any_=ids[start : start + 100]))
            read += self._client.read_flow_runs(flow_run_filter=which)
        return {each.id: each for each in read}

    def _follow_up(self, group: Group, run: FlowRun | None, is_alive: bool) -> bool:
        """Keep the group being read, by this run or another one. Returns False if it gets no other run."""
        state = run.state if run else None
        has_begun = state is not None and state.type != StateType.SCHEDULED
        group.note_missing(state.type if state and has_begun and not is_alive else None)
        condition = _condition(group, state, is_alive)
        if condition is _Condition.MISSING:
            self._hand_out(group)
        elif condition is _Condition.WAITING:
            self._warn_of_missing_workers(group)
        elif condition is _Condition.DEAD:
            message = "The process that ran it is gone."
            self._end(group, Crashed(message=message))
            return self._retry(group, message, "Crashed")
        elif condition is _Condition.ENDED:
            return self._retry(group, state.message if state else "The run is gone.", (state and state.name) or "lost")
        return True

    def _retry(self, group: Group, message: str | None, state: str) -> bool:
        """Hand a group out again. If its run has ended for good, add the error to the tally and return False."""
        if state == state_name(RunState.TO_BE_CONTINUED):
            self._job.tally.add_error(Throttled(message))
            return False
        if state == MISCONFIGURED:
            self._job.tally.add_error(BadSettings(message))
            return False
        if group.attempt >= _MAX_ATTEMPTS or self._job.session.stop.is_requested:
            self._job.tally.add_error(KlaviyoPgError(message or f"A run ended as {state}."))
            return False
        self._job.log.warning("%s: %s Another run reads its chunks.", group.chunks[0].window, message or f"{state}.")
        group.serial += 1
        self._hand_out(group)
        return True

    def _warn_of_missing_workers(self, group: Group) -> None:
        waits = time.monotonic() - group.began > _NO_WORKER
        if waits and group.attempt == 1 and not self._has_warned:
            self._has_warned = True
            self._job.log.warning(
                "Runs of %s are waiting for a worker: start more workers to finish sooner", DEPLOYMENT
            )

    def cancel(self) -> None:
        """Stop the runs of all groups: each finishes the batch in hand; one that has not begun stops at once."""
        flow_runs: Mapping[UUID, FlowRun] = {}
        with suppress(Exception):  # Prefect's server may be away; then the runs continue to their end
            flow_runs = self._flow_runs()
        for group in self.groups:
            run = flow_runs.get(cast(UUID, group.run))
            state = run.state if run else None
            if state is None or not state.is_final():
                self._end(group, Cancelling() if state and state.is_running() else Cancelled())

    def _end(self, group: Group, state: Any) -> None:
        with suppress(Exception):  # it may have ended by itself
            self._client.set_flow_run_state(cast(UUID, group.run), state, force=state.type != StateType.CANCELLING)


def _condition(group: Group, state: State[Any] | None, is_alive: bool) -> _Condition:
    if group.run is None:
        return _Condition.MISSING
    if is_alive:  # in whichever state: its claim would keep another run out
        return _Condition.READING
    if state is None or state.is_final():
        return _Condition.ENDED
    if state.type == StateType.SCHEDULED:
        return _Condition.WAITING
    return _Condition.DEAD if group.is_dead() else _Condition.READING


@contextmanager
def _watching(job: Job, client: SyncPrefectClient, parameters: Mapping[str, object]) -> Iterator[_Watch]:
    """Watch groups until they are done. However that ends, their runs end with it.

    The runs of a backfill that another process has taken over are left to that process.
    """
    watch = _Watch(job, client, parameters)
    try:
        yield watch
    finally:
        if not job.session.claims.are_lost:
            watch.cancel()


def _key(chunk: BackfillChunk) -> Key:
    return chunk.metric_id, chunk.window_start
