"""The list of tables that can be selected: its groups, and what a selection means for each table."""

from typing import Any

import pytest

from klaviyo_pg.catalogue import DATA
from klaviyo_pg.cli.tables import groups, selected
from klaviyo_pg.settings import Settings


def test_each_table_is_in_one_group() -> None:
    listed = [name for names in groups().values() for name in names]
    assert sorted(listed) == sorted(table.name for table in DATA)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, {"sends": "yes", "campaign_lists": "yes", "accounts": "yes", "coupons": "no"}, id="default"),
        pytest.param({"tables": ["sends"]}, {"sends": "yes", "opens": "no", "members": "in part"}, id="events"),
        pytest.param({"tables": ["default", "coupons"]}, {"coupons": "yes", "coupon_codes": "no"}, id="on request"),
        pytest.param({"tables": ["-campaigns"]}, {"campaigns": "in part", "automations": "yes"}, id="left out"),
        pytest.param(
            {"tables": ["members"], "klaviyo_dialect": "legacy"}, {"members": "yes", "sends": "yes"}, id="legacy"
        ),
        pytest.param({}, {"segment_members": "needs SEGMENTS"}, id="no segments"),
        pytest.param({"segments": ["VIP"]}, {"segment_members": "yes"}, id="segments"),
    ],
)
def test_a_selection_selects_tables(settings: dict[str, Any], expected: dict[str, str]) -> None:
    states = selected(Settings(**settings))
    assert {name: states[name] for name in expected} == expected


@pytest.mark.parametrize("table", groups()["Opt-in tables and reports, which cost extra requests"])
def test_what_costs_extra_requests_is_not_selected_by_default(table: str) -> None:
    assert selected(Settings())[table] == "no"
