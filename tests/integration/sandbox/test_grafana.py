"""The Grafana dashboard: the query of each panel returns rows, with the rights of grafana/role.sql and no others.

Grafana does not run here. Its variables and macros are replaced as its Postgres data source replaces them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction
from psycopg.postgres import types

from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, ROOT
from tests.runs import Warehouse

FOLDER = ROOT / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboards" / "klaviyo.json").read_text("utf-8"))
VARIABLES: dict[str, dict[str, Any]] = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
PANELS = [pytest.param(each, id=each["title"]) for each in DASHBOARD["panels"] if each["type"] != "row"]
WITH_UNIT = {types[name].oid for name in ("int2", "int4", "int8", "float8", "numeric", "timestamptz")}
PASSWORD = "password-of-grafana"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account with a month of events."""
    with running(members=100, events=4_000, days=28, until=MIDNIGHT) as box:
        yield box


@pytest.fixture(scope="module")
def grafana(warehouse: Warehouse) -> Iterator[psycopg.Connection]:
    """A connection with Grafana's role to a warehouse that daily runs have filled from two accounts."""
    for name in ("default", "other-shop"):
        assert warehouse.daily(klaviyo_integration=name, first_sync_days=60).exit_code == 0
    with psycopg.connect(warehouse.url, autocommit=True) as owner:
        for _ in range(2):  # it can be repeated
            owner.execute((FOLDER / "role.sql").read_bytes())
        owner.execute("ANALYZE")  # as Postgres does by itself within minutes
        owner.execute(f"ALTER ROLE grafana PASSWORD '{PASSWORD}'")
    conninfo = make_conninfo(warehouse.url, user="grafana", password=PASSWORD)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        yield connection


def accounts(grafana: psycopg.Connection) -> dict[str, str]:
    """Return the choices of the dashboard's account filter: names and values."""
    cursor = grafana.execute(VARIABLES["account"]["query"])
    assert [column.name for column in cursor.description or ()] == ["__text", "__value"]
    return dict(cursor.fetchall())


def asked(panel: dict[str, Any], chosen: Sequence[str]) -> bytes:
    """Return the query of a panel for these accounts and the dashboard's time range, as Grafana sends it."""
    start, end = datetime.now(UTC) - timedelta(days=30), datetime.now(UTC)
    (target,) = panel["targets"]
    query = target["rawSql"].replace("${account:sqlstring}", ",".join(f"'{each}'" for each in chosen))
    query = re.sub(
        r"\$__timeFilter\(((?:[^()]|\([^()]*\))+)\)", rf"\1 BETWEEN '{start:%FT%TZ}' AND '{end:%FT%TZ}'", query
    )
    query = query.replace("$__timeFrom()", f"'{start:%FT%TZ}'").replace("$__timeTo()", f"'{end:%FT%TZ}'")
    assert "$" not in query
    return bytes(query, "utf-8")


@pytest.mark.parametrize("panel", PANELS)
def test_each_panel_returns_rows_of_every_account(panel: dict[str, Any], grafana: psycopg.Connection) -> None:
    rows = grafana.execute(asked(panel, list(accounts(grafana).values()))).fetchall()
    assert rows
    names = {name for row in rows for name in ("default", "other-shop") if name in str(row)}
    assert names in (set(), {"default", "other-shop"})


@pytest.mark.parametrize("panel", PANELS)
def test_the_account_filter_reaches_each_panel(panel: dict[str, Any], grafana: psycopg.Connection) -> None:
    chosen = accounts(grafana)["default"]
    rows = grafana.execute(asked(panel, [chosen])).fetchall()
    assert "other-shop" not in str(rows)
    assert "${account:sqlstring}" in panel["targets"][0]["rawSql"]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_follows_the_time_range_or_says_that_it_does_not(panel: dict[str, Any]) -> None:
    follows = re.search(r"\$__time(Filter|From)\(", panel["targets"][0]["rawSql"]) is not None
    assert follows != ("whatever the time range is" in panel["description"])


@pytest.mark.parametrize("panel", PANELS)
def test_each_number_and_time_has_a_unit(panel: dict[str, Any], grafana: psycopg.Connection) -> None:
    columns = grafana.execute(asked(panel, list(accounts(grafana).values()))).description or ()
    options = panel["fieldConfig"]
    if "unit" in options["defaults"]:
        return
    units = {
        each["matcher"]["options"]
        for each in options["overrides"]
        if any(option["id"] == "unit" for option in each["properties"])
    }
    assert {column.name for column in columns if column.type_code in WITH_UNIT} <= units


def test_panels_have_titles_and_explanations() -> None:
    panels = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
    assert all(each["title"] and each["description"].endswith(".") for each in panels)
    assert len({each["id"] for each in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_role_reads_what_the_dashboard_shows_and_nobody(grafana: psycopg.Connection) -> None:
    """Neither people and their addresses, nor records that were rejected; and it writes nothing."""
    for table in ("members", "sends", "member_engagement", "member_lists"):
        with pytest.raises(InsufficientPrivilege):
            grafana.execute(f"SELECT FROM klaviyo.{table}")
    with pytest.raises(InsufficientPrivilege):
        grafana.execute("SELECT raw FROM klaviyo.rejects")
    with pytest.raises(ReadOnlySqlTransaction):
        grafana.execute("CREATE TEMPORARY TABLE mine (id int)")


def test_the_dashboard_uses_the_provisioned_data_source() -> None:
    """The dashboard's variable offers data sources of this type, of which this is the first and the default."""
    [source] = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "warehouse.yaml").read_text())["datasources"]
    assert VARIABLES["datasource"]["query"] == source["type"]
    assert source["isDefault"] is True
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": source["type"], "uid": "${datasource}"}
