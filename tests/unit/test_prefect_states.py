"""The states of runs in Prefect, the automations that wait for them, and artifacts that Prefect refuses."""

import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import yaml

from klaviyo_pg.errors import (
    BadKey,
    BadSettings,
    Busy,
    DatabaseAway,
    MissingScope,
    QuotaUsedUp,
    Stopped,
    Throttled,
    Unavailable,
)
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.states import FINISHED, RunState
from pipeline.outcome import RunReport, Tally
from tasks import artifacts, run_events
from tasks.flow_run import MISCONFIGURED, as_part, state_of
from tasks.local import run_flow
from tasks.naming import artifact_key, part_name
from tests.driver import ROOT

ENDED = [state for state in RunState if state is not RunState.RUNNING]


def event_of(state: RunState) -> str:
    """Return the event that Prefect sends when a run has ended in a state."""
    return f"prefect.flow-run.{state_of(RunReport('id', 'shop', state, ('Why.',), 0)).name}"


def automation(name: str) -> dict[str, Any]:
    """Return an automation of automations.yaml."""
    automations: list[dict[str, Any]] = yaml.safe_load((ROOT / "automations.yaml").read_text())["automations"]
    [found] = [each for each in automations if each["name"] == name]
    return found


def expected_by(name: str) -> list[str]:
    """Return the events that an automation waits for."""
    expected: list[str] = automation(name)["trigger"]["expect"]
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
    shown = state_of(RunReport("id", "shop", state, ("One.", "Two."), 0), "3 rows read.")
    assert (shown.type.value, shown.name, shown.message) == (type_, name, "One. Two. 3 rows read.")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        pytest.param(BadKey(), MISCONFIGURED, id="a wrong key"),
        pytest.param(BadSettings(), MISCONFIGURED, id="a full disk"),
        pytest.param(Busy(), "Failed", id="busy"),
        pytest.param(DatabaseAway(), "Failed", id="no database"),
        pytest.param(Throttled(), "To be continued", id="throttled"),
        pytest.param(Unavailable(), "Partial", id="no answer"),
        pytest.param(Stopped(), "Stopped", id="stopped"),
    ],
)
def test_a_part_that_another_run_cannot_read_either_has_a_state_with_a_name(error: Exception, name: str) -> None:
    tally = Tally(tolerates_failures=True)
    tally.add_error(error)
    state = state_of(RunReport("id", "shop", tally.state, tuple(tally.sentences), tally.exit_code))
    part = as_part(state, tally.needs_correction)
    assert (part.name, part.type, part.message) == (name, state.type, state.message)


def test_a_part_that_is_misconfigured_is_reported() -> None:
    event = f"prefect.flow-run.{MISCONFIGURED}"
    assert event in expected_by("klaviyo-failed")
    assert event in expected_by("klaviyo-lost")


def test_differences_have_an_automation() -> None:
    assert expected_by("klaviyo-differences") == [event_of(RunState.COMPLETE_WITH_DIFFERENCES)]


def test_an_account_is_stale_without_a_daily_run_that_finishes_well() -> None:
    """A run with differences, and one that leaves something out, has loaded everything else."""
    finished = [run_events.event_of("daily", state) for state in (*FINISHED, RunState.PARTIAL)]
    assert expected_by("klaviyo-stale") == finished
    trigger = automation("klaviyo-stale")["trigger"]
    assert trigger["after"] == finished
    assert trigger["for_each"] == ["prefect.resource.id"]  # the account


def test_an_account_is_stale_although_limited_runs_finish_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their event is not one that the automation waits for."""
    emitted: list[str] = []
    monkeypatch.setattr(run_events, "emit_event", lambda event, **_: emitted.append(event))
    run_events.announce("daily", RunReport("id", "shop", RunState.COMPLETE, (), 0, is_limited=True), Tally())
    assert emitted == ["klaviyo-pg.daily.limited.complete"]
    assert not set(emitted) & set(expected_by("klaviyo-stale"))


@pytest.mark.parametrize(
    ("error", "names"),
    [
        pytest.param(None, ["klaviyo-pg.daily.complete"], id="nothing is wrong"),
        pytest.param(
            QuotaUsedUp(), ["klaviyo-pg.daily.partial", "klaviyo-pg.quota-used-up"], id="the quota of a day is used up"
        ),
        pytest.param(
            Throttled(), ["klaviyo-pg.daily.to-be-continued", "klaviyo-pg.quota-used-up"], id="the pause is too long"
        ),
        pytest.param(MissingScope("lists:read"), ["klaviyo-pg.daily.partial"], id="a scope is missing"),
    ],
)
def test_the_end_of_a_run_is_an_event_of_its_account(
    error: Exception | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(run_events, "emit_event", lambda **event: emitted.append(event))
    tally = Tally()
    if error is not None:
        tally.add_error(error)
    report = RunReport("id", "shop-de", tally.state, tuple(tally.sentences), tally.exit_code)
    run_events.announce("daily", report, tally)
    assert [event["event"] for event in emitted] == names
    for event in emitted:
        assert event["resource"] == {
            "prefect.resource.id": "klaviyo-pg.account.shop-de",
            "prefect.resource.name": "shop-de",
        }
        assert event["payload"] == {"flow": "daily", "run_id": "id", "message": str(error or "")}


def test_new_metrics_are_an_event_of_their_account(monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: dict[str, Any] = {}
    monkeypatch.setattr(run_events, "emit_event", lambda event, payload, **_: emitted.update({event: payload}))
    tally = Tally()
    tally.add_new_metrics([f"Metric {number}" for number in range(1, 8)])
    run_events.announce("daily", RunReport("id", "shop", tally.state, tuple(tally.sentences), 0), tally)
    assert list(emitted) == ["klaviyo-pg.daily.complete", "klaviyo-pg.new-metrics"]
    sentence = "New metrics: Metric 1, Metric 2, Metric 3, Metric 4, Metric 5 and 2 others."
    assert emitted["klaviyo-pg.new-metrics"]["message"] == sentence


def test_a_quota_that_is_used_up_has_an_automation() -> None:
    assert expected_by("klaviyo-quota") == [run_events.QUOTA]


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


def test_the_run_of_a_part_is_named_by_its_days() -> None:
    """Its chunks are in no order that a reader has to know."""
    days = [datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3)]
    chunks = [BackfillChunk("M", days[1], days[2], expected=1), BackfillChunk("M", days[0], days[1], expected=1)]
    assert part_name("shop-de", chunks) == "backfill_part · shop-de · 2 chunks from 2026-01-01 to 2026-03-01"
