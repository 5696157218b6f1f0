"""Campaigns read in both revisions: the tables differ only where docs/revisions.md says so."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from klaviyo_pg.catalogue import Table, dimensions, messages, tags
from klaviyo_pg.errors import RetiredRevision
from klaviyo_pg.klaviyo.current.revisions import CAMPAIGNS
from klaviyo_pg.postgres import schema
from sandbox.launcher import Sandbox, running
from tests.driver import ROOT
from tests.runs import Result, Warehouse

REVISIONS = {"earlier": "2026-07-15", "later": "2026-10-15"}
TABLES = (dimensions.CAMPAIGNS, dimensions.CAMPAIGN_LISTS, messages.CAMPAIGN_MESSAGES, tags.TAGGED_OBJECTS)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=20, events=200) as box:
        yield box


@pytest.fixture(scope="module")
def read(warehouse: Warehouse, box: Sandbox) -> dict[str, Result]:
    """Return the first run of each revision, into a schema of that name, with the same integration id."""
    first = read_campaigns(warehouse, "earlier")
    with psycopg.connect(warehouse.url) as connection:
        schema.upgrade(connection, "later")
        connection.execute("INSERT INTO later.integrations SELECT * FROM earlier.integrations")
    return {"earlier": first, "later": read_campaigns(warehouse, "later")}


def read_campaigns(warehouse: Warehouse, name: str, revision: str | None = None, **settings: object) -> Result:
    chosen = {"warehouse_schema": name, "klaviyo_revision": revision or REVISIONS[name], **settings}
    return warehouse.variant(**chosen).daily("campaigns")


def documented() -> set[tuple[str, str]]:
    """Return the differences that the documentation lists, as (table, column)."""
    text = (ROOT / "docs" / "revisions.md").read_text()
    return set(re.findall(r"^\| (\w+) \| (\w+) \|", text, re.MULTILINE)) - {("table", "column")}


def differences(warehouse: Warehouse, table: Table) -> Iterator[str]:
    """Yield the columns in which rows with the same key differ, and "rows" if either revision lacks rows."""
    joined = f"earlier.{table.name} e FULL JOIN later.{table.name} l USING (key)"
    if warehouse.one(f"SELECT count(*) FROM {joined} WHERE e.id IS NULL OR l.id IS NULL"):
        yield "rows"
    for column in set(table.column_names) - {"__synced_at"}:
        differs = f'e."{column}" IS DISTINCT FROM l."{column}"'
        if warehouse.one(f"SELECT count(*) FROM {joined} WHERE e.id = l.id AND {differs}"):
            yield column


def test_revisions_differ_only_where_documented(read: dict[str, Result], warehouse: Warehouse) -> None:
    """Compared row by row and column by column, they differ exactly where the documentation says so."""
    assert [each.exit_code for each in read.values()] == [0, 0], [each.sentences for each in read.values()]
    assert min(warehouse.one(f"SELECT count(*) FROM {name}.{table.name}") for name in read for table in TABLES) > 0
    assert {(table.name, column) for table in TABLES for column in differences(warehouse, table)} == documented()


def test_only_messages_with_variations_have_another_row(read: dict[str, Result], warehouse: Warehouse) -> None:
    """The variants of a test have the same rows in both revisions, and their message is known in the later one only."""
    columns = "id, campaign_id, channel, label, subject, status, send_at, created_at"
    same = f"SELECT {columns} FROM earlier.campaign_messages"
    later = f"SELECT {columns} FROM later.campaign_messages"
    assert warehouse.rows(f"{same} EXCEPT {later}") == []
    others = {row[0] for row in warehouse.rows(f"{later} EXCEPT {same}")}
    tested = set(warehouse.column("SELECT variation_of FROM later.campaign_messages WHERE variation_of IS NOT NULL"))
    assert others == tested != set()


def test_a_second_run_of_the_later_revision_changes_nothing(read: dict[str, Result], warehouse: Warehouse) -> None:
    """It takes one request for each 100 campaigns and messages, archived campaigns separately."""
    again = read_campaigns(warehouse, "later")
    assert (again.exit_code, again.changed()) == (0, {})
    assert again.traffic.requests <= read["earlier"].traffic.requests


@pytest.mark.slow
def test_what_is_missing_is_deleted_until_it_returns(
    read: dict[str, Result], warehouse: Warehouse, box: Sandbox
) -> None:
    """A campaign with its variations, and after a change of the revision the messages that the earlier one lacks."""
    deleted = "SELECT count(deleted_at) FROM later.campaign_messages"
    campaign = warehouse.one("SELECT campaign_id FROM later.campaign_messages WHERE variation_of IS NOT NULL LIMIT 1")
    tested = warehouse.one("SELECT count(DISTINCT variation_of) FROM later.campaign_messages")
    box.delete("campaigns", campaign)
    assert read_campaigns(warehouse, "later").exit_code == 0
    assert warehouse.one(f"{deleted} WHERE campaign_id = %s", campaign) == warehouse.one(deleted) == 3
    assert warehouse.column("SELECT id FROM later.campaigns WHERE deleted_at IS NOT NULL") == [campaign]
    box.restore("campaigns", campaign)
    assert read_campaigns(warehouse, "later", "2026-07-15").exit_code == 0
    assert warehouse.one(deleted) == tested
    assert read_campaigns(warehouse, "later").exit_code == 0
    assert warehouse.one(deleted) == 0


def test_a_retired_revision_ends_the_run_with_a_sentence(warehouse: Warehouse, box: Sandbox) -> None:
    """Instead of the form of a later revision, Klaviyo returns 410."""
    box.set_server(oldest_revision="2026-10-15")
    try:
        with pytest.raises(RetiredRevision, match=r"no longer serves the revision of KLAVIYO_REVISION\. Set it to"):
            read_campaigns(warehouse, "earlier")
    finally:
        box.set_server(oldest_revision="2025-01-15")


def test_every_revision_of_the_setting_can_be_read() -> None:
    assert sorted(CAMPAIGNS) == sorted(REVISIONS.values())
