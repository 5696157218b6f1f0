"""The table of docs/data.md about rows that Klaviyo no longer has agrees with the catalogue."""

import re

from klaviyo_pg.catalogue import DATA, Absent, Load, Merge, Table, attribution, loads, membership
from klaviyo_pg.catalogue.types import TIMESTAMP
from tests.driver import ROOT

DELETED = {each.table.name for each in vars(loads).values() if isinstance(each, Load) and each.absent is Absent.DELETE}
DERIVED = {membership.MEMBER_LISTS.name: "unsubscribed_at"}  # from the marks of other tables
SEPARATE = {attribution.EVENT_ATTRIBUTIONS.name}  # deleted with the event that is read again


def treatment(table: Table) -> str:
    """Return the column that marks rows of a table, or if they are deleted or stay."""
    marks = [each.name for each in table.columns if each.merge is Merge.CLEAR and each.type == TIMESTAMP]
    if table.name in DELETED | SEPARATE:
        return "deleted"
    return DERIVED.get(table.name) or next(iter(marks), "stay")


def test_each_table_is_in_the_row_of_its_treatment() -> None:
    text = (ROOT / "docs" / "data.md").read_text("utf-8")
    section = text.partition("## Rows that Klaviyo no longer has")[2].partition("\n## ")[0]
    documented = {
        table: treated.removeprefix("marked in ").strip("`")
        for tables, treated in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE)
        for table in re.findall(r"`(\w+)`", tables)
    }
    assert documented == {table.name: treatment(table) for table in DATA}
