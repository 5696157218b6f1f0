"""People who must not be contacted never seem to be contactable, in either dialect and with each PERSONAL_DATA."""

from datetime import datetime
from typing import Any

import pytest

from klaviyo_pg.rows import Exclusion
from tests.fakes import LONG_AGO, Event, FakeAccount
from tests.integration.pipeline.conftest import Warehouse, days_ago

STATUS = "SELECT DISTINCT is_subscribed FROM member_lists WHERE member_id = 'P1'"
PROTECTED: dict[str, Any] = {"personal_data_salt": "a salt that is long enough for hashes"}


@pytest.fixture(autouse=True)
def looked_up(shop: FakeAccount) -> None:
    """Make the account one of the legacy dialect, in which lists say that the person P1 is subscribed."""
    shop.set_traits(lists_people=False, looks_up_memberships=True)
    shop.members = {each: [row._replace(is_subscribed=True) for row in rows] for each, rows in shop.members.items()}
    shop.add_metric("JOINED", "Subscribed to List")
    shop.events.append(Event("JOINED1", days_ago(3), "JOINED", "P1", "List L1"))


def change_dialect(shop: FakeAccount, consent: str | None, changed: datetime) -> None:
    """Read the account through the current dialect from now on."""
    shop.set_traits(lists_people=True, looks_up_memberships=False)
    shop.members = {each: [row._replace(is_subscribed=None) for row in rows] for each, rows in shop.members.items()}
    profile, _ = shop.profiles["P1"]
    shop.profiles["P1"] = (profile._replace(consent=consent), changed)


@pytest.mark.parametrize(("consent", "expected"), [("SUBSCRIBED", True), ("UNSUBSCRIBED", False), (None, None)])
def test_the_consent_counts_from_the_first_run_in_the_current_dialect_on(
    warehouse: Warehouse, shop: FakeAccount, consent: str | None, expected: bool | None
) -> None:
    """It takes the place of what lists said before, which the current dialect does not return."""
    warehouse.daily()
    assert warehouse.column(STATUS) == [True]
    change_dialect(shop, consent, days_ago(20))
    warehouse.daily(lookback_days=1, blind_lookback_days=1)
    assert warehouse.column(STATUS) == [expected]
    assert "member_lists" not in warehouse.daily(lookback_days=1, blind_lookback_days=1).changed()


@pytest.mark.parametrize(("personal_data", "expected"), [("keep", False), ("hash", False), ("drop", None)])
def test_an_excluded_address_is_not_contactable(
    warehouse: Warehouse, shop: FakeAccount, personal_data: str, expected: bool | None
) -> None:
    """Exclusions of the legacy dialect have an address only. Where addresses are dropped, nothing is known."""
    settings: dict[str, Any] = {"personal_data": personal_data, **({} if personal_data == "keep" else PROTECTED)}
    warehouse.daily(**settings)
    shop.exclusions.append(Exclusion("P1@example.com", "UNSUBSCRIBE", LONG_AGO))
    warehouse.daily(**settings)
    assert warehouse.column(STATUS) == [expected]


@pytest.mark.parametrize(
    ("excluded_before", "expected"),
    [pytest.param(True, False, id="excluded before"), pytest.param(False, None, id="excluded since")],
)
def test_who_is_excluded_stays_so_after_a_change_to_the_legacy_dialect(
    warehouse: Warehouse, shop: FakeAccount, excluded_before: bool, expected: bool | None
) -> None:
    """That dialect names no profile, and the warehouse has no address; the consent of the current dialect is stored."""
    settings = {"personal_data": "drop", **PROTECTED}
    change_dialect(shop, "SUBSCRIBED", days_ago(20))
    exclusion = Exclusion("P1@example.com", "UNSUBSCRIBE", LONG_AGO, "P1")
    shop.exclusions = [exclusion] if excluded_before else []
    warehouse.daily(**settings)
    assert warehouse.column(STATUS) == [not excluded_before]
    shop.set_traits(lists_people=False, looks_up_memberships=True)
    shop.exclusions = [exclusion._replace(member_id=None)]
    warehouse.daily(**settings)
    assert warehouse.column(STATUS) == [expected]
    if excluded_before:
        shop.exclusions.clear()
        warehouse.daily(**settings)
        assert warehouse.column(STATUS) == [None], "the exclusion has ended, and nothing is known again"


@pytest.mark.parametrize("personal_data", ["keep", "hash"])
@pytest.mark.parametrize(
    ("address", "excluded"),
    [
        pytest.param("P1@example.com", "p1@example.com", id="person in capitals"),
        pytest.param("p1@example.com", "P1@EXAMPLE.COM", id="exclusion in capitals"),
    ],
)
def test_an_address_is_excluded_however_it_is_written(
    warehouse: Warehouse, shop: FakeAccount, personal_data: str, address: str, excluded: str
) -> None:
    """The exclusion begins and ends after the person was stored."""
    settings: dict[str, Any] = {"personal_data": personal_data, **({} if personal_data == "keep" else PROTECTED)}
    profile, updated = shop.profiles["P1"]
    shop.profiles["P1"] = profile._replace(email=address), updated
    warehouse.daily(**settings)
    shop.exclusions.append(Exclusion(excluded, "UNSUBSCRIBE", LONG_AGO))
    warehouse.daily(**settings)
    assert warehouse.column(STATUS) == [False]
    shop.exclusions.clear()
    warehouse.daily(**settings)
    assert warehouse.column(STATUS) == [True]


def test_two_spellings_of_an_excluded_address_are_stored(warehouse: Warehouse, shop: FakeAccount) -> None:
    """They have the same hash, so they are one row: the one with the latest time."""
    for number, address in enumerate(("p1@example.com", "P1@example.com", "P1@EXAMPLE.COM")):
        shop.exclusions.append(Exclusion(address, "UNSUBSCRIBE", LONG_AGO.replace(year=2022 - number)))
    ran = warehouse.daily(personal_data="hash", **PROTECTED)
    assert ran.state == "complete"
    assert warehouse.column("SELECT extract(year FROM created_at) FROM member_exclusions") == [2022]
    assert "member_exclusions" not in warehouse.daily(personal_data="hash", **PROTECTED).changed()
