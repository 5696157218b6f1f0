"""Reconciliation with the source's counts, by daily runs and by reconcile: late events, lost rows, wrong counts."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT
from tests.runs import ALL_EVENTS, Result, Warehouse

DAYS = 20
EVENTS_PER_DAY, EVENTS_PER_PAGE = 850, 100  # a tenth of a large account's, so that the number of pages is the same
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
READ_ENDPOINTS = ("GET /api/events", "POST /api/metric-aggregates")


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account with few events per hour."""
    with running(members=100, events=4_000, days=DAYS, until=MIDNIGHT) as box:
        yield box


class SyncedAccount:
    """An account and the schema that it is read into."""

    def __init__(self, warehouse: Warehouse, box: Sandbox, schema: str, **settings: object) -> None:
        self.box = box
        self.warehouse = warehouse.variant(
            klaviyo_base_url=box.url,
            klaviyo_api_key=box.api_key,
            warehouse_schema=schema,
            first_sync_days=31,
            **settings,
        )
        self.metrics = {metric["name"]: metric["id"] for metric in box.state()["metrics"]}

    def daily(self, **settings: Any) -> Result:
        """Run a daily sync of the event tables, which must complete."""
        ran = self.warehouse.daily(*ALL_EVENTS, **settings)
        assert ran.exit_code == 0, ran.sentences
        return ran

    def reconcile(self, code: int = 0, **settings: object) -> Result:
        """Run reconcile, which must exit with this code."""
        ran = self.warehouse.reconcile(**settings)
        assert ran.exit_code == code, ran.sentences
        return ran

    def requests(self, *endpoints: str) -> int:
        """Return the number of requests to these endpoints so far."""
        counts = self.box.state()["requests"]
        return sum(counts.get(name, 0) for name in endpoints)

    def stored(self) -> set[str]:
        """Return the ids of all stored events."""
        ids = self.warehouse.event_ids()
        assert len(ids) == len(set(ids))
        return set(ids)

    def missing(self) -> set[str]:
        """Return the ids of the account's events that are not stored."""
        return {event["id"] for event in self.box.events()} - self.stored()

    def differences(self) -> list[tuple[Any, ...]]:
        """Return the recorded differences: metric, hours, both counts, and whether the window was read again."""
        return self.warehouse.rows(
            "SELECT metric_id, extract(epoch FROM window_end - window_start)::int / 3600, source_events,"
            " warehouse_events, read_again_at IS NOT NULL FROM reconciliation WHERE state = 'differs' ORDER BY 1, 2"
        )

    def add(self, name: str, *ago: timedelta) -> list[str]:
        """Add events that happened this long ago and arrive only now; return their ids."""
        event = {"metric": self.metrics[name], "profile_id": self.box.profiles()[0]["id"]}
        moments = [datetime.now(UTC) - each for each in ago]
        return self.box.add_events(*({**event, "timestamp": int(each.timestamp())} for each in moments))


@pytest.mark.slow
def test_late_events_cost_a_quarter_of_a_blind_overlap(warehouse: Warehouse) -> None:
    """The next daily run stores events up to 29 days late, with at most a quarter of a blind overlap's requests."""
    start = MIDNIGHT - 3 * DAY  # the sandbox puts most events into the last days, so those are added evenly below
    with running(members=500, events=27 * EVENTS_PER_DAY, days=27, until=start) as box:
        box.set_server(most_events=EVENTS_PER_PAGE)
        metrics = sorted(box.state()["metrics"], key=lambda metric: -metric["count"])[:6]
        people = [person["id"] for person in box.profiles()]
        box.add_events(
            *(
                {
                    "metric": metrics[at % 6]["id"],
                    "profile_id": people[at % 500],
                    "timestamp": int(start.timestamp()) + at * 86_400 // EVENTS_PER_DAY,
                }
                for at in range(3 * EVENTS_PER_DAY)
            )
        )
        synced = SyncedAccount(warehouse, box, "late")
        synced.daily()
        assert synced.missing() == set()
        between = range(int((MIDNIGHT - 20 * DAY).timestamp()), int((MIDNIGHT - 10 * DAY).timestamp()))
        removed = [event["id"] for event in box.events() if event["timestamp"] in between][::200]
        for each in removed:
            box.remove_event(each)
        added = [
            *synced.add("Received Email", 29 * DAY, 29 * DAY - HOUR, 6 * DAY),
            *synced.add("Opened Email", 21 * DAY, 8 * DAY, 8 * DAY - 2 * HOUR),
            *synced.add("Placed Order", 5 * DAY, 2 * DAY),
            *synced.add("Clicked Email", HOUR / 2, timedelta()),
        ]
        assert synced.missing() == set(added)
        before = synced.requests(*READ_ENDPOINTS)
        synced.daily()
        by_counts = synced.requests(*READ_ENDPOINTS) - before
        assert synced.missing() == set()
        assert synced.stored() >= set(removed)  # events that the source has lost are reported and kept
        surplus = [stored - source for _, hours, source, stored, _ in synced.differences() if hours == 1]
        assert sum(surplus) == len(removed)
        synced.daily(reconcile_days=0, lookback_days=30)
        blind = synced.requests(*READ_ENDPOINTS) - before - by_counts
    print(f"requests for events and counts: {by_counts} with reconciliation, {blind} with a blind overlap")
    assert by_counts * 4 <= blind


@pytest.fixture(scope="module")
def synced(warehouse: Warehouse, box: Sandbox) -> SyncedAccount:
    """The small account, read once."""
    synced = SyncedAccount(warehouse, box, "current")
    synced.daily()
    return synced


@pytest.mark.slow
def test_daily_runs_store_late_and_future_events(synced: SyncedAccount) -> None:
    """Daily runs alone store all events that are late by hours or days, new, or dated in the future."""
    for turn in range(2):
        ids = synced.add("Received Email", 48 * HOUR, 72 * HOUR, timedelta())
        ids += synced.add("Opened Email", (turn + 4) * DAY, 72 * HOUR, HOUR / 60)
        ids += synced.add("Placed Order", -18 * HOUR, 2 * HOUR, (turn + 1) * HOUR)
        assert synced.missing() == set(ids)
        synced.daily()
        assert synced.missing() == set()
    assert synced.differences() == []
    assert synced.warehouse.one("SELECT max(watermark) <= now() FROM watermarks")


def test_reconcile_restores_lost_rows(synced: SyncedAccount) -> None:
    """The current dialect counts by hour."""
    assert_lost_rows_are_restored(synced)


def test_reconcile_restores_lost_rows_in_the_legacy_dialect(warehouse: Warehouse, box: Sandbox) -> None:
    """The legacy dialect counts by day."""
    synced = SyncedAccount(warehouse, box, "legacy", klaviyo_dialect="legacy")
    synced.daily()
    assert_lost_rows_are_restored(synced)


def assert_lost_rows_are_restored(synced: SyncedAccount) -> None:
    """Delete rows; assert that reconcile reads them again and that the next one reads no events."""
    deleted = synced.warehouse.column(
        "DELETE FROM sends WHERE id IN (SELECT id FROM sends WHERE event_at < date_trunc('day', now(), 'UTC')"
        " ORDER BY id LIMIT 5) RETURNING id"
    )
    assert len(deleted) == 5
    assert synced.missing() >= set(deleted)
    ran = synced.reconcile(metrics=("Received Email",))
    assert ran.counts["sends"]["inserted"] == 5
    assert synced.missing() == set()
    assert synced.differences() == []
    assert synced.warehouse.one("SELECT count(*) FROM reconciliation WHERE read_again_at IS NOT NULL") > 0
    pages = ("GET /api/events", "GET /api/v1/metric/{id}/timeline", "GET /api/v1/metrics/timeline")
    before = synced.requests(*pages)
    synced.reconcile()
    assert synced.requests(*pages) == before
    assert synced.differences() == []


def test_a_failed_reread_is_repeated_by_the_next_run(synced: SyncedAccount, box: Sandbox) -> None:
    """If the key lacks a scope when a late event is noticed, the next run with the scope stores the event."""
    late = set(synced.add("Received Email", 10 * DAY))
    box.add_key("pk_without_events", "accounts:read", "metrics:read", "lists:read", "segments:read")
    ran = synced.reconcile(code=3, klaviyo_api_key="pk_without_events")
    assert "lacks the scope events:read" in " ".join(ran.sentences)
    assert synced.missing() == late
    synced.daily()
    assert synced.missing() == set()


def test_a_wrong_count_is_reported_once(synced: SyncedAccount, box: Sandbox) -> None:
    """A remaining difference is reported by day and reread once, and reported as known until the counts agree."""
    day = MIDNIGHT - 3 * DAY
    opened = synced.metrics["Opened Email"]
    stored = synced.warehouse.one("SELECT count(*) FROM opens WHERE event_at >= %s AND event_at < %s", day, day + DAY)
    box.lie("Opened Email", f"{day:%Y-%m-%d}", 3)
    message = f"Opened Email, {day:%Y-%m-%d}: the source counts {stored + 3:,} events, the warehouse has {stored:,}."
    for reads, times in ((1, 1), (0, 0)):
        before = synced.requests("GET /api/events")
        ran = synced.reconcile()
        assert synced.requests("GET /api/events") - before == reads
        assert ran.sentences.count(message) == times
        [[metric, hours, source, held, was_reread], whole] = synced.differences()
        assert (metric, hours, source - held, was_reread) == (opened, 1, 3, True)
        assert whole == (opened, 24, stored + 3, stored, True)
    known = f"the source counts {stored + 3:,} events, the warehouse has {stored:,}."
    assert f"1 day differs as in an earlier check: {known}" in ran.sentences
    assert ran.state == "complete with differences"
    box.lie("Opened Email", f"{day:%Y-%m-%d}", 0)
    synced.reconcile()
    assert synced.differences() == []


@pytest.mark.slow
def test_missing_counts_fail_only_reconcile(synced: SyncedAccount, box: Sandbox) -> None:
    """Without counts a daily run succeeds, and the next one uses a week of overlap. Reconcile fails."""
    box.set_faults({"endpoint": "POST /api/metric-aggregates", "times": 10_000, "status": 503})
    synced.daily(request_attempts=1)
    latest = "SELECT max(checked_at) FROM reconciliation"
    states = f"SELECT DISTINCT state FROM reconciliation WHERE checked_at = ({latest})"
    assert synced.warehouse.column(states) == ["uncounted"]
    assert "sends" not in synced.reconcile(code=1, request_attempts=1).counts
    box.set_faults()
    overlap = (
        "SELECT round(extract(epoch FROM r.as_of - min(split_part(part, '..', 1) || 'Z')::timestamptz) / 86400)::int"
        " FROM chunks JOIN runs r USING (run_id) WHERE stream = 'events' AND flow = 'daily'"
        " GROUP BY run_id, r.as_of ORDER BY r.as_of DESC LIMIT 1"
    )
    assert synced.warehouse.one(overlap) == 3
    for days in (7, 3):
        synced.daily()
        assert synced.warehouse.one(overlap) == days
    assert synced.warehouse.column(states) == ["complete"]
