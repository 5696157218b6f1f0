"""The frames of exclusions and list memberships."""

import hashlib
from datetime import UTC, datetime

import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.rows import Exclusion, Membership
from transforms.membership import exclusions, memberships, segment_members

EARLY, LATE = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@pytest.mark.parametrize("account_id", ["ACC123", None])
def test_all_columns_of_an_exclusion_are_filled(account_id: str | None) -> None:
    """The key is that of the address. The staging table and the final table share the frame."""
    frame = exclusions([Exclusion("zoë@example.com", "HARD_BOUNCE", EARLY, "p1")], account_id).frame
    assert dict(frame.schema) == loads.STG_MEMBER_EXCLUSIONS.schema == loads.MEMBER_EXCLUSIONS.schema
    assert frame.row(0, named=True) == {
        "reason": "HARD_BOUNCE",
        "created_at": EARLY,
        "_account_id": account_id,
        "_sync_id": md5("zoë@example.com"),
        "email": "zoë@example.com",
        "member_id": "p1",
    }


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        pytest.param([("SPAM_COMPLAINT", LATE), ("HARD_BOUNCE", EARLY)], "SPAM_COMPLAINT", id="the latest"),
        pytest.param([("A", None), ("B", EARLY), ("C", None)], "B", id="one with a time wins over those without"),
        pytest.param([("B", EARLY), ("A", EARLY)], "B", id="at the same time the last by name"),
        pytest.param([("A", EARLY), ("A\x00", EARLY)], "A", id="the same twice"),
    ],
)
def test_of_reasons_for_one_address_the_latest_stays(reasons: list[tuple[str, datetime | None]], expected: str) -> None:
    """The order in which the reasons were read does not matter."""
    rows = [Exclusion("a@example.com", why, since) for why, since in reasons]
    for order in (rows, rows[::-1]):
        assert exclusions([Exclusion("b@example.com", "X", None), *order], None).frame.sort("email")[
            "reason"
        ].to_list() == [expected, "X"]


@pytest.mark.parametrize("account_id", ["ACC123", None])
def test_all_columns_of_a_membership_are_filled(account_id: str | None) -> None:
    """The key combines list and person."""
    frame = memberships([Membership("L1", "p1", EARLY)], account_id).frame
    assert dict(frame.schema) == loads.STG_MEMBER_LISTS.schema
    assert frame.row(0, named=True) == {
        "list_id": "L1",
        "member_id": "p1",
        "created_at": EARLY,
        "_account_id": account_id,
        "_sync_id": md5("L1:p1"),
        "is_subscribed": None,
    }


def test_of_a_membership_that_was_read_twice_the_last_row_stays() -> None:
    """A person who leaves and joins again during the read is on two pages."""
    read = [Membership("L1", "p1", EARLY), Membership("L1", "p2", EARLY), Membership("L1", "p1", LATE)]
    assert memberships(read, None).frame.select("member_id", "created_at").rows() == [("p2", EARLY), ("p1", LATE)]


def test_all_columns_of_a_member_of_a_segment_are_filled() -> None:
    """Of a person who is on two pages, the last row stays."""
    read = [Membership("S1", "p1", EARLY), Membership("S1", "p\x002", None), Membership("S1", "p1", LATE)]
    cleaned = segment_members(read, "one")
    assert dict(cleaned.frame.schema) == loads.SEGMENT_MEMBERS.schema
    assert (cleaned.nul_characters, cleaned.frame["id"].to_list()) == (1, ["S1:p2", "S1:p1"])
    assert cleaned.frame.row(1, named=True) == {
        "key": md5("Klaviyo:one:S1:p1"),
        "id": "S1:p1",
        "segment_id": "S1",
        "segment_key": md5("Klaviyo:one:S1"),
        "member_id": "p1",
        "member_key": md5("p1"),
        "joined_at": LATE,
    }


def test_no_rows_make_empty_frames() -> None:
    """The empty frames have the schema of their loads."""
    assert dict(exclusions([], None).frame.schema) == loads.STG_MEMBER_EXCLUSIONS.schema
    assert dict(memberships([], None).frame.schema) == loads.STG_MEMBER_LISTS.schema
