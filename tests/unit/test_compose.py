"""compose.yaml: what reaches the containers, and what outlives them."""

import logging
import re
from typing import Any

import pytest
import yaml

from klaviyo_pg.settings import Settings
from tasks import flow_settings
from tests.driver import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = ["worker", "sandbox-worker"]
DATA_DIR = "/data"


def test_the_worker_gets_every_setting_of_the_env_file() -> None:
    assert SERVICES["worker"]["env_file"] == [{"path": ".env", "required": False}]


def test_the_env_file_cannot_lead_the_worker_elsewhere() -> None:
    """Addresses and folders that .env sets for commands outside the containers are replaced."""
    fixed = {"DATABASE_URL", "DATA_DIR", "PREFECT_HOME", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"}
    environment = SERVICES["worker"]["environment"]
    assert {name for name, value in environment.items() if value} == fixed


def test_the_account_of_the_worker_can_come_from_the_shell() -> None:
    """A name without a value stands for the one in the shell or in .env."""
    environment = SERVICES["worker"]["environment"]
    assert {name for name, value in environment.items() if value is None} == {"KLAVIYO_API_KEY", "KLAVIYO_INTEGRATION"}


def test_the_env_file_of_an_account_does_not_reach_the_sandbox() -> None:
    assert [name for name, service in SERVICES.items() if "env_file" in service] == ["worker"]


def test_only_settings_and_variables_of_prefect_are_set_for_workers() -> None:
    names = {name for worker in WORKERS for name in SERVICES[worker]["environment"]}
    assert {name for name in names if not name.startswith("PREFECT_")} <= {
        name.upper() for name in Settings.model_fields
    }


def test_deployments_get_the_variables_that_they_read() -> None:
    """A name without a value stands for the one in .env or in the shell."""
    read = {"DAILY_CRON", "RECONCILE_CRON", "SCHEDULE_TIMEZONE", "ON_COLLISION", "BACKFILL_START"}
    read |= {"KLAVIYO_BLOCK", "WAREHOUSE_BLOCK"}
    environment = SERVICES["deploy"]["environment"]
    assert {name for name, value in environment.items() if value is None} == read
    assert all(name in (ROOT / "prefect.yaml").read_text() for name in read)


def test_the_report_gets_the_settings_that_it_reads() -> None:
    """With and without the prefix. The file .env would bring the API key along, which the report does not need."""
    sources = [ROOT / "klaviyo_pg/cli/report.py", *(ROOT / "pipeline/commands/html_report").glob("*.py")]
    names = set(re.findall(r"\bsettings\.(\w+)", "".join(path.read_text("utf-8") for path in sources)))
    names = {name.replace("events_kept_since", "events_since") for name in names}
    assert names <= set(Settings.model_fields)
    environment = SERVICES["report"]["environment"]
    assert {name for name, value in environment.items() if value is None} == {
        f"{prefix}{name.upper()}" for prefix in ("", "KLAVIYO_PG_") for name in names
    }


@pytest.mark.parametrize("worker", WORKERS)
def test_the_spool_outlives_the_container(worker: str) -> None:
    """It is on a named volume that belongs to the image's user, and neither in memory nor shared by two accounts."""
    (volume,) = SERVICES[worker]["volumes"]
    name, _, folder = volume.partition(":")
    assert name in COMPOSE["volumes"]
    assert folder == DATA_DIR
    assert not [each for each in SERVICES[worker]["tmpfs"] if DATA_DIR.startswith(each.partition(":")[0])]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"DATA_DIR={DATA_DIR} " in dockerfile
    assert f"install --directory --owner klaviyo {DATA_DIR}" in dockerfile
    assert not [other for other in WORKERS if other != worker and SERVICES[other]["volumes"] == [volume]]


@pytest.mark.parametrize("name", [name for name, each in SERVICES.items() if "klaviyo-pg" in str(each.get("image"))])
def test_containers_of_the_project_are_read_only(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert SERVICES[name]["cap_drop"] == ["ALL"]


ONE_SHOTS = {"deploy", "first-run", "grafana-role"}  # they exit, and others wait for that


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_that_stays_has_a_health_check(name: str) -> None:
    assert ("healthcheck" in SERVICES[name]) != (name in ONE_SHOTS)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_built_here_or_pinned(name: str) -> None:
    repository, _, tag = SERVICES[name]["image"].partition(":")
    assert "build" in SERVICES[name] if repository == "klaviyo-pg" else re.match(r"\d+\.\d+", tag)


def test_the_report_of_the_sandbox_is_served() -> None:
    """Next to Prefect and the warehouse."""
    started = {name for name, each in SERVICES.items() if "sandbox" in each.get("profiles", ["sandbox"])}
    assert started >= {"prefect", "warehouse", "report"}
    assert SERVICES["report"]["environment"]["DATABASE_URL"] == SERVICES["worker"]["environment"]["DATABASE_URL"]


def test_grafana_gets_what_its_data_source_asks_for() -> None:
    """And it reads the warehouse as the role that grafana-role creates, not as the owner of the tables."""
    provisioned = (ROOT / "grafana" / "provisioning" / "datasources" / "warehouse.yaml").read_text()
    environment = SERVICES["grafana"]["environment"]
    assert set(re.findall(r"\$(\w+)", provisioned)) == {name for name in environment if name.startswith("WAREHOUSE_")}
    assert environment["WAREHOUSE_USER"] == "grafana"
    assert environment["WAREHOUSE_PASSWORD"] == SERVICES["grafana-role"]["environment"]["GRAFANA_PASSWORD"]
    for service in ("grafana", "grafana-role"):
        mounted = [volume.split(":")[0] for volume in SERVICES[service]["volumes"] if volume.startswith("./")]
        assert mounted
        assert all((ROOT / path).exists() for path in mounted)


def test_a_deployed_run_names_misspelled_settings(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a container, .env becomes the environment, in which unknown names are not refused."""
    monkeypatch.setattr(flow_settings, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setenv("PERSONAL_DATE", "hash")
    flow_settings.settings_from(None, None, klaviyo_api_key="pk_none", database_url="postgresql://localhost/none")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == "PERSONAL_DATE is not a setting and is ignored. Did you mean PERSONAL_DATA?"
