"""Segments, and the members of those that SEGMENTS names: who joined, who left, and what cannot be read."""

from dataclasses import replace
from hashlib import sha256

import pytest

from klaviyo_pg.errors import BadAnswer, MissingScope, UnknownSegment
from klaviyo_pg.postgres.erasing import erase
from klaviyo_pg.rows import Group, Membership, Reject
from klaviyo_pg.windows import FULL_READ
from pipeline.runs import transact
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import HOUR, Warehouse, days_ago
from tests.runs import Result

ONLY = ("segments", "segment_members")
BUYERS = Group("S1", "Buyers, often", LONG_AGO, is_active=True, is_starred=False, is_processing=False)
PRESENT = "SELECT member_id FROM segment_members WHERE left_at IS NULL ORDER BY 1"
EVERYWHERE = "SELECT segment_id, member_id FROM segment_members WHERE left_at IS NULL ORDER BY 1, 2"
LEFT = "SELECT member_id FROM segment_members WHERE left_at IS NOT NULL ORDER BY 1"
EVERYONE = [f"P{number}" for number in range(9)]


@pytest.fixture(autouse=True)
def segments(shop: FakeAccount) -> None:
    """Give the account three segments, of which two have the same name. P0 to P8 are in the first one."""
    shop.rows_per_page = 3
    shop.segments += [BUYERS, Group("S2", "Twin", LONG_AGO), Group("S3", "Twin", LONG_AGO)]
    shop.members |= {"S1": [], "S2": [], "S3": []}
    for number, person in enumerate(EVERYONE):
        shop.add_person(person, days_ago(20))
        shop.add_member("S1", person, days_ago(19) + number * HOUR)


def later(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Make the segments' sweeps due."""
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '8 days'")
    warehouse.execute("UPDATE missing_rows SET missed_at = missed_at - interval '1 hour'")
    shop.recover()


def daily(warehouse: Warehouse, *names: str) -> Result:
    return warehouse.daily(*ONLY, segments=names or ("S1",))


def leave(shop: FakeAccount, *people: str) -> None:
    shop.members["S1"] = [each for each in shop.members["S1"] if each.member_id not in people]


def test_members_of_named_segments_are_stored_with_their_keys(warehouse: Warehouse, shop: FakeAccount) -> None:
    """None are read by default. Another account has separate rows, and a second run changes nothing."""
    assert warehouse.daily(*ONLY).state == "complete"
    assert warehouse.one("SELECT count(*) FROM segment_members") == 0
    assert warehouse.rows("SELECT id, name, is_active, is_starred, is_processing FROM segments ORDER BY id") == [
        ("S1", "Buyers, often", True, False, False),
        ("S2", "Twin", None, None, None),
        ("S3", "Twin", None, None, None),
    ]
    other = FakeAccount(account_id="OTHER", segments=[BUYERS], members={"S1": [Membership("S1", "P0", days_ago(1))]})
    second = replace(warehouse.variant(klaviyo_integration="other"), open_source=other.open)
    assert (daily(warehouse, BUYERS.name or "").state, daily(second).state) == ("complete", "complete")
    joined = (
        "SELECT s.id, m.id, x.joined_at FROM segment_members x JOIN segments s ON s.key = x.segment_key"
        " JOIN members m ON m.member_key = x.member_key AND m.esp_integration_id = x.esp_integration_id"
        " JOIN integrations i ON i.esp_integration_id = x.esp_integration_id WHERE i.name"
    )
    assert warehouse.rows(f"{joined} = 'shop' ORDER BY 2") == [
        ("S1", person, days_ago(19) + number * HOUR) for number, person in enumerate(EVERYONE)
    ]
    assert warehouse.rows(f"{joined} = 'other'") == [("S1", "P0", days_ago(1))]
    assert daily(warehouse).changed() == daily(second).changed() == {}
    row = "FROM freshness WHERE stream = 'segment_members/S1' AND integration = 'shop'"
    assert warehouse.rows(f"SELECT name, table_name {row}") == [(BUYERS.name, "segment_members")]


def test_only_a_full_read_finds_who_has_left(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Until one is due, only new members are read. Who returns is present again, with the new time."""
    daily(warehouse)
    leave(shop, "P4")
    shop.add_person("P9", days_ago(1))
    shop.add_member("S1", "P9", days_ago(1))
    shop.recover()
    daily(warehouse)
    assert FULL_READ not in [each.window for each in shop.sent("memberships", "S1")]
    assert warehouse.column(PRESENT) == [*EVERYONE, "P9"]
    later(warehouse, shop)
    ran = daily(warehouse)
    assert (ran.state, warehouse.column(LEFT)) == ("complete", ["P4"])
    assert [each.window for each in shop.sent("memberships", "S1")] == [FULL_READ] * 3
    assert warehouse.one("SELECT count(*) FROM swept_members") == 0
    later(warehouse, shop)
    shop.add_member("S1", "P4", days_ago(2))
    daily(warehouse)
    assert (warehouse.column(LEFT), len(warehouse.column(PRESENT))) == ([], 10)
    assert warehouse.one("SELECT joined_at FROM segment_members WHERE member_id = 'P4'") == days_ago(2)


def test_what_is_not_a_complete_read_makes_nobody_leave(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A later run reads these segments in full again, and then believes it, unless the segment is gone.

    The first segment has a record that cannot be read, the second is being computed, the third has been deleted, and
    the fourth loses nearly everybody.
    """
    names = ("S1", "S2", "S3", "S4")
    shop.segments.append(Group("S4", "Many", LONG_AGO))
    shop.members["S4"] = [Membership("S4", f"M{number:02}", days_ago(9)) for number in range(15)]
    for segment_id in ("S2", "S3"):
        shop.members[segment_id] = [Membership(segment_id, person, days_ago(9)) for person in ("P0", "P1")]
    daily(warehouse, *names)
    stored = warehouse.rows(EVERYWHERE)
    assert len(stored) == 9 + 2 + 2 + 15
    later(warehouse, shop)
    leave(shop, "P4")
    shop.unreadable["memberships", 1] = Reject("{}", "No ID.")  # the others have one page
    shop.segments[1] = shop.segments[1]._replace(is_processing=True)
    del shop.members["S2"][1:], shop.members["S3"], shop.members["S4"][2:]
    ran = daily(warehouse, *names)
    assert (ran.state, warehouse.rows(EVERYWHERE)) == ("partial", stored)
    assert "lacks 13 of 15 stored rows of segment_members/S4" in ran.sentences[0]
    shop.unreadable.clear()
    shop.segments[1] = shop.segments[1]._replace(is_processing=False)
    later(warehouse, shop)
    assert daily(warehouse, *names).state == "complete"
    gone = {("S1", "P4"), ("S2", "P1"), *(("S4", f"M{number:02}") for number in range(2, 15))}
    assert warehouse.rows(EVERYWHERE) == sorted(set(stored) - gone)


def test_an_interrupted_full_read_resumes(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Members that it found before the interruption count as present."""
    daily(warehouse)
    leave(shop, "P4")
    later(warehouse, shop)
    shop.fail("memberships", BadAnswer(), page=2, times=1)
    failed = daily(warehouse)
    assert (failed.state, warehouse.column(LEFT)) == ("failed", [])
    assert warehouse.one("SELECT count(*) FROM swept_members") > 0
    shop.recover()
    resumed = daily(warehouse)
    assert (resumed.run.id, resumed.state) == (failed.run.id, "complete")
    assert FULL_READ not in [each.window for each in shop.sent("memberships", "S1")]
    assert warehouse.column(LEFT) == ["P4"]


def test_a_name_that_does_not_say_which_segment_is_meant_leaves_out_nothing_else(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    """Each is said in a sentence, and the run is partial. If segments cannot be read, it says only that."""
    shop.fail("segments", MissingScope("segments:read"))
    assert daily(warehouse).sentences == [str(MissingScope("segments:read"))]
    shop.recover()
    ran = daily(warehouse, "Twin", "buyers", "S1")
    assert (ran.state, ran.exit_code, warehouse.column(PRESENT)) == ("partial", 3, EVERYONE)
    assert ran.sentences == [
        "SEGMENTS: 2 segments have the name 'Twin'. Use the ID of the one that you mean: S2, S3.",
        "SEGMENTS: the account has no segment with the name or ID 'buyers'. Use a name as Klaviyo shows it, including "
        "upper and lower case, or the ID.",
    ]
    shop.fail("segments", MissingScope("segments:read"))
    assert daily(warehouse).sentences == [str(MissingScope("segments:read"))]
    assert warehouse.column(PRESENT) == EVERYONE


def test_a_dialect_without_times_reads_segments_in_full_only(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Between its full reads, nothing looks fresher than it is. Without sweeps, every run is a full read."""
    shop.set_traits(looks_up_memberships=True)
    stream = "segment_members/S1"
    daily(warehouse)
    read_to = warehouse.watermarks()[stream]
    shop.recover()
    assert daily(warehouse).state == "complete"
    assert (shop.sent("memberships", "S1"), warehouse.watermarks()[stream]) == ([], read_to)
    warehouse.wait_for_the_next_second()
    assert warehouse.daily(*ONLY, segments=("S1",), membership_sweep_days=0).state == "complete"
    assert [each.window for each in shop.sent("memberships", "S1")] == [FULL_READ] * 3
    assert warehouse.watermarks()[stream] > read_to


def test_people_who_are_erased_stay_away(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The segment still has the person, and so has a full read of it."""
    first = daily(warehouse)
    with warehouse.open() as session:
        transact(session, first.run, lambda account: erase.request(account, (), ["P3"]))
    later(warehouse, shop)
    daily(warehouse)
    daily(warehouse)
    assert warehouse.column(PRESENT) == [each for each in EVERYONE if each != "P3"]
    assert warehouse.column(LEFT) == []


@pytest.mark.parametrize("mode", ["hash", "drop"])
def test_a_name_that_personal_data_hashes_can_be_used(warehouse: Warehouse, shop: FakeAccount, mode: str) -> None:
    """As Klaviyo shows it, or as it is stored. A name that no segment has is quoted as it was written."""
    name, salt = "Value above 1000000", "a salt of this test"
    shop.segments[0] = BUYERS._replace(name=name)
    protected = warehouse.variant(personal_data=mode, personal_data_salt=salt, tables=ONLY)
    assert protected.daily(segments=(name,)).state == "complete"
    assert protected.column(PRESENT) == EVERYONE
    [stored] = protected.column("SELECT name FROM segments WHERE id = 'S1'")
    assert stored == sha256((salt + name).encode()).hexdigest()[:32]
    assert protected.daily(segments=(stored,)).state == "complete"
    ran = protected.daily(segments=("Value above 2000000",))
    assert (ran.state, ran.sentences) == ("partial", [str(UnknownSegment("Value above 2000000"))])
