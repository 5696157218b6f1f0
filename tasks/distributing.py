"""History read by many workers: groups of chunks handed to runs of the deployment `backfill_part`, and watched.

What a run has done is in the ledger, whatever becomes of the run. Whether it is alive is shown by a claim, a lock that
Postgres drops with its connection.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Cancelling, Crashed

from klaviyo_pg.errors import BadSettings, KlaviyoPgError, Stopped, Throttled
from klaviyo_pg.postgres import claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger, run_ledger
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.states import ChunkState, RunState
from pipeline.backfill.counting import Counting
from pipeline.backfill.plan import Plan
from pipeline.backfill.progress_log import ProgressLog
from pipeline.job import Job
from pipeline.streams.events import stored_metrics
from pipeline.workers import Inbox
from tasks.flow_run import MISCONFIGURED, state_name
from tasks.groups import Condition, Group, full_groups, recorded_groups
from tasks.part_runs import DEPLOYMENT, PartRuns

_MAX_ATTEMPTS = 5  # runs that a group gets
_POLL_SECONDS = 2.0  # between two looks at the ledger and the runs
_NO_WORKER = 60.0  # seconds after which a warning says that no worker takes up the runs

Key = tuple[str, datetime]


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
        _watching(job, PartRuns(client, job.run, parameters)) as watch,
    ):
        inbox, progress_log = Inbox(), ProgressLog(job, job.transact(stored_metrics).names)
        counting = Counting(job, plan, pool, inbox, job.tally.add_error)
        waiting: list[BackfillChunk] = []
        is_done = False
        while not (is_done or stop.is_requested or job.tally.must_stop):
            _handle(inbox)
            new = counting.take()
            progress_log.expect(new, counting.is_complete)
            watch.add(recorded_groups(new))
            waiting += (chunk for chunk in new if chunk.group_name is None)
            groups, waiting = full_groups(waiting, counting.is_complete, job.run.settings.chunk_events)
            _record(job, groups)
            watch.add(groups)
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


def _record(job: Job, groups: Sequence[Group]) -> None:
    """Record new groups in the ledger."""

    def record(account: Account) -> None:
        for group in groups:
            backfill_ledger.group(account, group.chunks, group.name)

    if groups:
        job.transact(record)


@contextmanager
def _watching(job: Job, runs: PartRuns) -> Iterator["_Watch"]:
    """Watch groups until they are done. However that ends, their runs end with it.

    The runs of a backfill that another process has taken over are left to that process. Raises BadSettings if there is
    no deployment for them.
    """
    runs.check_deployment()
    watch = _Watch(job, runs)
    try:
        yield watch
    finally:
        if not job.session.claims.are_lost:
            watch.cancel()


class _Standing(NamedTuple):
    """The ledger's chunks by key, the claims that are held, and the requests that the backfill has sent."""

    chunks: Mapping[Key, BackfillChunk]
    claims: set[str]
    requests: int


class _Watch:
    """Watches the runs that read the groups. `groups` are those that are not done."""

    def __init__(self, job: Job, runs: PartRuns) -> None:
        self._job, self._runs = job, runs
        self.groups: list[Group] = []
        self._has_warned = False
        self._shown: dict[Key, int] = {}
        self.requests = 0

    def add(self, groups: Iterable[Group]) -> None:
        """Let runs read these groups."""
        for group in groups:
            self.groups.append(group)
            self._submit(group)

    def _submit(self, group: Group) -> None:
        """Let another run read a group; if Prefect's server is away, try again at the next look.

        Raises BadSettings if the server does not accept such a run.
        """
        try:
            group.begin(self._runs.submit(group).id)
        except BadSettings:
            raise
        except Exception as error:
            self._job.log.warning("Prefect's server did not accept a run: %s", type(error).__name__)
            group.begin(None)

    def poll(self) -> None:
        """Forget the groups that are done, and submit those again whose run has not read them."""
        self._job.session.claims.keep()
        standing = self._job.transact(self._look_up)
        self.requests = standing.requests
        self._show(standing)
        self.groups = [
            group
            for group in self.groups
            if any(standing.chunks[_key(chunk)].state is not ChunkState.DONE for chunk in group.chunks)
        ]
        try:
            states = self._runs.states(self.groups)
        except Exception as error:  # Prefect's server may be away for a while; the runs continue without it
            self._job.log.warning("Prefect's server did not answer: %s", type(error).__name__)
            return
        self.groups = [
            group
            for group in self.groups
            if self._follow_up(group, states.get(group.run), group.claim in standing.claims)
        ]

    def _look_up(self, account: Account) -> _Standing:
        chunks = {_key(each): each for each in backfill_ledger.chunks(account)}
        requests, _ = run_ledger.run_requests(account, self._job.run.id)
        return _Standing(chunks, claims.held(account, [group.claim for group in self.groups]), requests)

    def _show(self, standing: _Standing) -> None:
        for chunk in (chunk for group in self.groups for chunk in group.chunks):
            key = _key(chunk)
            loaded = standing.chunks[key].loaded - chunk.loaded
            more = loaded - self._shown.get(key, 0)
            if more:
                self._job.session.progress.add(chunk.metric_id, done=more, read=more)
                self._shown[key] = loaded

    def _follow_up(self, group: Group, state: State[Any] | None, is_alive: bool) -> bool:
        """Keep the group being read, by this run or another one. Returns False if it gets no other run."""
        condition = group.observe(state, is_alive)
        if condition is Condition.MISSING:
            self._submit(group)
        elif condition is Condition.WAITING:
            self._warn_of_missing_workers(group)
        elif condition is Condition.DEAD:
            message = "The process that ran it is gone."
            self._runs.end(group, Crashed(message=message))
            return self._retry(group, message, "Crashed")
        elif condition is Condition.ENDED:
            return self._retry(group, state.message if state else "The run is gone.", (state and state.name) or "lost")
        return True

    def _retry(self, group: Group, message: str | None, state: str) -> bool:
        """Submit a group again. If its run has ended for good, add the error to the tally and return False."""
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
        self._submit(group)
        return True

    def _warn_of_missing_workers(self, group: Group) -> None:
        if group.seconds_since_submission > _NO_WORKER and group.attempt == 1 and not self._has_warned:
            self._has_warned = True
            self._job.log.warning(
                "Runs of %s are waiting for a worker: start more workers to finish sooner", DEPLOYMENT
            )

    def cancel(self) -> None:
        """Stop the runs of all groups: each finishes the batch in hand; one that has not begun stops at once."""
        states: Mapping[UUID | None, State[Any] | None] = {}
        with suppress(Exception):  # Prefect's server may be away; then the runs continue to their end
            states = self._runs.states(self.groups)
        for group in self.groups:
            state = states.get(group.run)
            if state is None or not state.is_final():
                self._runs.end(group, Cancelling() if state and state.is_running() else Cancelled())


def _key(chunk: BackfillChunk) -> Key:
    return chunk.metric_id, chunk.window_start
