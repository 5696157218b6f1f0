"""Exclusions: a full read in chunks, of which each batch is stored and a killed run reads no more than the rest."""

from dataclasses import replace
from itertools import pairwise
from secrets import token_hex

import pytest

from klaviyo_pg.errors import BadAnswer, Refused
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import sweep_ledger
from klaviyo_pg.postgres.ledgers.sweep_ledger import Standing
from klaviyo_pg.rows import Exclusion, Reject
from klaviyo_pg.windows import FULL_READ
from pipeline.streams import STREAMS
from tests.driver import wait_until
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import DAY, Warehouse, days_ago
from tests.locks import WAITS

EXCLUDED = "SELECT email FROM member_exclusions WHERE removed_at IS NULL ORDER BY 1"
STAGED = "SELECT email FROM stg_member_exclusions ORDER BY 1"
ONLY = "member_exclusions"
REASONS = ("HARD_BOUNCE", "UNSUBSCRIBE")


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch, shop: FakeAccount) -> None:
    """Exclude twelve addresses, half of them for each reason, and store a batch for every two of them."""
    small = {name: replace(stream, batch_rows=2) for name, stream in STREAMS.items()}
    monkeypatch.setattr("pipeline.read.STREAMS", small)
    shop.rows_per_page = 2
    shop.set_traits(exclusion_reasons=REASONS)
    shop.exclusions += [Exclusion(address(each), REASONS[each % 2], LONG_AGO) for each in range(12)]


def address(number: int) -> str:
    return f"X{number:02}@example.com"


def addresses(*left_out: int) -> list[str]:
    return [address(each) for each in range(12) if each not in left_out]


def interrupt(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Store everything, end two exclusions of one reason, and let a run fail at the last page of that reason."""
    assert warehouse.daily(ONLY).state == "complete"
    assert warehouse.column(EXCLUDED) == warehouse.column(STAGED) == addresses()
    shop.exclusions[1] = shop.exclusions[1]._replace(reason="HARD_BOUNCE")
    shop.exclusions[3] = Exclusion("NEW@example.com", "UNSUBSCRIBE", LONG_AGO)
    shop.recover()
    shop.fail("exclusions", BadAnswer("Odd."), "UNSUBSCRIBE", page=2, times=1)
    assert warehouse.daily(ONLY).state == "failed"


def test_an_interrupted_read_resumes_at_its_checkpoint(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Addresses that were read before count as present, and new addresses are excluded at once."""
    interrupt(warehouse, shop)
    assert warehouse.column(EXCLUDED) == sorted(["NEW@example.com", *addresses()])
    shop.recover()
    assert warehouse.daily(ONLY).state == "complete"
    [window] = {each.window for each in shop.sent("exclusions", "UNSUBSCRIBE")}
    assert window.start is not None and window.start > LONG_AGO
    assert shop.sent("exclusions", "HARD_BOUNCE") == []
    assert warehouse.column(EXCLUDED) == warehouse.column(STAGED) == sorted(["NEW@example.com", *addresses(3)])
    assert warehouse.one("SELECT count(*) FROM swept_exclusions") == warehouse.one("SELECT count(*) FROM sweeps") == 0


def test_a_read_that_the_database_has_lost_ends_no_exclusion(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A crash of Postgres empties unlogged tables. Then a resumed run reads all chunks again."""
    interrupt(warehouse, shop)
    warehouse.execute("TRUNCATE swept_exclusions, sweeps")
    shop.recover()
    assert warehouse.daily(ONLY).state == "complete"
    for reason in REASONS:
        assert FULL_READ in [each.window for each in shop.sent("exclusions", reason)]
    assert warehouse.column(EXCLUDED) == warehouse.column(STAGED) == sorted(["NEW@example.com", *addresses(3)])


def test_a_run_that_loses_what_it_has_read_reads_it_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It need not be resumed for that."""
    assert warehouse.daily(ONLY).state == "complete"
    del shop.exclusions[3]
    shop.recover()
    shop.before("exclusions", lambda: warehouse.execute("TRUNCATE swept_exclusions, sweeps"), "HARD_BOUNCE", page=2)
    assert warehouse.daily(ONLY, concurrency=1).state == "complete"
    assert [each.page for each in shop.sent("exclusions", "HARD_BOUNCE")] == [0, 1, 2, 0, 1, 2]
    assert warehouse.column(EXCLUDED) == warehouse.column(STAGED) == addresses(3)


def test_one_of_two_chunks_that_end_at_the_same_time_ends_the_read(
    monkeypatch: pytest.MonkeyPatch, warehouse: Warehouse, shop: FakeAccount
) -> None:
    """The second waits for the first to commit. Otherwise each would leave the end to the other.

    One chunk is empty: no count of its rows has to wait either.
    """
    shop.exclusions[:] = [each._replace(reason=REASONS[0]) for each in shop.exclusions]
    assert warehouse.daily(ONLY).state == "complete"
    standing, looking = sweep_ledger.standing, list[Standing]()

    def look(account: Account, sweep: str, stream: str, last: tuple[str, str]) -> Standing:
        looking.append(standing(account, sweep, stream, last))
        if len(looking) == 1:
            wait_until(lambda: len(looking) == 2 or warehouse.one(WAITS), "the second waited")
        return looking[-1]

    monkeypatch.setattr(sweep_ledger, "standing", look)
    del shop.exclusions[3]
    assert warehouse.daily(ONLY).state == "complete"
    assert [each.is_done for each in looking] == [False, True]
    assert warehouse.column(EXCLUDED) == addresses(3)


def divide_by_year(monkeypatch: pytest.MonkeyPatch, warehouse: Warehouse) -> None:
    """Let each run read by year, from the year before the present one on."""
    monkeypatch.setattr("pipeline.plan.MANY_EXCLUSIONS", 1)
    warehouse.execute("UPDATE members SET created_at = date_trunc('year', now()) - interval '1 day'")


def test_a_run_that_resumes_keeps_its_windows(
    monkeypatch: pytest.MonkeyPatch, warehouse: Warehouse, shop: FakeAccount
) -> None:
    """Even if there are so many exclusions by then that a new run would read them by year."""
    monkeypatch.setattr("pipeline.plan.MANY_EXCLUSIONS", 7)
    shop.fail("exclusions", BadAnswer("Odd."), "UNSUBSCRIBE", page=2, times=1)
    assert warehouse.daily(concurrency=1).state == "failed"
    assert len(warehouse.column(EXCLUDED)) == 8
    divide_by_year(monkeypatch, warehouse)
    shop.recover()
    resumed = warehouse.daily()
    assert resumed.state == "complete"
    assert warehouse.watermarks()["exclusions"] == resumed.run.as_of
    assert warehouse.column(EXCLUDED) == warehouse.column(STAGED) == addresses()
    assert {each.window.end for each in shop.sent("exclusions")} == {None}


def test_a_window_that_is_not_planned_any_more_keeps_nothing_from_ending(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    """An earlier version may have planned it."""
    shop.fail("exclusions", BadAnswer("Odd."), "UNSUBSCRIBE", page=2, times=1)
    assert warehouse.daily(ONLY).state == "failed"
    warehouse.execute(
        "INSERT INTO chunks (run_id, esp_integration_id, stream, part, state)"
        " SELECT run_id, esp_integration_id, 'exclusions', '..', 'planned' FROM runs"
    )
    shop.recover()
    resumed = warehouse.daily(ONLY)
    assert warehouse.watermarks()["exclusions"] == resumed.run.as_of


def test_exclusions_that_a_resumed_run_reads_again_are_read_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, warehouse: Warehouse, shop: FakeAccount
) -> None:
    """Past years as well, although they have an end: only the whole shows which exclusions have ended."""
    assert warehouse.daily().state == "complete"
    divide_by_year(monkeypatch, warehouse)
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '8 days'")
    shop.fail("profile_ids", BadAnswer("Odd."))
    assert warehouse.daily().state == "failed"
    assert warehouse.column("SELECT DISTINCT right(part, 2) = '..' FROM chunks WHERE stream ~ '^exclusions/'") == [
        False,
        True,
    ]
    warehouse.execute("UPDATE chunks SET done_at = done_at - interval '2 minutes'")
    del shop.exclusions[5]
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert warehouse.column(EXCLUDED) == warehouse.column(STAGED) == addresses(5)
    assert (
        warehouse.column("SELECT sweep FROM swept_exclusions UNION SELECT sweep FROM sweeps WHERE found IS NULL") == []
    )


def test_the_latest_reason_stays_whichever_chunk_is_read_last(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Reading it again writes nothing: neither does another order of the chunks."""
    shop.exclusions[:] = [
        Exclusion("A@example.com", "HARD_BOUNCE", LONG_AGO + DAY),
        Exclusion("A@example.com", "UNSUBSCRIBE", LONG_AGO),
        Exclusion("B@example.com", "HARD_BOUNCE", LONG_AGO),
        Exclusion("B@example.com", "UNSUBSCRIBE", LONG_AGO + DAY),
    ]
    stored = "SELECT email, reason, xmin::text FROM {} ORDER BY 1"
    rows = []
    for reasons in (REASONS, REASONS[::-1], REASONS):
        shop.set_traits(exclusion_reasons=reasons)
        assert warehouse.daily(ONLY, concurrency=1).state == "complete"
        rows.append([warehouse.rows(stored.format(each)) for each in (ONLY, "stg_member_exclusions")])
    assert all(before == after for before, after in pairwise(rows))
    assert [row[:2] for row in rows[0][0]] == [("A@example.com", "HARD_BOUNCE"), ("B@example.com", "UNSUBSCRIBE")]


def test_an_exclusion_without_a_time_keeps_the_stored_one(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A page can leave the suppression of a person out. They stay excluded, since the stored time."""
    shop.add_person("P1", LONG_AGO, email=address(0), consent="SUBSCRIBED")
    assert warehouse.daily().state == "complete"
    shop.exclusions[0] = Exclusion(address(0), REASONS[0], None, "P1")
    shop.exclusions.append(Exclusion("NEW@example.com", REASONS[0], None))
    ran = warehouse.daily()
    assert ran.state == "complete"
    for table in (ONLY, "stg_member_exclusions"):
        stored = f"SELECT created_at FROM {table} WHERE email IN ('{address(0)}', 'NEW@example.com') ORDER BY email"
        assert warehouse.column(stored) == [None, LONG_AGO]
    assert warehouse.column(EXCLUDED) == sorted(["NEW@example.com", *addresses()])
    assert warehouse.column("SELECT DISTINCT is_subscribed FROM member_lists WHERE member_id = 'P1'") == [False]


def test_an_unreadable_record_ends_no_exclusion(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The readable ones are stored."""
    assert warehouse.daily(ONLY).state == "complete"
    shop.exclusions[:6] = [Exclusion(address(0), "UNSUBSCRIBE", LONG_AGO + DAY)]
    shop.unreadable["exclusions", 0] = Reject("7", "Not a profile.")
    ran = warehouse.daily(ONLY)
    assert ran.state == "complete"
    assert warehouse.column(EXCLUDED) == addresses()
    assert warehouse.one("SELECT reason FROM member_exclusions WHERE email = 'X00@example.com'") == "UNSUBSCRIBE"
    assert warehouse.watermarks()["exclusions"] == ran.run.as_of
    shop.unreadable.clear()
    assert warehouse.daily(ONLY).state == "complete"
    assert warehouse.column(EXCLUDED) == addresses(1, 2, 3, 4, 5)


@pytest.mark.parametrize("page", [0, 1])
def test_a_resumed_read_meets_an_unreadable_record_again(warehouse: Warehouse, shop: FakeAccount, page: int) -> None:
    """It was in a batch that is stored, but no checkpoint follows it. So no exclusion ends because of it."""
    assert warehouse.daily(ONLY).state == "complete"
    del shop.exclusions[3]
    shop.recover()
    before: dict[tuple[str, int], Reject] = {("exclusions", page): Reject("7", "Not a profile.")}
    shop.unreadable.update(before)
    shop.fail("exclusions", BadAnswer("Odd."), "UNSUBSCRIBE", page=2, times=1)
    assert warehouse.daily(ONLY).state == "failed"
    shop.recover_faults()
    assert warehouse.daily(ONLY).state == "complete"
    assert warehouse.column(EXCLUDED) == addresses()


def test_a_resumed_read_remembers_an_unreadable_record(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It need not meet it again: a record whose time is unreadable, too, is not in any window that has a start."""
    shop.exclusions += [Exclusion(address(each), "UNSUBSCRIBE", LONG_AGO) for each in range(12, 18)]
    assert warehouse.daily(ONLY).state == "complete"
    del shop.exclusions[3]
    shop.recover()
    shop.unreadable["exclusions", 3] = Reject("7", "Not a profile.")
    shop.fail("exclusions", BadAnswer("Odd."), "UNSUBSCRIBE", page=5, times=1)
    assert warehouse.daily(ONLY).state == "failed"
    shop.unreadable.clear()
    assert warehouse.daily(ONLY).state == "complete"
    assert warehouse.column(EXCLUDED) == [address(each) for each in range(18)]


def test_an_exclusion_that_cannot_be_stored_ends_no_exclusion(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It is rejected in any batch of any chunk, and the address that was stored for it stays excluded."""
    assert warehouse.daily(ONLY).state == "complete"
    shop.exclusions[0] = Exclusion(address(0), REASONS[0], LONG_AGO, token_hex(2000))
    del shop.exclusions[5]
    shop.unreadable["exclusions", 0] = Reject("7", "A profile without an address.", hides=False)
    assert warehouse.daily(ONLY).state == "complete"
    assert warehouse.column(EXCLUDED) == warehouse.column(STAGED) == addresses()
    reasons = warehouse.column("SELECT reason FROM rejects WHERE table_name = 'member_exclusions'")
    assert "A value of member_id is longer than 2,000 bytes." in reasons
    shop.unreadable.clear()
    shop.exclusions[0] = Exclusion(address(0), REASONS[0], LONG_AGO, "P0")
    assert warehouse.daily(ONLY).state == "complete"
    assert warehouse.column(EXCLUDED) == warehouse.column(STAGED) == addresses(5)


def test_an_exclusion_that_the_sweep_cannot_store_ends_no_exclusion(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Its table is changed during the run, and refuses one of the addresses."""
    shop.exclusions.append(Exclusion("longer@example.com", REASONS[0], LONG_AGO))
    assert warehouse.daily(ONLY).state == "complete"
    shorten = "ALTER TABLE swept_exclusions ALTER email TYPE varchar(15)"
    shop.before("exclusions", lambda: warehouse.execute(shorten), REASONS[0])
    del shop.exclusions[5]
    assert warehouse.daily(ONLY).state == "complete"
    assert warehouse.column(EXCLUDED) == warehouse.column(STAGED) == [*addresses(), "longer@example.com"]


def test_events_come_before_exclusions(warehouse: Warehouse, shop: FakeAccount) -> None:
    """With one reader, which reads chunks in their order."""
    assert warehouse.daily(concurrency=1).state == "complete"
    kinds = [each.kind for each in shop.requests]
    assert kinds.index("exclusions") > max(at for at, kind in enumerate(kinds) if kind == "events")


@pytest.mark.parametrize("tables", [(), ("member_lists",)], ids=["all", "one table"])
def test_member_lists_are_not_derived_before_all_exclusions_were_read_once(
    warehouse: Warehouse, shop: FakeAccount, tables: tuple[str, ...]
) -> None:
    """Klaviyo may refuse one of their reasons; people who have it would seem to be contactable."""
    shop.add_person("P0", LONG_AGO, email=address(1), consent="SUBSCRIBED")
    shop.fail("exclusions", Refused("No."), "UNSUBSCRIBE")
    ran = warehouse.daily(*tables)
    assert ran.state == "partial"
    assert "member_lists was not derived, because the exclusions were never read completely." in ran.sentences
    assert warehouse.column("SELECT member_id FROM member_lists") == []
    shop.recover()
    assert warehouse.daily(*tables).state == "complete"
    assert warehouse.column("SELECT DISTINCT is_subscribed FROM member_lists WHERE member_id = 'P0'") == [False]
    shop.fail("exclusions", Refused("No."), "UNSUBSCRIBE")
    shop.add_member("L2", "P0", days_ago(0))
    assert warehouse.daily(*tables).state == "partial"
    assert warehouse.column("SELECT is_subscribed FROM member_lists WHERE member_id = 'P0'") == [False, False]


def test_a_run_that_reads_lists_reads_exclusions_too(warehouse: Warehouse, shop: FakeAccount) -> None:
    lists_alone = "lists", "stg_member_lists"
    assert warehouse.daily(*lists_alone).sentences == []
    assert warehouse.column(EXCLUDED) == addresses()
    assert warehouse.daily("campaigns").sentences == []


def test_a_run_that_stops_before_exclusions_leaves_member_lists(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Otherwise people who are suppressed would seem to be contactable until the run is resumed."""
    subscribed = "SELECT DISTINCT is_subscribed FROM member_lists WHERE member_id = 'P1'"
    shop.add_person("P1", LONG_AGO, consent="UNSUBSCRIBED")
    assert warehouse.daily().state == "complete"
    warehouse.wait_for_the_next_second()
    shop.add_person("P1", days_ago(0), consent="SUBSCRIBED")
    shop.exclusions.append(Exclusion("P1@example.com", "HARD_BOUNCE", LONG_AGO, "P1"))
    shop.before("exclusions", warehouse.stop, "HARD_BOUNCE")
    assert warehouse.daily(concurrency=1).state == "stopped"
    assert warehouse.column("SELECT consent FROM members WHERE id = 'P1'") == ["SUBSCRIBED"]
    assert warehouse.column(subscribed) == [False]
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert warehouse.column(subscribed) == [False]
