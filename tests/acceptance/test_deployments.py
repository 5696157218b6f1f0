"""The flows as deployments: on a real Prefect server, by a real worker, as the README says."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from sandbox.launcher import Sandbox, running
from tests.driver import ROOT, Warehouse, account

DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
KEY = "pk_key_of_the_deployment"


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


def prefect(environment: dict[str, str], *arguments: str) -> str:
    """One command of Prefect's, in the project's folder."""
    command: Sequence[str] = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_deployed_and_run_by_a_worker(warehouse: Warehouse, box: Sandbox, tmp_path: Path) -> None:
    """Deploy all, start a worker, run daily and backfill: tables filled, and the key nowhere in what Prefect keeps."""
    environment = {**warehouse.environment, **account(box), "KLAVIYO_API_KEY": KEY, "DATABASE_URL": warehouse.url}
    environment |= {"PROJECT_DIR": str(ROOT), "FIRST_SYNC_DAYS": "3000"}
    prefect(environment, "work-pool", "create", "klaviyo", "--type", "process")
    prefect(environment, "deploy", "--all")
    log = (tmp_path / "worker.log").open("w")
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "klaviyo"]
    with log, subprocess.Popen(worker, cwd=ROOT, env=environment, stdout=log, stderr=log) as child:
        try:
            daily = prefect(environment, "deployment", "run", "daily/daily", "-p", "integration=deployed", "--watch")
            backfill = prefect(
                environment, "deployment", "run", "backfill/backfill", "-p", "integration=deployed", "--watch"
            )
        finally:
            child.terminate()
    assert "Completed" in daily
    assert "Completed" in backfill
    assert warehouse.one("SELECT count(*) FROM klaviyo.sends") > 0
    assert warehouse.one("SELECT count(*) FROM klaviyo.backfill_chunks WHERE state <> 'done'") == 0
    time.sleep(1)  # until the server has written what it was last told
    home = Path(environment["PREFECT_HOME"])
    kept = [path for path in (*home.rglob("*"), *tmp_path.rglob("*")) if path.is_file()]
    assert any(path.name.startswith("prefect.db") for path in kept)
    for path in kept:
        assert KEY.encode() not in path.read_bytes(), path
        assert KEY not in os.fspath(path)
