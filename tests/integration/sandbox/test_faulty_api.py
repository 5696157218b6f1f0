"""Runs whose API misbehaves: they complete, or a rerun resumes them."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT
from tests.runs import Warehouse

DAYS = 30
LISTS = "stg_member_lists"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=200, events=6_000, days=DAYS, until=MIDNIGHT, latency_ms=5) as box:
        yield box


@pytest.fixture
def faulty(box: Sandbox) -> Iterator[Sandbox]:
    """The account. Faults that a test sets end with the test."""
    yield box
    box.set_faults()
    box.set_chaos()


def in_schema(warehouse: Warehouse, schema: str, **settings: object) -> Warehouse:
    """Return a warehouse in a separate schema. The first run reads all of the account's history."""
    return warehouse.variant(warehouse_schema=schema, first_sync_days=60, chunk_events=1000, **settings)


def truth(box: Sandbox) -> Counter[str]:
    """Return the ids of the account's events, each once."""
    return Counter(event["id"] for event in box.events())


@pytest.mark.slow
def test_endless_throttling_ends_at_the_retry_budget(warehouse: Warehouse, faulty: Sandbox) -> None:
    """A run that keeps getting 429 waits as Retry-After says until its budget is spent. A rerun completes it."""
    paused = in_schema(warehouse, "paused")
    faulty.set_faults(
        {"endpoint": "GET /api/events", "kind": "429", "retry_after": 2, "times": 10**9, "after": 3},
    )
    before = faulty.state()["requests"].get("GET /api/events", 0)
    ran = paused.daily(retry_budget_seconds=6, concurrency=1)
    requests = faulty.state()["requests"]["GET /api/events"] - before
    assert ran.exit_code == 4, ran.sentences
    assert "its rate limit is used up" in ran.sentences[-1]
    assert "Rerun with the same arguments to resume" in ran.sentences[-1]
    assert requests <= 3 + 4  # the first three, then one every two seconds
    assert paused.column("SELECT state FROM runs") == ["to be continued"]
    faulty.set_faults()
    assert paused.daily().exit_code == 0
    assert paused.column("SELECT state FROM runs") == ["complete"]
    assert Counter(paused.event_ids()) == truth(faulty)


def test_an_optional_stream_is_read_after_a_failure_of_a_proxy(warehouse: Warehouse, faulty: Sandbox) -> None:
    """A status that only a host in front of the API sends says nothing about the account."""
    proxied = in_schema(warehouse, "proxied")
    faulty.set_faults({"endpoint": "GET /api/templates", "times": 1, "status": 522})
    ran = proxied.daily("templates")
    assert (ran.state, proxied.one("SELECT sum(retries) FROM runs")) == ("complete", 1)
    assert proxied.one("SELECT count(*) FROM templates") > 0


@pytest.mark.slow
def test_a_failed_list_does_not_stop_the_others(warehouse: Warehouse, faulty: Sandbox) -> None:
    """If one list cannot be read, the run stores the new members of the others. The next run reads that list."""
    listed = in_schema(warehouse, "lists", membership_sweep_days=0)
    lists = "SELECT count(*) FROM watermarks WHERE stream LIKE 'list_members/%%'"
    lagging = f"{lists} AND watermark < (SELECT max(as_of) FROM runs)"
    assert listed.daily(LISTS).exit_code == 0
    faulty.set_faults({"endpoint": "GET /api/lists/{id}/profiles", "times": 1, "status": 400})
    assert listed.daily(LISTS).exit_code == 3
    assert listed.one(lagging) == 1 < listed.one(lists)
    assert listed.daily(LISTS).exit_code == 0
    assert listed.one(lagging) == 0


@pytest.mark.slow
def test_runs_survive_a_tenth_of_faulty_answers(warehouse: Warehouse, faulty: Sandbox) -> None:
    """With every kind of fault that a retry can fix, a backfill and a daily run store each event exactly once."""
    mixed = in_schema(warehouse, "mixed", request_timeout_seconds=3)
    before = sum(faulty.state()["chaos"].values())
    faulty.set_chaos(rate=0.1, seed=3, seconds=4, retry_after=1)
    backfilled = mixed.backfill(datetime(2026, 10, 20, tzinfo=UTC))
    synced = mixed.daily()
    assert (backfilled.exit_code, synced.exit_code) == (0, 0), [*backfilled.sentences, *synced.sentences]
    assert sum(faulty.state()["chaos"].values()) - before >= 10
    assert mixed.one("SELECT sum(retries) FROM runs") >= 5  # slow and empty pages need no retry
    assert mixed.one("SELECT count(*) FROM backfill_chunks WHERE state <> 'done'") == 0
    assert Counter(mixed.event_ids()) == truth(faulty)
