"""The coordinator of a distributed backfill, with a Prefect server in memory: runs that it creates or adopts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running, Scheduled

from klaviyo_pg.errors import BadSettings, Busy
from klaviyo_pg.postgres.ledgers import backfill_ledger, run_ledger
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk, part_claim
from klaviyo_pg.windows import history_window
from pipeline import runs
from pipeline.backfill.plan import Plan, part_of_plan, plan, take_over
from pipeline.job import Job
from pipeline.outcome import Tally
from pipeline.runs import Run
from pipeline.workers import ThreadWorkers
from tasks import distributing, groups, part_runs
from tasks.flow_run import MISCONFIGURED
from tests.integration.pipeline.conftest import LOG, Warehouse, cut_connections, days_ago
from tests.runs import Published

CHUNK = BackfillChunk("OPEN", days_ago(10), days_ago(0), 6)
CHUNKS = [BackfillChunk("ORDER", days_ago(day), days_ago(day - 1), 6) for day in range(1, 121)]
"""Together with CHUNK, these are three groups."""


class FakeTime:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        assert self.seconds < 1_000, "the backfill does not end"


class FakePrefect:
    """A Prefect server whose runs are kept by idempotency key.

    `created` is called when a run is asked for, and `looked` with each run when the coordinator looks at it.
    """

    def __init__(self) -> None:
        self.time = FakeTime()
        self.runs: dict[str, FlowRun] = {}
        self.created: Callable[[FlowRun], None] = lambda run: None
        self.looked: Callable[[FlowRun], None] = lambda run: None
        self.cancelled: set[UUID] = set()

    def run_deployment(self, name: str, *, idempotency_key: str, parameters: dict[str, Any], **_: Any) -> FlowRun:
        """Return the run with this key, as it is now; a new one is scheduled."""
        new = FlowRun(flow_id=uuid4(), state=Scheduled(), parameters=parameters)
        run = self.runs.setdefault(idempotency_key, new)
        answered = run.model_copy()
        self.created(run)
        return answered

    def read_deployment_by_name(self, name: str) -> None:
        """Return nothing: there is one."""

    def read_flow_runs(self, flow_run_filter: Any) -> list[FlowRun]:
        runs = [run for run in self.runs.values() if run.id in flow_run_filter.id.any_]
        for run in runs:
            self.looked(run)
        return runs

    def set_flow_run_state(self, run_id: UUID, state: State, force: bool) -> None:
        """Note who is to be cancelled, and refuse, so that a run outlives its coordinator."""
        if state.type in (StateType.CANCELLING, StateType.CANCELLED):
            self.cancelled.add(run_id)
        raise ConnectionError


def answered(status: int) -> PrefectHTTPStatusError:
    """Return what Prefect's client raises for an answer with this status."""
    request = httpx.Request("POST", "http://127.0.0.1/api/deployments/1/create_flow_run")
    return PrefectHTTPStatusError(str(status), request=request, response=httpx.Response(status, request=request))


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> FakePrefect:
    server = FakePrefect()

    @contextmanager
    def get_client(sync_client: bool) -> Iterator[FakePrefect]:
        yield server

    monkeypatch.setattr(part_runs, "run_deployment", server.run_deployment)
    monkeypatch.setattr(distributing, "get_client", get_client)
    for module in (distributing, groups):
        monkeypatch.setattr(module, "time", server.time)
    return server


@pytest.fixture
def run(warehouse: Warehouse) -> Run:
    """Return a backfill whose ledger has a chunk; its process is gone."""
    with warehouse.open() as session:
        run = runs.begin(session, "backfill", {}, LOG)
        runs.transact(session, run, lambda account: backfill_ledger.add(account, [CHUNK]))
    return run


def add_chunks(warehouse: Warehouse, run: Run) -> None:
    """Add chunks to the ledger, so that there are three groups."""
    with warehouse.open() as session:
        runs.transact(session, run, lambda account: backfill_ledger.add(account, CHUNKS))


def coordinate(warehouse: Warehouse, run: Run, *claims: str) -> Tally:
    """Read what the ledger has as one more process that resumes the backfill, under claims; return its errors."""
    with warehouse.open() as session:
        warehouse.session = session
        for each in claims:
            session.claims.take(run.integration_id, each)
        job = Job(session, run, ThreadWorkers(session), Tally(tolerates_failures=True), LOG, Published())
        chunks = runs.transact(session, run, backfill_ledger.chunks)
        distributing.read_distributed(job, Plan(tuple(chunks)), {})
        return job.tally


def hand_out(warehouse: Warehouse, run: Run, prefect: FakePrefect) -> str:
    """Let a process of the backfill hand out its only group and stop; return the name of the group."""
    prefect.created = lambda created: warehouse.stop()
    coordinate(warehouse, run)
    [created] = prefect.runs.values()
    return str(created.parameters["group"])


def test_a_postponed_group_is_handed_out_again_by_the_next_process(
    warehouse: Warehouse, run: Run, prefect: FakePrefect
) -> None:
    def postpone(created: FlowRun) -> None:
        created.state = Completed(name="To be continued", message="Wait a day.")

    prefect.created = postpone
    for number in (1, 2, 3):
        assert coordinate(warehouse, run).is_postponed
        assert len(prefect.runs) == number


@pytest.mark.parametrize("ended", [Cancelled(), Crashed()], ids=["cancelled", "crashed"])
def test_runs_of_earlier_processes_use_up_no_attempts(
    warehouse: Warehouse, run: Run, prefect: FakePrefect, ended: State
) -> None:
    """Each process gives a group five new runs, however many have ended before."""

    def end(created: FlowRun) -> None:
        created.state = ended

    prefect.created = end
    for number in (1, 2):
        coordinate(warehouse, run)
        assert len(prefect.runs) == 5 * number


def test_a_run_that_is_alive_is_adopted(warehouse: Warehouse, run: Run, prefect: FakePrefect) -> None:
    """It belongs to a process that is gone."""
    prefect.created = lambda created: warehouse.stop()
    coordinate(warehouse, run)
    [alive] = prefect.runs.values()
    assert alive.state is not None and alive.state.is_scheduled()
    coordinate(warehouse, run)
    assert list(prefect.runs.values()) == [alive]


def test_groups_that_are_being_read_stay_as_they_are(warehouse: Warehouse, run: Run, prefect: FakePrefect) -> None:
    """Otherwise their chunks would be read twice at once after the end of the process that has cut them."""

    def stop(created: FlowRun) -> None:
        if len(prefect.runs) == 3:
            warehouse.stop()

    add_chunks(warehouse, run)
    prefect.created = stop
    coordinate(warehouse, run)
    begun = set(prefect.runs)
    warehouse.execute(
        "UPDATE backfill_chunks SET state = 'done' WHERE metric_id = 'ORDER' AND window_start > %s", days_ago(30)
    )
    coordinate(warehouse, run)
    assert len(begun) == 3
    assert set(prefect.runs) == begun


def test_a_backfill_in_one_process_reads_nothing_that_parts_are_reading(
    warehouse: Warehouse, run: Run, prefect: FakePrefect
) -> None:
    group = hand_out(warehouse, run, prefect)
    with warehouse.open() as part:
        part.claims.take(run.integration_id, part_claim(group))
        result = warehouse.backfill(days_ago(10), days_ago(0))
        assert (result.state, result.exit_code) == ("failed", 2)
        assert "still reading this history" in result.sentences[0]
    assert warehouse.backfill(days_ago(10), days_ago(0)).state == "complete"


def test_a_part_that_begins_late_reads_nothing_that_was_taken_over(
    warehouse: Warehouse, run: Run, prefect: FakePrefect
) -> None:
    """A backfill in one process takes over what runs would read that no worker has begun yet."""
    group = hand_out(warehouse, run, prefect)
    with warehouse.open() as session:
        [chunk] = part_of_plan(session, run, group).chunks
        assert chunk.window == CHUNK.window
        runs.transact(session, run, partial(take_over, chunks=[chunk]))
        assert part_of_plan(session, run, group).chunks == ()


def test_a_restart_is_refused_while_parts_are_reading(warehouse: Warehouse, run: Run, prefect: FakePrefect) -> None:
    """Otherwise a part would store its last batch in a chunk that was planned again, which would then count as read."""
    group = hand_out(warehouse, run, prefect)
    with warehouse.open() as part:
        part.claims.take(run.integration_id, part_claim(group))
        result = warehouse.backfill(days_ago(10), days_ago(0), restart=True)
        assert (result.state, result.exit_code) == ("failed", 2)
        assert "still reading this history" in result.sentences[0]
        assert warehouse.history() == [("OPEN", "planned", 6, 0)]
    assert warehouse.backfill(days_ago(10), days_ago(0), restart=True).state == "complete"
    assert sum(loaded for _, _, _, loaded in warehouse.history()) == 10


def test_a_restart_that_is_resumed_adopts_its_parts(warehouse: Warehouse, run: Run, prefect: FakePrefect) -> None:
    """It has already forgotten what it reads again."""
    warehouse.daily("metrics")
    window = history_window(run.as_of, days_ago(10), days_ago(0), run.settings.events_kept_since)
    with warehouse.open() as session:
        runs.transact(session, run, lambda account: run_ledger.restart(account, run.id, lambda as_of: True))
        runs.transact(session, run, lambda account: backfill_ledger.group(account, [CHUNK], "G1"))
        session.claims.take(run.integration_id, part_claim("G1"))
        assert [each.group_name for each in plan(session, run, window, restart=True).chunks] == ["G1"]


def test_an_error_that_ends_the_backfill_cancels_its_parts(
    warehouse: Warehouse, run: Run, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(seconds: float) -> None:
        raise SystemExit

    def interrupt(created: FlowRun) -> None:
        monkeypatch.setattr(prefect.time, "sleep", end)

    prefect.created = interrupt
    with pytest.raises(SystemExit):
        coordinate(warehouse, run)
    assert prefect.cancelled == {each.id for each in prefect.runs.values()}


def test_a_backfill_that_was_taken_over_leaves_its_parts_to_its_successor(
    warehouse: Warehouse, run: Run, prefect: FakePrefect
) -> None:
    """The other process resumes the same run, and adopts them."""
    with warehouse.open() as successor:

        def take_over(created: FlowRun) -> None:
            cut_connections(warehouse)
            runs.begin(successor, "backfill", {}, LOG)

        prefect.created = take_over
        with pytest.raises(Busy, match="another run has taken over"):
            coordinate(warehouse, run, "backfill")
    assert len(prefect.runs) == 1
    assert not prefect.cancelled


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(ObjectNotFound(ValueError()), "has no deployment .* deploy --all", id="the deployment is gone"),
        pytest.param(answered(401), r"refused the login .*check PREFECT_API_KEY", id="another key"),
        pytest.param(answered(409), r"refused a run .*\(status 409\).* deploy --all", id="other parameters"),
    ],
)
def test_a_server_that_accepts_no_run_ends_the_backfill(
    warehouse: Warehouse, run: Run, prefect: FakePrefect, error: Exception, message: str
) -> None:
    def refuse(created: FlowRun) -> None:
        raise error

    prefect.created = refuse
    with pytest.raises(BadSettings, match=message):
        coordinate(warehouse, run)


@pytest.mark.parametrize("error", [answered(429), answered(503), httpx.ConnectError("away")], ids=repr)
def test_a_server_that_is_away_for_a_while_gets_the_run_later(
    warehouse: Warehouse, run: Run, prefect: FakePrefect, error: Exception
) -> None:
    def accept_later(created: FlowRun) -> None:
        if prefect.time.seconds < 60:
            raise error
        warehouse.execute("UPDATE backfill_chunks SET state = 'done'")

    prefect.created = accept_later
    assert coordinate(warehouse, run).sentences == []


def test_chunks_that_are_done_end_the_backfill_while_the_server_is_away(
    warehouse: Warehouse, run: Run, prefect: FakePrefect
) -> None:
    def finish(each: FlowRun) -> None:
        warehouse.execute("UPDATE backfill_chunks SET state = 'done'")
        raise httpx.ConnectError("away")

    prefect.looked = finish
    assert coordinate(warehouse, run).sentences == []


def test_an_error_of_the_database_is_not_one_of_the_server(
    warehouse: Warehouse, run: Run, prefect: FakePrefect
) -> None:
    prefect.created = lambda created: warehouse.execute("DROP TABLE backfill_chunks")
    with pytest.raises(psycopg.errors.UndefinedTable):
        coordinate(warehouse, run)


@pytest.mark.parametrize(
    ("ended", "state", "exit_code"),
    [
        pytest.param(Failed(name=MISCONFIGURED, message="A wrong key."), "failed", 2, id="misconfigured"),
        pytest.param(Completed(name="To be continued", message="A wrong key."), "to be continued", 4, id="throttled"),
    ],
)
def test_what_ends_every_run_ends_the_backfill(
    warehouse: Warehouse, run: Run, prefect: FakePrefect, ended: State, state: str, exit_code: int
) -> None:
    """It is not tried again, and the other groups are cancelled."""

    def end(created: FlowRun) -> None:
        if len(prefect.runs) == 1:
            created.state = ended

    add_chunks(warehouse, run)
    prefect.created = end
    tally = coordinate(warehouse, run)
    assert (tally.state, tally.exit_code, tally.sentences) == (state, exit_code, ["A wrong key."])
    assert len(prefect.runs) == 3
    assert {each.id for each in list(prefect.runs.values())[1:]} <= prefect.cancelled


def test_a_run_that_was_slow_to_begin_has_time_to_take_its_claim(
    warehouse: Warehouse, run: Run, prefect: FakePrefect
) -> None:
    """A container may take longer to start than a run that has begun may take to connect to the database."""

    def proceed(each: FlowRun) -> None:
        begun_for = prefect.time.seconds - 40
        each.state = Pending() if begun_for < 0 else Running()
        if begun_for > 10:
            warehouse.execute("UPDATE backfill_chunks SET state = 'done'")

    prefect.looked = proceed
    assert coordinate(warehouse, run).sentences == []
    assert len(prefect.runs) == 1


def test_each_run_whose_process_dies_is_replaced(warehouse: Warehouse, run: Run, prefect: FakePrefect) -> None:
    """Up to the fifth one. Each of them dies without a word: its state stays that of a run in progress."""

    def die(created: FlowRun) -> None:
        created.state = Running()

    prefect.created = die
    assert coordinate(warehouse, run).sentences == ["The process that ran it is gone."]
    assert len(prefect.runs) == 5


def test_a_group_has_no_other_run_while_the_last_one_is_alive(
    warehouse: Warehouse, run: Run, prefect: FakePrefect
) -> None:
    """The claim would refuse the other one. A run can be alive although its state is final."""
    with warehouse.open() as reader:

        def take_claim(created: FlowRun) -> None:
            reader.claims.take(run.integration_id, part_claim(created.parameters["group"]))
            created.state = Crashed()

        def finish(each: FlowRun) -> None:
            if prefect.time.seconds > 100:
                warehouse.execute("UPDATE backfill_chunks SET state = 'done'")
                reader.claims.release_all()

        prefect.created, prefect.looked = take_claim, finish
        assert coordinate(warehouse, run).sentences == []
    assert len(prefect.runs) == 1
