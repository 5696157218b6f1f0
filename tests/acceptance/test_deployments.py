"""The flows as deployments: on a real Prefect server, by a real worker, as docs/deploy.md says."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from sandbox.launcher import Sandbox, running
from tests.driver import ROOT, Warehouse, account

DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
KEY = "pk_key_of_the_deployment"
PASSWORD = "password-of-the-deployment"
SECONDS = 60.0  # until a run has to be where it is expected


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=60, events=600, days=10) as box:
        box.add_key(KEY, "*")
        yield box


@pytest.mark.parametrize("entrypoint", [each["entrypoint"] for each in DEPLOYMENTS])
def test_entrypoints_load(entrypoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entrypoint of prefect.yaml is a flow that can be imported, not a placeholder for one that cannot."""
    monkeypatch.chdir(ROOT)
    flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    assert flow.name == Path(entrypoint.partition(":")[0]).stem


def test_every_flow_is_deployed() -> None:
    """There is no file in flows/ that prefect.yaml forgets."""
    flows = {f"flows/{path.name}:{path.stem}" for path in (ROOT / "flows").glob("[a-z]*.py")}
    assert {each["entrypoint"] for each in DEPLOYMENTS} == flows


def test_nothing_to_distribute_to(warehouse: Warehouse, box: Sandbox) -> None:
    """Before anything is deployed, a backfill that shall be distributed says at once how to get there."""
    command = ["flows/backfill.py", "--start", "2026-01-01", "--distribute"]
    ran = warehouse.run(command, {**account(box, "early"), "KLAVIYO_API_KEY": KEY, "WAREHOUSE_SCHEMA": "early"})
    assert ran.code == 2, ran.err[-3000:]
    assert "deploy --all" in ran.err.strip().splitlines()[-1]


@dataclass(frozen=True)
class Place:
    """A Prefect server with all flows deployed, a worker, and the warehouse that the blocks lead to."""

    environment: Mapping[str, str]
    warehouse: Warehouse
    folder: Path

    def command(self, *arguments: str, **more: str) -> str:
        """A Python module as a command in the project's folder; what it printed."""
        command: Sequence[str] = [sys.executable, "-m", *arguments]
        environment = {**self.environment, **more}
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def ask(self, path: str, body: Any = None) -> Any:
        """Prefect's API; again where its database is busy, as Prefect's own clients do."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.environment["PREFECT_API_URL"] + path, data, {"Content-Type": "application/json"})
        until = time.monotonic() + SECONDS
        while True:
            try:
                with urlopen(request, timeout=SECONDS) as answer:
                    return json.load(answer)
            except HTTPError as error:
                with error:
                    if error.code != 503 or time.monotonic() > until:
                        raise
                time.sleep(1)

    def trigger(self, deployment: str, **parameters: Any) -> str:
        """The id of a new run."""
        found = self.ask(f"/deployments/name/{deployment}")
        return str(self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"])

    def wait(self, ids: Sequence[str], states: set[str]) -> None:
        """Until the runs are in these states, in whichever order."""
        until = time.monotonic() + SECONDS
        found: list[str] = []
        while time.monotonic() < until:
            found = [self.ask(f"/flow_runs/{run}")["state"]["name"] for run in ids]
            if set(found) == states:
                return
            time.sleep(0.3)
        raise AssertionError(f"{found} instead of {states}\n{(self.folder / 'worker.log').read_text()[-5000:]}")


@pytest.fixture(scope="module")
def place(warehouse: Warehouse, box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A worker whose environment leads to the account; its warehouse is reached with a password."""
    folder = tmp_path_factory.mktemp("worker")
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE deployed SUPERUSER LOGIN PASSWORD '{PASSWORD}'")  # type: ignore[arg-type]
    url = warehouse.url.replace(f"//{warehouse.url.split('//')[1].partition('@')[0]}@", f"//deployed:{PASSWORD}@")
    environment = {**warehouse.environment, **account(box), "KLAVIYO_API_KEY": KEY, "DATABASE_URL": url}
    environment |= {"FIRST_SYNC_DAYS": "3000", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    place = Place(environment, warehouse, folder)
    place.command("prefect", "--no-prompt", "work-pool", "create", "klaviyo", "--type", "process")
    place.command("prefect", "--no-prompt", "deploy", "--all")
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "klaviyo"]
    with (
        (folder / "worker.log").open("w") as log,
        subprocess.Popen(worker, cwd=folder, env=environment, stdout=log, stderr=log) as child,
    ):
        yield place
        child.terminate()


def test_deployed_and_run_by_a_worker(place: Place) -> None:
    """Deploy all, start a worker elsewhere, run daily and backfill: completed, tables filled, and told as artifacts."""
    backfill = place.trigger("backfill/backfill", integration="deployed")
    watched = place.command("prefect", "deployment", "run", "daily/daily", "-p", "integration=deployed", "--watch")
    assert "Completed" in watched
    place.wait([backfill], {"Completed"})
    assert place.warehouse.one("SELECT count(*) FROM klaviyo.sends") > 0
    assert place.warehouse.one("SELECT count(*) FROM klaviyo.backfill_chunks WHERE state <> 'done'") == 0
    assert place.ask("/artifacts/filter", {"flow_runs": {"id": {"any_": [backfill]}}})


def test_backfill_by_other_runs(place: Place) -> None:
    """A backfill that is distributed starts runs of its own, which read everything."""
    backfill = place.trigger("backfill/backfill", integration="spread", distribute=True)
    place.wait([backfill], {"Completed"})
    started = place.ask("/flow_runs/filter", {"flows": {"name": {"any_": ["chunk"]}}})
    assert {run["state"]["name"] for run in started} == {"Completed"}
    account = "JOIN klaviyo.integrations USING (esp_integration_id) WHERE name = 'spread'"
    assert place.warehouse.one(f"SELECT count(*) FROM klaviyo.backfill_chunks {account} AND state <> 'done'") == 0
    [row] = place.warehouse.rows(f"SELECT sum(expected), sum(loaded) FROM klaviyo.backfill_chunks {account}")
    assert row[0] == row[1] > 0
    run_id = place.warehouse.one(f"SELECT run_id FROM klaviyo.runs {account}")
    late = place.trigger("chunk/chunk", integration="spread", run_id=run_id, group="late", chunks=[])
    place.wait([late], {"Failed"})
    assert "is over" in place.ask(f"/flow_runs/{late}")["state"]["message"]


def test_two_runs_of_one_account(place: Place) -> None:
    """Triggered together, with blocks in place of the environment: one runs, the other waits, or is cancelled."""
    place.command("tasks.save_blocks", "--klaviyo=shop-de", "--warehouse=main", KLAVIYO_INTEGRATION="shop-de")
    blocks = {"klaviyo": "shop-de", "warehouse": "main"}
    waiting = [place.trigger("daily/daily", **blocks) for _ in range(2)]
    place.wait(waiting, {"Completed", "AwaitingConcurrencySlot"})
    for run in waiting:
        place.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True})
    place.command("prefect", "--no-prompt", "deploy", "-n", "daily", ON_COLLISION="CANCEL_NEW")
    place.wait([place.trigger("daily/daily", **blocks) for _ in range(2)], {"Completed", "Cancelled"})
    query = "SELECT count(*) FROM klaviyo.runs JOIN klaviyo.integrations USING (esp_integration_id) WHERE name = %s"
    assert place.warehouse.one(f"{query} AND state = 'complete'", "shop-de") == 2


def test_a_block_that_is_not_there(place: Place) -> None:
    """The run fails with a sentence that names the block."""
    run = place.trigger("daily/daily", klaviyo="nobody")
    place.wait([run], {"Failed"})
    message = place.ask(f"/flow_runs/{run}")["state"]["message"]
    assert message == "There is no Klaviyo Credentials block named nobody."


def test_secrets_stay_secret(place: Place) -> None:
    """After all that, neither the key nor the password stands anywhere in what Prefect or the worker has written."""
    time.sleep(1)  # until the server has written what it was last told
    home = Path(place.environment["PREFECT_HOME"])
    kept = [path for path in (*home.rglob("*"), *place.folder.rglob("*")) if path.is_file()]
    assert any(path.name.startswith("prefect.db") for path in kept)
    for path in filter(Path.exists, kept):  # Prefect's server goes on
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert PASSWORD.encode() not in content, path
