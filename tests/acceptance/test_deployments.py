"""The flows as deployments on a real Prefect server, run by a real worker, as docs/deploy.md describes."""

import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint

from sandbox.launcher import Sandbox, running
from tests.driver import PATIENCE, ROOT, Warehouse, account, ask_prefect, wait_until, wait_until_recorded

DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
KEY = "pk_key_of_the_deployment"
_READS = ("metrics", "events", "lists", "profiles", "segments", "campaigns", "flows", "tags")
SCOPES = [f"{name}:read" for name in (*_READS, "templates", "forms", "images")]
"""The scopes of the key: without accounts:read the account is unknown, so it can have several names."""
PASSWORD = "password-of-the-deployment"
SALT = "salt-of-the-deployment"
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=60, events=600, days=10) as box:
        box.add_key(KEY, *SCOPES)
        yield box


@pytest.mark.parametrize("entrypoint", [each["entrypoint"] for each in DEPLOYMENTS])
def test_entrypoints_load(entrypoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entrypoint of prefect.yaml imports, so that Prefect deploys no placeholder for it."""
    monkeypatch.chdir(ROOT)
    flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    assert flow.name == Path(entrypoint.partition(":")[0]).stem


def test_prefect_yaml_deploys_every_flow() -> None:
    """Each file in flows/ has a deployment."""
    flows = {f"flows/{path.name}:{path.stem}" for path in (ROOT / "flows").glob("[a-z]*.py")}
    assert {each["entrypoint"] for each in DEPLOYMENTS} == flows


@pytest.mark.slow
def test_distribute_without_a_deployment(warehouse: Warehouse, box: Sandbox) -> None:
    """If nothing is deployed yet, a distributed backfill stops at once and names the command that deploys."""
    command = ["flows/backfill.py", "--start", "2026-01-01", "--distribute"]
    ran = warehouse.run(command, {**account(box, "early"), "KLAVIYO_API_KEY": KEY, "WAREHOUSE_SCHEMA": "early"})
    assert ran.code == 2, ran.err[-3000:]
    assert "deploy --all" in ran.err.strip().splitlines()[-1]


@dataclass(frozen=True)
class Installation:
    """A Prefect server with all flows deployed, a worker, and the warehouse that its runs write to."""

    environment: Mapping[str, str]
    warehouse: Warehouse
    folder: Path

    def command(self, *arguments: str, **more: str) -> str:
        """Run a Python module in the project's folder; return what it printed."""
        command: Sequence[str] = [sys.executable, "-m", *arguments]
        environment = {**self.environment, **more}
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def ask(self, path: str, body: Any = None) -> Any:
        """Send a request to Prefect's API; return its answer."""
        return ask_prefect(self.environment, path, body)

    def trigger(self, deployment: str, **parameters: Any) -> str:
        """Start a run of a deployment; return its id."""
        deployment_id = self.ask(f"/deployments/name/{deployment}")["id"]
        return str(self.ask(f"/deployments/{deployment_id}/create_flow_run", {"parameters": parameters})["id"])

    def wait(self, ids: Sequence[str], expected: Collection[str]) -> None:
        """Wait until the states of these runs are the expected ones, in any order, or all of them are final."""

        def settled() -> set[str]:
            states = [self.ask(f"/flow_runs/{run}")["state"] for run in ids]
            names = {state["name"] for state in states}
            is_final = all(state["type"] in FINAL for state in states)
            return names if names == set(expected) or is_final else set()

        names = wait_until(settled, f"the runs were {expected}", every=0.3)
        assert names == set(expected), (self.folder / "worker.log").read_text()[-5000:]


@pytest.fixture(scope="module")
def installation(
    warehouse: Warehouse, box: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A worker whose environment names the account and a warehouse that requires a password."""
    folder = tmp_path_factory.mktemp("worker")
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE deployed SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
    url = warehouse.url.replace(f"//{warehouse.url.split('//')[1].partition('@')[0]}@", f"//deployed:{PASSWORD}@")
    environment = {**warehouse.environment, **account(box), "KLAVIYO_API_KEY": KEY, "DATABASE_URL": url}
    environment |= {"FIRST_SYNC_DAYS": "3000", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    installation = Installation(environment, warehouse, folder)
    installation.command("prefect", "--no-prompt", "work-pool", "create", "klaviyo", "--type", "process")
    installation.command("prefect", "--no-prompt", "deploy", "--all")
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "klaviyo"]
    with (
        (folder / "worker.log").open("w") as log,
        subprocess.Popen(worker, cwd=folder, env=environment, stdout=log, stderr=log) as child,
    ):
        yield installation
        child.terminate()


def test_a_worker_runs_a_backfill(installation: Installation) -> None:
    """A run by a worker completes, fills the tables, leaves an artifact, and shows the number of rows in its name."""
    backfill = installation.trigger("backfill/backfill", integration="deployed")
    installation.wait([backfill], {"Completed"})
    warehouse = installation.warehouse
    assert warehouse.one("SELECT count(*) FROM klaviyo.sends") > 0
    assert warehouse.one("SELECT count(*) FROM klaviyo_internal.backfill_chunks WHERE state <> 'done'") == 0
    assert installation.ask("/artifacts/filter", {"flow_runs": {"id": {"any_": [backfill]}}})
    of_account = "JOIN klaviyo.integrations USING (esp_integration_id) WHERE name = 'deployed'"
    rows = warehouse.one(f"SELECT sum(rows_read) FROM klaviyo.run_tables {of_account}")
    assert installation.ask(f"/flow_runs/{backfill}")["name"].endswith(f" · {rows:,} rows")
    of = {"event": {"name": ["klaviyo-pg.backfill.complete"]}, "resource": {"id": ["klaviyo-pg.account.deployed"]}}
    ended = {"filter": of}
    wait_until(lambda: installation.ask("/events/filter", ended)["events"], "the end of the run was an event")


@pytest.mark.slow
def test_a_distributed_backfill(installation: Installation) -> None:
    """A distributed backfill starts other runs, which load everything. Once it is over no other run can join it."""
    backfill = installation.trigger("backfill/backfill", integration="spread", distribute=True)
    installation.wait([backfill], {"Completed"})
    started = installation.ask("/flow_runs/filter", {"flows": {"name": {"any_": ["backfill_part"]}}})
    assert {run["state"]["name"] for run in started} == {"Completed"}
    warehouse = installation.warehouse
    of_account = "JOIN klaviyo.integrations USING (esp_integration_id) WHERE name = 'spread'"
    assert warehouse.one(f"SELECT count(*) FROM klaviyo_internal.backfill_chunks {of_account} AND state <> 'done'") == 0
    [row] = warehouse.rows(f"SELECT sum(expected), sum(loaded) FROM klaviyo_internal.backfill_chunks {of_account}")
    assert row[0] == row[1] > 0
    run_id = warehouse.one(f"SELECT run_id FROM klaviyo.runs {of_account}")
    late = installation.trigger("backfill_part/backfill_part", integration="spread", run_id=run_id, group="late")
    installation.wait([late], {"Stopped"})
    assert "has ended" in installation.ask(f"/flow_runs/{late}")["state"]["message"]


@pytest.mark.slow
def test_runs_of_one_account_do_not_overlap(installation: Installation, box: Sandbox) -> None:
    """Of two runs with the same blocks the second waits or, if ON_COLLISION is CANCEL_NEW, is cancelled."""
    installation.command("tasks.save_blocks", "--klaviyo=shop-de", "--warehouse=main", KLAVIYO_INTEGRATION="shop-de")
    blocks = {"klaviyo": "shop-de", "warehouse": "main"}
    box.set_faults({"endpoint": "GET /api/metrics", "status": 429, "retry_after": 1, "times": 10**9})
    running = installation.trigger("daily/daily", **blocks)
    installation.wait([running], {"Running"})
    installation.wait([installation.trigger("daily/daily", **blocks)], {"AwaitingConcurrencySlot"})
    installation.command("prefect", "--no-prompt", "deploy", "-n", "daily", ON_COLLISION="CANCEL_NEW")
    installation.wait([installation.trigger("daily/daily", **blocks)], {"Cancelled"})
    box.set_faults()
    installation.wait([running], {"Completed"})
    query = "SELECT state FROM klaviyo.runs JOIN klaviyo.integrations USING (esp_integration_id) WHERE name = %s"
    assert installation.warehouse.one(query, "shop-de") == "complete"


def test_accounts_are_scheduled(installation: Installation) -> None:
    """Schedules of an account and blocks of a deployment survive another deployment, and runs use their block."""

    def schedules(flow: str) -> dict[str, Any]:
        found = installation.ask(f"/deployments/name/{flow}/{flow}")["schedules"]
        return {
            each["slug"]: (each["schedule"]["cron"], each["schedule"]["timezone"], each["parameters"]) for each in found
        }

    installation.command(
        "tasks.save_blocks",
        "--klaviyo=shop-fr",
        "--warehouse=main",
        KLAVIYO_INTEGRATION="shop-fr",
        PERSONAL_DATA="drop",
        PERSONAL_DATA_SALT=SALT,
    )
    scheduled = installation.command(
        "klaviyo_pg", "schedule", "shop-fr", "--daily=45 5 * * *", "--timezone=Europe/Paris"
    )
    assert "Scheduled daily of shop-fr: 45 5 * * * (Europe/Paris)." in scheduled
    installation.command("prefect", "--no-prompt", "deploy", "--all")
    assert schedules("daily") == {
        "default": ("15 5 * * *", "UTC", {}),
        "shop-fr": ("45 5 * * *", "Europe/Paris", {"klaviyo": "shop-fr"}),
    }
    assert schedules("reconcile")["shop-fr"] == ("45 6 * * 0", "Europe/Paris", {"klaviyo": "shop-fr"})
    run = installation.trigger("daily/daily", klaviyo="shop-fr")
    installation.wait([run], {"Completed"})
    of_account = "JOIN klaviyo.integrations USING (esp_integration_id) WHERE name = 'shop-fr'"
    assert installation.warehouse.one(
        f"SELECT count(*) > 0 AND bool_and(email IS NULL) FROM klaviyo.members {of_account}"
    )
    installation.command("klaviyo_pg", "schedule", "shop-fr", "--daily=0 4 * * *", "--warehouse=main")
    assert schedules("daily")["shop-fr"] == ("0 4 * * *", "UTC", {"klaviyo": "shop-fr", "warehouse": "main"})
    for variables, expected in (
        ({"KLAVIYO_BLOCK": "shop-fr"}, "shop-fr"),
        ({}, "shop-fr"),
        ({"KLAVIYO_BLOCK": ""}, None),
    ):
        installation.command("prefect", "--no-prompt", "deploy", "-n", "daily", **variables)
        assert installation.ask("/deployments/name/daily/daily")["parameters"]["klaviyo"] == expected
    assert "no longer scheduled" in installation.command("klaviyo_pg", "schedule", "shop-fr", "--off")
    assert set(schedules("daily")) == set(schedules("reconcile")) == {"default"}


@pytest.mark.slow
def test_a_missing_block_fails_the_run(installation: Installation) -> None:
    """The message of the failed run names the block."""
    run = installation.trigger("daily/daily", klaviyo="missing")
    installation.wait([run], {"Failed"})
    message = installation.ask(f"/flow_runs/{run}")["state"]["message"]
    assert message == "There is no Klaviyo Credentials block named missing."


def test_secrets_stay_secret(installation: Installation) -> None:
    """After all these runs, neither key, password nor salt is in any file that Prefect or the worker has written."""
    wait_until_recorded(installation.environment, {"deployment_id": {"is_null_": False}})
    home = Path(installation.environment["PREFECT_HOME"])
    written = [path for path in (*home.rglob("*"), *installation.folder.rglob("*")) if path.is_file()]
    assert any(path.name.startswith("prefect.db") for path in written)
    for path in filter(Path.exists, written):  # Prefect's server still runs and may delete files
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert PASSWORD.encode() not in content, path
        assert SALT.encode() not in content, path
