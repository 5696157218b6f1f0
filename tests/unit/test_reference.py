"""The generated pages of the documentation are those that the code generates, and name only what exists."""

import pytest

from klaviyo_pg.catalogue import DATA, TABLES, VIEWS
from klaviyo_pg.settings import Settings
from website.reference import DOCS, Join, joins, pages

COLUMNS = {table.name: {column.name for column in table.columns} for table in (*TABLES, *VIEWS)}


@pytest.mark.parametrize("name", pages())
def test_generated_pages_are_up_to_date(name: str) -> None:
    """To renew them: python -m website.reference."""
    assert (DOCS / name).read_text("utf-8") == pages()[name]


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


def test_every_table_column_and_setting_is_described() -> None:
    tables, settings = pages()["tables.md"], pages()["settings.md"]
    assert all(f"\n### {name}\n" in tables for name in COLUMNS)
    assert all(f"| `{column}` |" in tables for columns in COLUMNS.values() for column in columns)
    assert all(f"| `{name.upper()}` |" in settings for name in Settings.model_fields)
