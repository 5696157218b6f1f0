"""The sweep of all profiles: it is divided among readers while it is read, and resumes where each of them stopped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.streams import STREAMS
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, Warehouse, days_ago

PEOPLE, ON_A_PAGE, IN_A_BATCH = 400, 5, 10
FIRST = days_ago(300)


def spread(kind: str) -> Sequence[datetime]:
    """Return the times of the last change of people."""
    few = PEOPLE // 10
    match kind:
        case "even":
            return [FIRST + number * DAY / 4 for number in range(PEOPLE)]
        case "all in a minute":
            return [FIRST + timedelta(seconds=number // 7) for number in range(PEOPLE)]
        case "most in a minute":
            rare = [FIRST + number * 5 * DAY for number in range(few)]
            return [*rare, *(FIRST + 62 * DAY + timedelta(seconds=number // 6) for number in range(PEOPLE - few))]
        case _:
            return [FIRST] * PEOPLE


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, shop: FakeAccount) -> None:
    """Let pages, batches and pieces be small."""
    profiles = replace(STREAMS["profiles"], batch_rows=IN_A_BATCH)
    monkeypatch.setattr("pipeline.read.STREAMS", {**STREAMS, "profiles": profiles})
    monkeypatch.setattr("pipeline.read._LEAST_ROWS", 2 * IN_A_BATCH)
    shop.rows_per_page = ON_A_PAGE


def populate(shop: FakeAccount, kind: str) -> None:
    shop.profiles.clear()
    for number, updated in enumerate(spread(kind)):
        shop.add_person(f"X{number:04}", updated, created=FIRST)


def pages(shop: FakeAccount) -> Counter[object]:
    """Return the number of pages that were requested of each window."""
    return Counter(request.window for request in shop.sent("profiles"))


@pytest.mark.parametrize("kind", ["even", "all in a minute", pytest.param("most in a minute", marks=pytest.mark.slow)])
def test_a_long_sweep_is_divided_wherever_its_people_are(warehouse: Warehouse, shop: FakeAccount, kind: str) -> None:
    """No reader has more than a third of the pages, and few pages are read in addition."""
    populate(shop, kind)
    ran = warehouse.daily("members")
    assert ran.exit_code == 0
    assert warehouse.one("SELECT count(*) FROM members WHERE created_at IS NOT NULL") == PEOPLE
    of_each, least = pages(shop), PEOPLE // ON_A_PAGE
    assert max(of_each.values()) < least / 3
    assert sum(of_each.values()) < least * 1.6
    assert warehouse.one("SELECT requests FROM runs") == ran.traffic.requests
    assert warehouse.watermarks()["profiles"] == ran.run.as_of


def test_people_who_changed_in_the_same_second_are_read_in_one_sequence(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    """The API has no finer filter."""
    populate(shop, "all in a second")
    assert warehouse.daily("members").exit_code == 0
    assert len(pages(shop)) == 1
    assert warehouse.one("SELECT count(*) FROM members WHERE created_at IS NOT NULL") == PEOPLE


@pytest.mark.slow
def test_a_sweep_that_is_stopped_again_and_again_reads_a_batch_more_for_each_reader(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    """It resumes in the windows into which it was divided."""
    populate(shop, "even")
    warehouse.daily("members")
    undisturbed = len(shop.sent("profiles"))
    other = warehouse.variant(warehouse_schema="other")
    shop.recover()
    stops = 0
    for page in (1, 3, 2, 4):
        shop.before("profiles", other.stop, page=page)
        stopped = other.daily("members")
        stops += stopped.exit_code != 0
        shop.recover_faults()
    assert stops > 2
    assert other.daily("members").exit_code == 0
    assert other.one("SELECT count(*) FROM members WHERE created_at IS NOT NULL") == PEOPLE
    readers, in_a_batch = 2, IN_A_BATCH // ON_A_PAGE + 1
    assert len(shop.sent("profiles")) <= undisturbed + stops * readers * in_a_batch


def test_people_who_change_during_the_sweep_are_not_lost(warehouse: Warehouse, shop: FakeAccount) -> None:
    """They move to the end of the order, which this run or the next one reads."""
    populate(shop, "even")

    def change() -> None:
        for number in range(0, PEOPLE, 3):
            shop.add_person(f"X{number:04}", datetime.now(UTC), created=FIRST, city="Cork")

    shop.before("profiles", change, page=5)
    assert warehouse.daily("members").exit_code == 0
    assert warehouse.daily("members").exit_code == 0
    expected = {each: person.city for each, (person, _) in shop.profiles.items()}
    assert dict(warehouse.rows("SELECT id, city FROM members")) == expected
