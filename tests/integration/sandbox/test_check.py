"""The command `check`: what is wrong becomes sentences and an exit code, and its forecast holds for the runs."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import Any

import pytest

from klaviyo_pg.cli.check import examine, exit_code
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings
from pipeline.commands.check.account import AccountCheck, AccountFindings
from pipeline.commands.check.database import DatabaseCheck
from pipeline.commands.check.forecast import KEY
from pipeline.session import present
from pipeline.streams import STREAMS
from pipeline.streams.selection import selection_of
from sandbox.launcher import Sandbox, running
from tests.runs import Warehouse

STREAM_OF = {  # by method of the source; others have the name of their stream
    "account": KEY,
    "memberships": "list_members",
    "latest_change": "profiles",
    "profile_ids": "profile_sweep",
    "event_owner": "event_owners",
}
SHARES = {
    "events": 0.05,
    **dict.fromkeys(("profiles", "profile_sweep", "list_members", "segment_members", "templates", "exclusions"), 0.2),
    "member_predictions": 0.2,
}
"""The tolerance of what is not exact, as a share."""
WIDTH = 1 + max(len(stream.title) for stream in STREAMS.values() if not stream.on_request)
"""Characters of the column of streams in the table of a check."""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account with several pages of everything."""
    with running(members=900, events=8_000, days=40) as box:
        yield box


class Recorded:
    """A source that counts its requests by stream."""

    def __init__(self, source: Source, requests: Counter[str], lock: Lock) -> None:
        self._source, self._requests, self._lock = source, requests, lock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._source, name)
        return partial(self._call, STREAM_OF.get(name, name), found) if callable(found) else found

    def _call(self, stream: str, method: Callable[..., Any], *arguments: Any) -> Any:
        stream = arguments[0] if stream == "records" else stream
        result = self._counted(stream, lambda: method(*arguments))
        return self._pages(stream, result) if isinstance(result, Iterator) else result

    def _pages(self, stream: str, pages: Iterator[Any]) -> Iterator[Any]:
        while (page := self._counted(stream, lambda: next(pages, None))) is not None:
            yield page

    def _counted(self, stream: str, work: Callable[[], Any]) -> Any:
        before = self._source.traffic
        try:
            return work()
        finally:
            with self._lock:
                self._requests[stream] += self._source.traffic.since(before).requests


def recorded(requests: Counter[str]) -> Callable[[Settings, Pace, PageSizes], Source]:
    """Return what opens a source whose requests are counted."""
    lock = Lock()
    return lambda *arguments: Recorded(open_source(*arguments), requests, lock)


def checked(warehouse: Warehouse, **settings: object) -> AccountFindings:
    """Check the account."""
    return checked_at(datetime.now(UTC), warehouse, **settings)


def checked_at(now: datetime, warehouse: Warehouse, **settings: object) -> AccountFindings:
    """Check the account when this machine's clock shows a time."""
    configured, pace = warehouse.configured(**settings), Pace(0.9, 60)
    source = open_source(configured, pace, PageSizes())
    return AccountCheck(source, pace, configured, selection_of(configured), now).run(True, lambda sentence: None)


def test_a_clock_that_is_ahead_within_the_tolerance_refuses_no_stream(warehouse: Warehouse) -> None:
    """Klaviyo refuses times in its future. Runs never ask for them."""
    found = checked_at(datetime.now(UTC) + timedelta(minutes=4), warehouse)
    assert found.errors == []
    assert found.access["events"].is_allowed


def test_the_forecast_holds_for_a_first_and_a_daily_run(warehouse: Warehouse, box: Sandbox) -> None:
    """Full reads and counts are exact. Events are right within a twentieth, estimates within a fifth, or two requests.

    The daily run is a day after the first one. It also sweeps all profiles, because none were swept before.
    """
    tables = ["default", *(name for name in STREAMS if STREAMS[name].on_request and not name.endswith("_reports"))]
    warehouse = warehouse.variant(events_page_size=100, segments=tuple(box.state()["segments"]), tables=tables)
    found = checked(warehouse)
    assert found.errors == []
    requests: list[Counter[str]] = []
    for _ in range(2):
        requests.append(Counter())
        ran = Warehouse(warehouse.url, warehouse.settings, recorded(requests[-1])).daily()
        assert ran.exit_code == 0, ran.sentences
        assert requests[-1].total() == ran.traffic.requests
        warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '1 day' WHERE stream !~ 'sweep'")
    first, daily = requests
    for name, made in found.forecast.items():
        assert made.first is not None and made.daily is not None
        sweep = made.sweep if name == "profile_sweep" else 0
        share = SHARES.get(name, 0)
        for actual, expected in ((first[name], made.first), (daily[name], made.daily + sweep)):
            assert actual == pytest.approx(expected, abs=max(2, expected * share) if share else 0), name


def test_reports_continue_after_the_quota_of_a_day(warehouse: Warehouse, box: Sandbox) -> None:
    """The run that used it up is partial and says so. The check asks for one day, and forecasts all of them."""
    warehouse = warehouse.variant(tables=["campaign_reports", "flow_reports"], report_days=4)
    found = checked(warehouse)
    used_up = {"status": 429, "retry_after": 20_000, "times": 10**6}
    box.set_faults({"endpoint": "POST /api/campaign-values-reports", "after": 2, **used_up})
    try:
        ran = warehouse.daily()
    finally:
        box.set_faults()
    assert (found.errors, found.forecast["campaign_reports"].daily, found.forecast["flow_reports"].daily) == ([], 4, 1)
    assert (ran.state, ran.exit_code, len(ran.sentences)) == ("partial", 3, 1)
    assert ran.sentences[0].startswith("Klaviyo's quota for campaign reports is used up for another 5:33:20.")
    assert ran.sentences[0].endswith(" The next runs read the remaining days.")
    keys = "SELECT count(*) FROM watermarks WHERE stream ~ '^campaign_reports/[^/]+/'"
    assert warehouse.one(keys) == 2
    warehouse.execute("DELETE FROM rate_limits")  # otherwise the next request waits for half a minute
    assert (warehouse.daily().state, warehouse.one(keys)) == ("complete", 4)
    assert warehouse.daily().changed() == {}


def examined(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str], **settings: object
) -> tuple[int, str, list[str]]:
    """Return the exit code of a check without a forecast, what it printed, and the sentences about what is wrong."""
    configured = warehouse.configured(**settings)
    code = examine(configured, selection_of(configured), with_forecast=False)
    printed = capsys.readouterr()
    assert configured.api_key not in printed.out + printed.err
    return code, printed.out, [line for line in printed.err.splitlines() if line and not line.startswith("Trying")]


def test_a_good_key_and_database_pass(warehouse: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stream of the selection has a line, which says that the key has its scope. A wrong segment is said."""
    code, out, sentences = examined(warehouse, capsys, tables="-campaigns", segments="Empty segment,Nobody")
    assert (code, len(sentences)) == (3, 1)
    assert sentences[0].startswith("SEGMENTS: the account has no segment with the name or ID 'Nobody'.")
    assert "account SANDBX" in out and "schema klaviyo" in out
    lines = {line[:WIDTH].strip(): line[WIDTH:].strip() for line in out.splitlines()}
    wanted = [stream.title for name, stream in STREAMS.items() if name != "campaigns" and not stream.on_request]
    assert {name: lines.get(name) for name in wanted} == dict.fromkeys(wanted, "yes")
    assert "campaigns" not in lines


def test_json_has_what_the_table_shows(warehouse: Warehouse, box: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else is on standard output."""
    configured = warehouse.configured()
    box.set_faults({"endpoint": "GET /api/flows", "status": 404, "times": 10**6})
    try:
        code = examine(configured, selection_of(configured), with_forecast=True, as_json=True)
    finally:
        box.set_faults()
    document = json.loads(capsys.readouterr().out)
    assert (code, document["exit_code"], document["account_id"]) == (3, 3, box.state()["account"])
    assert document["errors"] == ["Klaviyo does not offer flows to this account (404). Runs leave it out."]
    streams = {each["stream"]: each for each in document["streams"]}
    assert (streams["flows"]["access"], streams["flows"]["is_allowed"]) == ("not offered", False)
    events = streams["events"]
    assert (events["access"], events["is_allowed"]) == ("yes", True)
    assert events["requests_of_first_run"] >= events["requests_of_daily_run"] > 0
    assert not events["is_first_run_lower_bound"] and not events["is_daily_run_lower_bound"]
    assert set(configured.api_key.split()).isdisjoint(str(document).split())


def test_events_without_counts_make_the_forecast_a_lower_bound(
    warehouse: Warehouse, box: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the table, in the totals, and in JSON."""
    configured = warehouse.configured()
    box.set_faults({"endpoint": "POST /api/metric-aggregates", "status": 400, "times": 10**6})
    try:
        examine(configured, selection_of(configured), with_forecast=True)
        printed = capsys.readouterr().out
        examine(configured, selection_of(configured), with_forecast=True, as_json=True)
        document = json.loads(capsys.readouterr().out)
    finally:
        box.set_faults()
    [events] = [line.split() for line in printed.splitlines() if line.split()[:1] == ["events"]]
    assert [each for each in events if each.endswith("+")] == [events[2], events[-1]]
    assert printed.count(" needs at least ") == 2
    assert {
        each["stream"]: (each["is_first_run_lower_bound"], each["is_daily_run_lower_bound"])
        for each in document["streams"]
        if each["is_first_run_lower_bound"]
    } == {"events": (True, True)}


def test_a_missing_scope_is_told_apart_from_what_klaviyo_does_not_offer(
    warehouse: Warehouse, box: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is said once, with what to do, and the other streams are checked all the same."""
    box.set_faults(
        {"endpoint": "GET /api/profiles", "status": 403, "times": 10**6},
        {"endpoint": "GET /api/flows", "status": 404, "times": 10**6},
    )
    try:
        code, out, sentences = examined(warehouse, capsys)
    finally:
        box.set_faults()
    assert code == 3
    assert sentences == [
        "Klaviyo does not offer flows to this account (404). Runs leave it out.",
        "The API key lacks the scope profiles:read. Add it to the key in Klaviyo's settings.",
    ]
    lines = {line[:WIDTH].strip(): line[WIDTH:].strip() for line in out.splitlines()}
    assert [lines[name] for name in ("flows", "profiles", "events")] == ["not offered", "no scope", "yes"]


def test_everything_that_is_wrong_is_reported_at_once(warehouse: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    """A rejected key does not keep the database from being tried, and the other way round."""
    code, out, sentences = examined(
        warehouse, capsys, klaviyo_api_key="pk_wrong", database_url="postgresql://someone:hidden@127.0.0.1:1/x"
    )
    assert code == 2
    assert len(sentences) == 2
    assert sentences[0].startswith("Klaviyo does not accept the API key.")
    assert "connection" in sentences[1] and "hidden" not in out + "".join(sentences)


def test_a_user_who_may_not_create_tables_is_named(warehouse: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    """The role can read the schema, but a run could not add a table to it."""
    url = str(warehouse.settings["database_url"])
    warehouse.execute("CREATE ROLE reader LOGIN")
    try:
        warehouse.execute("GRANT USAGE ON SCHEMA klaviyo TO reader")
        code, _, sentences = examined(warehouse, capsys, database_url=url.replace("postgres@", "reader@", 1))
    finally:
        warehouse.execute("DROP OWNED BY reader")
        warehouse.execute("DROP ROLE reader")
    assert code == 2
    assert sentences[0] == (
        "The database user may not create tables in the schema klaviyo. Grant it CREATE on the schema, or set "
        "DATABASE_URL to another user."
    )


def test_a_warehouse_of_the_sandbox_is_not_offered_to_a_real_account(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its embedded Postgres exists after a try of the sandbox, but a run of a real account would refuse it."""
    url = str(warehouse.settings["database_url"])
    monkeypatch.setattr(embedded, "exists", lambda folder: True)
    monkeypatch.setattr(embedded, "warehouse_url", lambda settings: url)
    configured = warehouse.configured(database_url="", klaviyo_base_url="https://a.klaviyo.com")
    found = AccountFindings()
    DatabaseCheck(configured, found, present, present()).run()
    assert [str(error)[:27] for error in found.errors] == ["DATABASE_URL is not set. Se"]


@pytest.mark.parametrize(
    ("timezone", "shown"),
    [("No/Such_Zone", "No/Such_Zone"), ("Of ann@example.com", "Of …"), ("Of +1 555 776 1000", "Of …")],
)
def test_a_time_zone_that_the_database_lacks_is_named(warehouse: Warehouse, timezone: str, shown: str) -> None:
    """Personal data in its name is left out."""
    found = AccountFindings(timezone=timezone)
    DatabaseCheck(warehouse.configured(), found, present, present()).run()
    assert found.warnings == [
        f"The database does not have the account's time zone, {shown}: views use days in UTC instead. Update the time "
        "zone data of the database server."
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({}, "This machine's clock is 2 days fast compared with the database's and the API's.", id="all"),
        pytest.param(
            {"database_url": "", "embedded_postgres": True},
            "This machine's clock is 2 days fast compared with the API's.",
            id="no database yet",
        ),
    ],
)
def test_a_wrong_clock_is_named(warehouse: Warehouse, changes: dict[str, object], message: str) -> None:
    """The machine's clock is compared with the others that there are."""
    found, ahead = AccountFindings(), timedelta(days=2)
    DatabaseCheck(warehouse.configured(**changes), found, lambda: present() + ahead, present()).run()
    [error] = found.errors
    assert str(error).startswith(message) and exit_code([error]) == 2
