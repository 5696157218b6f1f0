"""The states of runs in Prefect, the automations that wait for them, and artifacts that Prefect refuses."""

import re
from typing import Any

import httpx
import pytest
import yaml

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.states import FINISHED, RunState
from pipeline.outcome import Report
from tasks import artifacts
from tasks.flow_run import state_of
from tasks.local import run_flow
from tasks.naming import artifact_key
from tests.driver import ROOT

ENDED = [state for state in RunState if state is not RunState.RUNNING]


def event_of(state: RunState) -> str:
    """Return the event that Prefect sends when a run has ended in a state."""
    return f"prefect.flow-run.{state_of(Report('id', 'shop', state, ('Why.',), 0)).name}"


def expected_by(name: str) -> list[str]:
    """Return the events that an automation of automations.yaml waits for."""
    automations: list[dict[str, Any]] = yaml.safe_load((ROOT / "automations.yaml").read_text())["automations"]
    [automation] = [each for each in automations if each["name"] == name]
    expected: list[str] = automation["trigger"]["expect"]
    return expected


@pytest.mark.parametrize(
    ("state", "type_", "name"),
    [
        pytest.param(RunState.COMPLETE, "COMPLETED", "Completed", id="complete"),
        pytest.param(
            RunState.COMPLETE_WITH_DIFFERENCES, "COMPLETED", "Complete with differences", id="complete with differences"
        ),
        pytest.param(RunState.PARTIAL, "COMPLETED", "Partial", id="partial"),
        pytest.param(RunState.TO_BE_CONTINUED, "COMPLETED", "To be continued", id="to be continued"),
        pytest.param(RunState.STOPPED, "CANCELLED", "Stopped", id="stopped"),
        pytest.param(RunState.FAILED, "FAILED", "Failed", id="failed"),
    ],
)
def test_each_state_of_a_run_has_a_state_in_prefect(state: RunState, type_: str, name: str) -> None:
    shown = state_of(Report("id", "shop", state, ("One.", "Two."), 0), "3 rows read.")
    assert (shown.type.value, shown.name, shown.message) == (type_, name, "One. Two. 3 rows read.")


def test_differences_have_an_automation() -> None:
    assert expected_by("klaviyo-differences") == [event_of(RunState.COMPLETE_WITH_DIFFERENCES)]


def test_a_run_with_differences_is_no_stale_data() -> None:
    assert {event_of(state) for state in FINISHED} < set(expected_by("klaviyo-stale"))


def test_no_state_in_which_a_run_ends_counts_as_lost() -> None:
    """Otherwise the automation would mark a run that has ended as crashed, since its heartbeats stop."""
    assert {event_of(state) for state in ENDED} < set(expected_by("klaviyo-lost"))


def test_each_account_has_artifacts_of_its_own() -> None:
    keys = [artifact_key("coverage", account) for account in ("shop-de", "Shop DE", "shop de", "Büro", "店")]
    assert keys[0] == "coverage-shop-de"
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", key) for key in keys)


def test_an_artifact_that_prefect_refuses_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run continues, and its message names what is missing in Prefect."""

    def refuse(*arguments: object, **values: object) -> None:
        raise ConnectionError

    for name in ("create_table_artifact", "create_markdown_artifact", "create_progress_artifact"):
        monkeypatch.setattr(artifacts, name, refuse)
    notes: list[str] = []
    published = artifacts.Artifacts("shop", notes.append)
    published.table("reconciliation", [], "")
    published.markdown("coverage", "", "")
    published.progress(0.5)
    assert [note.split(" (")[0] for note in notes] == [
        "Prefect did not accept the table reconciliation",
        "Prefect did not accept the text coverage",
        "Prefect did not accept the progress",
    ]


def test_a_prefect_server_that_requires_a_login_is_named() -> None:
    """A flow raises what Prefect's client raises for the server's first answer."""

    def flow(**parameters: object) -> None:
        httpx.Response(401, request=httpx.Request("GET", "http://127.0.0.1/api/admin/version")).raise_for_status()

    with pytest.raises(BadSettings, match="PREFECT_API_AUTH_STRING to USER:PASSWORD"):
        run_flow(flow, {})  # type: ignore[arg-type]  # it is called like a flow
