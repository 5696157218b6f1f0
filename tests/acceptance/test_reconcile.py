"""Counts reconciled with the source: what came late, was lost or is told wrongly, by daily runs and by reconcile."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from klaviyo_pg.catalogue import events
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, Ran, Warehouse, account

DAYS = 20
EVENTS_OF_A_DAY, EVENTS_ON_A_PAGE = 850, 100  # a tenth of each, so as many pages as a large account has
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
READING = ("GET /api/events", "POST /api/metric-aggregates")


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account, with few events in an hour."""
    with running(members=100, events=4_000, days=DAYS, until=MIDNIGHT) as box:
        yield box


class Account:
    """An account in a schema of its own."""

    def __init__(self, warehouse: Warehouse, box: Sandbox, schema: str, **settings: str) -> None:
        self._warehouse, self.box, self._schema = warehouse, box, schema
        self._settings = {**account(box), "WAREHOUSE_SCHEMA": schema, "FIRST_SYNC_DAYS": "31", **settings}
        self.metrics = {metric["name"]: metric["id"] for metric in box.state()["metrics"]}

    def daily(self, **settings: str) -> Ran:
        """A daily run that has to be complete."""
        return self._run(["flows/daily.py", "--tables", "sends"], 0, settings)

    def reconcile(self, *arguments: str, code: int = 0, **settings: str) -> Ran:
        """A check that has to end with this exit code."""
        return self._run(["flows/reconcile.py", *arguments], code, settings)

    def _run(self, command: list[str], code: int, settings: dict[str, str]) -> Ran:
        ran = self._warehouse.run(command, {**self._settings, **settings})
        assert ran.code == code, ran.err[-3000:]
        return ran

    def asked(self, *endpoints: str) -> int:
        """Requests to endpoints so far."""
        requests = self.box.state()["requests"]
        return sum(requests.get(name, 0) for name in endpoints)

    def stored(self) -> set[str]:
        """The ids of all events that the warehouse holds."""
        every = " UNION ALL ".join(f"SELECT id FROM {self._schema}.{table.name}" for table in events.EVENT_TABLES)
        ids = [row[0] for row in self._warehouse.rows(every)]
        assert len(ids) == len(set(ids))
        return set(ids)

    def lacks(self) -> set[str]:
        """The ids of events that the account has and the warehouse has not."""
        return {event["id"] for event in self.box.events()} - self.stored()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query answers; {} stands for the schema."""
        return self._warehouse.rows(query.replace("{}", self._schema))

    def differences(self) -> list[tuple[Any, ...]]:
        """What differs, in the table: metric, number of hours, both numbers, whether it was read again."""
        return self.rows(
            "SELECT metric_id, extract(epoch FROM window_end - window_start)::int / 3600, source_events,"
            " warehouse_events, read_again_at IS NOT NULL FROM {}.reconciliation WHERE state = 'differs' ORDER BY 1, 2"
        )

    def add(self, name: str, *ago: timedelta) -> list[str]:
        """Events that only come now, though they happened so long ago."""
        person = self.box.profiles()[0]["id"]
        moments = [datetime.now(UTC) - each for each in ago]
        given = {"metric": self.metrics[name], "profile_id": person}
        return self.box.add_events(*({**given, "timestamp": int(each.timestamp())} for each in moments))


def test_late_events_for_a_fraction_of_the_requests(warehouse: Warehouse) -> None:
    """Up to 29 days late: all are there after the next daily run, for a quarter of what a blind overlap costs."""
    start = MIDNIGHT - 3 * DAY  # a made-up account has most of its events in its last days: they get their share here
    with running(members=500, events=27 * EVENTS_OF_A_DAY, days=27, until=start) as box:
        box.set_server(most_events=EVENTS_ON_A_PAGE)
        metrics = sorted(box.state()["metrics"], key=lambda metric: -metric["count"])[:6]
        people = [person["id"] for person in box.profiles()]
        box.add_events(
            *(
                {
                    "metric": metrics[at % 6]["id"],
                    "profile_id": people[at % 500],
                    "timestamp": int(start.timestamp()) + at * 86_400 // EVENTS_OF_A_DAY,
                }
                for at in range(3 * EVENTS_OF_A_DAY)
            )
        )
        synced = Account(warehouse, box, "late")
        synced.daily()
        assert synced.lacks() == set()
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
        assert synced.lacks() == set(added)
        before = synced.asked(*READING)
        synced.daily()
        by_counts = synced.asked(*READING) - before
        assert synced.lacks() == set()
        assert synced.stored() >= set(removed)  # what the source has lost is told of, not deleted
        assert sum(stored - source for _, hours, source, stored, _ in synced.differences() if hours == 1) == len(
            removed
        )
        synced.daily(RECONCILE_DAYS="0", LOOKBACK_DAYS="30")
        blind = synced.asked(*READING) - before - by_counts
    print(f"requests for events and counts: {by_counts} by counts, {blind} with a blind overlap")
    assert by_counts * 4 <= blind


@pytest.fixture(scope="module")
def synced(warehouse: Warehouse, box: Sandbox) -> Account:
    """The small account, read once."""
    synced = Account(warehouse, box, "current")
    synced.daily()
    return synced


def test_a_week_of_late_and_future_events(synced: Account) -> None:
    """Late by hours and days, new and dated in the future, in daily runs only: none is lost, and none stops a run."""
    for turn in range(2):
        ids = synced.add("Received Email", 48 * HOUR, 72 * HOUR, timedelta())
        ids += synced.add("Opened Email", (turn + 4) * DAY, 72 * HOUR, HOUR / 60)
        ids += synced.add("Placed Order", -18 * HOUR, 2 * HOUR, (turn + 1) * HOUR)
        assert synced.lacks() == set(ids)
        synced.daily()
        assert synced.lacks() == set()
    assert synced.differences() == []
    assert synced.rows("SELECT max(watermark) <= now() FROM {}.watermarks") == [(True,)]


def test_rows_that_are_missing_are_restored(synced: Account) -> None:
    """Deleted by hand, found by counts of hours, read again; the next check finds nothing to do."""
    restored(synced)


def test_rows_that_are_missing_are_restored_in_the_legacy_dialect(warehouse: Warehouse, box: Sandbox) -> None:
    """The same by counts of days."""
    synced = Account(warehouse, box, "legacy", KLAVIYO_DIALECT="legacy")
    synced.daily()
    restored(synced)


def restored(synced: Account) -> None:
    """Rows are deleted by hand and have to be back."""
    deleted = synced.rows(
        "DELETE FROM {}.sends WHERE id IN (SELECT id FROM {}.sends WHERE event_at < date_trunc('day', now(), 'UTC')"
        " ORDER BY id LIMIT 5) RETURNING id"
    )
    assert len(deleted) == 5
    assert synced.lacks() >= {row[0] for row in deleted}
    ran = synced.reconcile("--metrics", "Received Email")
    assert ran.counts["sends"][1] == 5
    assert synced.lacks() == set()
    assert synced.differences() == []
    assert synced.rows("SELECT count(*) > 0 FROM {}.reconciliation WHERE read_again_at IS NOT NULL") == [(True,)]
    pages = ("GET /api/events", "GET /api/v1/metric/{id}/timeline", "GET /api/v1/metrics/timeline")
    before = synced.asked(*pages)
    synced.reconcile()
    assert synced.asked(*pages) == before
    assert synced.differences() == []


def test_what_could_not_be_read_is_read_by_the_next_check(synced: Account, box: Sandbox) -> None:
    """A key that lacks a scope for a day: an event that came late meanwhile is not lost."""
    late = set(synced.add("Received Email", 10 * DAY))
    box.add_key("pk_without_events", "accounts:read", "metrics:read", "lists:read", "segments:read")
    ran = synced.reconcile(code=3, KLAVIYO_API_KEY="pk_without_events")
    assert "lacks the scope events:read" in ran.err
    assert synced.lacks() == late
    synced.daily()
    assert synced.lacks() == set()


def test_a_wrong_count_is_told_once(synced: Account, box: Sandbox) -> None:
    """With both numbers; it is read again once, not by the next check, and forgotten when it is right."""
    day = MIDNIGHT - 3 * DAY
    opened = synced.metrics["Opened Email"]
    [[stored]] = synced.rows(f"SELECT count(*) FROM {{}}.opens WHERE event_at >= '{day}' AND event_at < '{day + DAY}'")
    box.lie("Opened Email", f"{day:%Y-%m-%d}", 3)
    told = f"Opened Email, {day:%Y-%m-%d}: the source counts {stored + 3:,} events, the warehouse holds {stored:,}."
    for reads, times in ((1, 1), (0, 0)):
        before = synced.asked("GET /api/events")
        ran = synced.reconcile()
        assert synced.asked("GET /api/events") - before == reads
        assert ran.err.splitlines().count(told) == times
        [[metric, hours, source, held, was_read], whole] = synced.differences()
        assert (metric, hours, source - held, was_read) == (opened, 1, 3, True)
        assert whole == (opened, 24, stored + 3, stored, True)
    assert "As an earlier check told: 1 day differs." in ran.err
    box.lie("Opened Email", f"{day:%Y-%m-%d}", 0)
    synced.reconcile()
    assert synced.differences() == []


def test_counts_that_do_not_come(synced: Account, box: Sandbox) -> None:
    """No failure of a daily run, whose next one reads a week again; a check fails, since it could not check."""
    box.set_faults({"endpoint": "POST /api/metric-aggregates", "times": 10_000, "status": 503})
    synced.daily(REQUEST_ATTEMPTS="1")
    latest = "SELECT max(checked_at) FROM {}.reconciliation"
    states = f"SELECT DISTINCT state FROM {{}}.reconciliation WHERE checked_at = ({latest})"
    assert synced.rows(states) == [("uncounted",)]
    assert synced.reconcile(code=1, REQUEST_ATTEMPTS="1").counts["sends"][0] == 0
    box.set_faults()
    overlap = (
        "SELECT round(extract(epoch FROM r.as_of - min(split_part(part, '..', 1) || 'Z')::timestamptz) / 86400)::int"
        " FROM {}.chunks JOIN {}.runs r USING (run_id) WHERE stream = 'events' AND flow = 'daily'"
        " GROUP BY run_id, r.as_of ORDER BY r.as_of DESC LIMIT 1"
    )
    assert synced.rows(overlap) == [(3,)]
    for days in (7, 3):
        synced.daily()
        assert synced.rows(overlap) == [(days,)]
    assert synced.rows(states) == [("complete",)]
