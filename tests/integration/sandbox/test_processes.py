"""History that is read by other processes: the same rows, one pace, and no process that is left."""

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from klaviyo_pg import processors
from klaviyo_pg.postgres import address
from klaviyo_pg.states import RunState
from pipeline.backfill import processes
from pipeline.backfill.processes import process_count
from sandbox.launcher import Sandbox, running
from tests.driver import PATIENCE
from tests.runs import Result, Warehouse


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Run a small account."""
    with running(events=6_000, members=200) as sandbox:
        yield sandbox


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the ids of the processes that a run starts."""
    ids: list[int] = []
    original = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> Any:
        process = original(*args, **kwargs)
        ids.append(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", popen)
    return ids


def is_running(process: int) -> bool:
    """Return whether a process exists."""
    return Path(f"/proc/{process}").exists()


def backfill(warehouse: Warehouse, **settings: Any) -> Result:
    """Run a backfill of all events."""
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=400)
    return warehouse.backfill(start, chunk_events=1_000, concurrency=4, **settings)


def test_processes_read_the_same_events_as_threads(warehouse: Warehouse, started: list[int]) -> None:
    """Requests of all processes are counted, their progress is shown, and none is left at the end."""
    alone = warehouse.variant(warehouse_schema="alone")
    expected = backfill(alone, processes=1)
    assert not started
    result = backfill(warehouse, processes=3)
    assert (result.state, result.sentences) == (RunState.COMPLETE, [])
    assert len(started) == 2 and not any(map(is_running, started))
    assert sorted(warehouse.event_ids()) == sorted(alone.event_ids())
    assert warehouse.history() == alone.history()
    assert abs(result.traffic.requests - expected.traffic.requests) <= 5
    assert warehouse.one("SELECT requests FROM runs WHERE run_id = %s", result.run.id) == result.traffic.requests


def test_a_killed_process_costs_nothing_but_time(
    warehouse: Warehouse, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its units fail, those in threads continue, and a rerun reads the rest."""
    killed: list[int] = []
    handle = processes._ReadingProcess._handle

    def kill_at_first_progress(reader: Any, kind: str, *values: Any) -> None:
        if kind == "progress" and not killed:
            killed.append(reader._process.pid)
            os.kill(killed[0], signal.SIGKILL)
        handle(reader, kind, *values)

    monkeypatch.setattr(processes._ReadingProcess, "_handle", kill_at_first_progress)
    account = warehouse.variant(warehouse_schema="killed")
    first = backfill(account, processes=2)
    assert first.state is RunState.PARTIAL and killed == started[:1]
    assert any("ended unexpectedly" in each for each in first.sentences)
    assert backfill(account, processes=2).state is RunState.COMPLETE
    assert len(set(account.event_ids())) == len(account.event_ids()) > 5_000
    assert not any(map(is_running, started))


def test_where_processes_cannot_start_threads_read(
    warehouse: Warehouse, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the units that were given to the first ones fail. There is not a new process for each unit."""
    monkeypatch.setattr(processes, "_environment", lambda: {"PYTHONHOME": "/nowhere"})
    broken = warehouse.variant(warehouse_schema="broken")
    assert backfill(broken, processes=2).state is RunState.PARTIAL
    assert len(started) <= 4  # units that begin at the same time
    monkeypatch.undo()
    assert backfill(broken, processes=1).state is RunState.COMPLETE


def test_a_signal_for_the_whole_group_leaves_stopping_to_the_parent(warehouse: Warehouse, started: list[int]) -> None:
    """A process manager sends it to all processes. The parent then stops its units in order."""
    with warehouse.open() as session:
        reader = processes._ReadingProcess(session)
        assert isinstance(reader.begin(()).get(timeout=PATIENCE), Exception)  # the process is set up
        os.kill(started[0], signal.SIGTERM)
        assert isinstance(reader.begin(()).get(timeout=PATIENCE), Exception)
        reader.close()
    assert not is_running(started[0])


def test_nothing_secret_is_in_the_arguments_of_a_process(warehouse: Warehouse, started: list[int]) -> None:
    """A process gets its settings over a socket, and ends when the other end of it is closed."""
    with warehouse.open() as session:
        reader = processes._ReadingProcess(session)
        arguments = Path(f"/proc/{started[0]}/cmdline").read_text()
        assert str(session.settings.api_key) not in arguments
        environment = Path(f"/proc/{started[0]}/environ").read_text()
        assert "KLAVIYO_API_KEY" not in environment
        reader.close()
    assert not is_running(started[0])


@pytest.mark.parametrize(
    ("available", "has_database", "expected"),
    [(1, False, 1), (2, False, 1), (2, True, 1), (4, True, 2), (4, False, 4), (64, False, 8)],
)
def test_processes_follow_from_the_processors(available: int, has_database: bool, expected: int) -> None:
    """Two processors are busy with one process and its database."""
    assert processors.spare(available, has_database) == expected


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("postgresql://u:p%5B@127.0.0.1/db", True),
        ("postgresql://u:p[w@127.0.0.1/db", True),
        ("postgresql:///db?host=/tmp", True),
        ("postgresql:///db", True),
        ("postgresql:///db?host=db.example.com", False),
        ("postgresql://u@db.example.com/db", False),
        ("postgresql://u@localhost,db.example.com/db", False),
    ],
)
def test_whether_the_database_is_on_this_machine(url: str, is_local: bool) -> None:
    """It then needs a part of the processors."""
    assert address.is_local(address.parse(url)) is is_local


def test_a_run_without_a_spool_has_one_process(warehouse: Warehouse) -> None:
    """The spool is where other processes put what they have read."""
    with warehouse.open(processes=4, spool=False) as session:
        assert process_count(session) == 1
    with warehouse.open(processes=4) as session:
        assert process_count(session) == 4
