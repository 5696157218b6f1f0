"""The generated files are those that the code generates, and name only what exists."""

import pytest
import yaml

from klaviyo_pg.catalogue import DATA, TABLES, VIEWS, Table, View, events
from klaviyo_pg.settings import Settings
from website.dbt_sources import sources
from website.reference import ROOT, Join, files, joins

CATALOGUE: tuple[Table | View, ...] = (*TABLES, *VIEWS)
COLUMNS = {each.name: {column.name for column in each.columns} for each in CATALOGUE}


@pytest.mark.parametrize("path", files())
def test_generated_files_are_up_to_date(path: str) -> None:
    """To renew them: python -m website.reference."""
    assert (ROOT / path).read_text("utf-8") == files()[path]


def test_the_sources_of_dbt_are_what_readers_see() -> None:
    """Without internal tables. dbt renders descriptions, so none may look like a template."""
    [source] = yaml.safe_load(sources())["sources"]
    tables = {table["name"]: table for table in source["tables"]}
    assert tables.keys() == COLUMNS.keys() - {table.name for table in TABLES if table.internal}
    assert {name: {column["name"] for column in table["columns"]} for name, table in tables.items()} == {
        name: COLUMNS[name] for name in tables
    }
    texts = [column["description"] for table in tables.values() for column in (table, *table["columns"])]
    assert not [text for text in texts if "{{" in text or "{%" in text or "{#" in text]
    for table in events.EVENT_TABLES:
        tested = {column["name"]: column.get("data_tests") for column in tables[table.name]["columns"]}
        assert tested["event_at"] == ["not_null"]
        assert tested["key"] == ["not_null", {"unique": {"config": {"where": "event_at > now() - interval '7 days'"}}}]


def test_joins_lead_to_columns_that_exist() -> None:
    found = joins((*DATA, *VIEWS))
    assert all(each.column in COLUMNS[each.table] for each in found)
    assert [each for each in found if each.other_column not in COLUMNS[each.other_table]] == []
    assert {
        Join("events", "campaign_key", "messages", "message_key"),
        Join("events", "member_key", "members", "member_key"),
        Join("events", "metric_key", "metrics", "key"),
        Join("tagged_objects", "object_key", "automations", "key"),
        Join("campaigns", "first_list_key", "lists", "key"),
        Join("event_attributions", "flow_message_key", "messages", "message_key"),
    } <= set(found)
    assert not any(each.column == "list_key" for each in found), "it has the ID of a list"


def test_every_table_and_view_is_named_at_a_glance() -> None:
    """The internal ones in the paragraph about their schema, all others before it."""
    glance = (ROOT / "docs" / "data.md").read_text("utf-8").partition("\n## ")[0]
    visible, _, internal = glance.partition("`klaviyo_internal`")
    hidden = {table.name for table in TABLES if table.internal}
    assert [name for name in COLUMNS if f"`{name}`" not in (internal if name in hidden else visible)] == []


def test_every_table_column_and_setting_is_described() -> None:
    tables, settings = files()["docs/tables.md"], files()["docs/settings.md"]
    assert all(f"\n### {name}\n" in tables for name in COLUMNS)
    assert all(f"| `{column}` |" in tables for columns in COLUMNS.values() for column in columns)
    assert all(f"| `{name.upper()}` |" in settings for name in Settings.model_fields)
