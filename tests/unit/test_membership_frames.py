"""Exclusions and list memberships on their way into their staging tables."""

import hashlib
from datetime import UTC, datetime

import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.klaviyo.rows import Exclusion, Membership
from transforms.membership import exclusions, memberships

EARLY, LATE = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@pytest.mark.parametrize("account_id", ["ACC123", None])
def test_every_column_of_an_exclusion(account_id: str | None) -> None:
    """The address is the identity; staging and final table take the same frame."""
    frame = exclusions([Exclusion("zoë@example.com", "HARD_BOUNCE", EARLY)], account_id).frame
    assert dict(frame.schema) == loads.STG_MEMBER_EXCLUSIONS.schema == loads.MEMBER_EXCLUSIONS.schema
    assert frame.row(0, named=True) == {
        "reason": "HARD_BOUNCE",
        "created_at": EARLY,
        "_account_id": account_id,
        "_sync_id": md5("zoë@example.com"),
        "email": "zoë@example.com",
    }


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        pytest.param([("SPAM_COMPLAINT", LATE), ("HARD_BOUNCE", EARLY)], "SPAM_COMPLAINT", id="the later"),
        pytest.param([("A", None), ("B", EARLY), ("C", None)], "B", id="one with a time before those without"),
        pytest.param([("B", EARLY), ("A", EARLY)], "B", id="at one time the last by name"),
        pytest.param([("A", EARLY), ("A\x00", EARLY)], "A", id="the same twice"),
    ],
)
def test_of_reasons_for_one_address_the_latest_stays(found: list[tuple[str, datetime | None]], reason: str) -> None:
    """One row for each address, and the same one in whatever order the reasons were read."""
    rows = [Exclusion("a@example.com", why, since) for why, since in found]
    for order in (rows, rows[::-1]):
        assert exclusions([Exclusion("b@example.com", "X", None), *order], None).frame.sort("email")[
            "reason"
        ].to_list() == [reason, "X"]


@pytest.mark.parametrize("account_id", ["ACC123", None])
def test_every_column_of_a_membership(account_id: str | None) -> None:
    """List and person together are the identity."""
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


def test_of_a_membership_that_was_read_twice_the_last_reading_stays() -> None:
    """Who left and joined while the list was read is on two of its pages."""
    found = [Membership("L1", "p1", EARLY), Membership("L1", "p2", EARLY), Membership("L1", "p1", LATE)]
    assert memberships(found, None).frame.select("member_id", "created_at").rows() == [("p2", EARLY), ("p1", LATE)]


def test_nothing_is_no_rows() -> None:
    """Empty collections make empty frames of the right shape."""
    assert dict(exclusions([], None).frame.schema) == loads.STG_MEMBER_EXCLUSIONS.schema
    assert dict(memberships([], None).frame.schema) == loads.STG_MEMBER_LISTS.schema
