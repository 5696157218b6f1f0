"""The view `contactable` after daily runs of an account that changes."""

from typing import Any

import psycopg
import pytest

from klaviyo_pg.postgres.account import Account
from klaviyo_pg.rows import Consent, Exclusion
from tests.erasing import erase
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import Warehouse, days_ago
from tests.runs import search_path

EMAIL = "SELECT can_email, email_reason FROM contactable WHERE member_id = 'P7'"
SMS = "SELECT can_sms, sms_reason FROM contactable WHERE member_id = 'P7'"


@pytest.fixture(autouse=True)
def subscriber(shop: FakeAccount) -> None:
    """Add a person who has consented to emails and text messages."""
    consents = [Consent(channel, "SUBSCRIBED", True, timestamp=days_ago(3)) for channel in ("email", "sms")]
    shop.add_person("P7", days_ago(3), consent="SUBSCRIBED", consents=consents, phone_number="+15550100")


@pytest.mark.parametrize(
    ("metric", "query"),
    [
        pytest.param("Unsubscribed from Email Marketing", EMAIL, id="email"),
        pytest.param("Unsubscribed from Text Message Marketing", SMS, id="sms"),
    ],
)
def test_an_event_of_unsubscribing_counts_before_the_profile_is_read_again(
    warehouse: Warehouse, shop: FakeAccount, metric: str, query: str
) -> None:
    warehouse.daily()
    assert warehouse.rows(query) == [(True, None)]
    shop.add_metric("LEFT", metric)
    shop.add_events("LEFT", days_ago(1), person="P7")
    warehouse.daily()
    assert warehouse.rows(query) == [(False, "unsubscribed")]


def test_a_suppression_counts_before_the_profile_is_read_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily()
    shop.exclusions.append(Exclusion("p7@EXAMPLE.com", "HARD_BOUNCE", LONG_AGO, "P7"))
    warehouse.daily()
    assert warehouse.rows(EMAIL) == [(False, "suppressed")]
    assert warehouse.rows(SMS) == [(True, None)]


def test_an_erased_person_has_no_row(warehouse: Warehouse) -> None:
    warehouse.daily()
    with psycopg.connect(warehouse.url, options=search_path("klaviyo")) as connection:
        account = Account(connection, "klaviyo", warehouse.one("SELECT esp_integration_id FROM integrations"))
        with connection.transaction():
            erase(account, None, ["P7"])
    warehouse.daily()
    assert warehouse.rows(EMAIL) == []


def test_a_person_who_only_events_mention_is_unknown(warehouse: Warehouse, shop: FakeAccount) -> None:
    """With `drop` as well, where no address is stored of those whose profile was read."""
    settings: dict[str, Any] = {"personal_data": "drop", "personal_data_salt": "a salt that is long enough for hashes"}
    shop.add_person("P8", days_ago(3), consents=None)
    warehouse.daily(**settings)
    people = "SELECT member_id, can_email, email_reason, email FROM contactable WHERE member_id IN ('P7', 'P8')"
    assert sorted(warehouse.rows(people)) == [("P7", True, None, None), ("P8", None, "unknown", None)]
