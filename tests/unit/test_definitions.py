"""The account and its definitions, from pages of the current dialect to rows."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from klaviyo_pg.rows import Account, CustomMetric, MappedMetric
from tests.any_page import ACCOUNT, source
from transforms import definitions

AT = "2026-07-01T00:00:00+00:00"
JULY = datetime(2026, 7, 1, tzinfo=UTC)
GROUPS = [{"metric_id": "m2", "metric_filters": None}, {"metric_id": "m1"}, {"metric_id": "m1"}]
DEFINITION = {"aggregation_method": "value", "metric_groups": GROUPS}
NOTHING = CustomMetric("c1", None, None, "[]", None, None, None)


def body(*rows: object) -> bytes:
    return json.dumps({"data": rows, "links": {"next": None}}).encode()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {"attributes": {"name": "Sales", "definition": DEFINITION, "created": AT, "updated": AT.replace("T", " ")}},
            CustomMetric(
                "c1", "Sales", "value", '["m1","m2"]', json.dumps(DEFINITION, separators=(",", ":")), JULY, JULY
            ),
            id="all",
        ),
        pytest.param({}, NOTHING, id="id only"),
        pytest.param({"attributes": None}, NOTHING, id="null"),
        pytest.param({"attributes": {"name": 7, "definition": 8, "created": 9}}, NOTHING._replace(name="7"), id="odd"),
        pytest.param(
            {"attributes": {"definition": {"metric_groups": [None, {}, 7]}}},
            NOTHING._replace(definition='{"metric_groups":[null,{},7]}'),
            id="odd groups",
        ),
    ],
)
def test_custom_metrics_are_read_whatever_is_missing(row: dict[str, Any], expected: CustomMetric) -> None:
    [page] = source("current", body({"type": "custom-metric", "id": "c1", **row}, {"id": 7})).custom_metrics()
    assert list(page.rows) == [expected]
    assert len(page.rejects) == 1
    assert definitions.custom_metrics(page.rows, ACCOUNT).frame.height == 1


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {
                "attributes": {"updated": AT},
                "relationships": {"metric": {"data": {"id": "m1"}}, "custom-metric": {"data": None}},
            },
            MappedMetric("revenue", "m1", None, JULY),
            id="all",
        ),
        pytest.param({}, MappedMetric("revenue", None, None, None), id="id only"),
        pytest.param({"attributes": 1, "relationships": []}, MappedMetric("revenue", None, None, None), id="odd"),
        pytest.param(
            {"relationships": {"metric": {"data": {"id": 7}}, "custom-metric": {"links": {}}}},
            MappedMetric("revenue", None, None, None),
            id="odd ids",
        ),
    ],
)
def test_mapped_metrics_are_read_whatever_is_missing(row: dict[str, Any], expected: MappedMetric) -> None:
    [page] = source("current", body({"id": "revenue", **row})).mapped_metrics()
    assert (list(page.rows), list(page.rejects)) == ([expected], [])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param(
            {
                "contact_information": {"organization_name": "Shop", "website_url": "https://shop.example.com"},
                "timezone": "Europe/Oslo",
                "preferred_currency": "NOK",
                "test_account": False,
                "locale": "nb-NO",
            },
            Account("A1", "Shop", "https://shop.example.com", None, "Europe/Oslo", "NOK", "nb-NO", False),
            id="all",
        ),
        pytest.param(None, Account("A1"), id="null"),
        pytest.param({"contact_information": [], "test_account": "no"}, Account("A1"), id="odd"),
    ],
)
def test_an_account_is_read_whatever_is_missing(attributes: Any, expected: Account) -> None:
    assert source("current", body({"id": "A1", "attributes": attributes})).account() == expected


def test_the_legacy_dialect_has_none_of_them() -> None:
    legacy = source("legacy", b"{}")
    assert (legacy.account(), list(legacy.custom_metrics()), list(legacy.mapped_metrics())) == (None, [], [])
