"""The dbt sources of examples/dbt_native: every table and view for readers, as the catalogue describes them."""

import json
from collections.abc import Iterator

from klaviyo_pg.catalogue import BOOKKEEPING, DATA, STORED, VIEWS, Column, Table, View
from klaviyo_pg.catalogue.shared import SYNCED_AT

_HEAD = """# Generated from the catalogue by `python -m website.reference`. Copy it into the models of a dbt project.
version: 2

sources:
  - name: klaviyo
    schema: "{{ var('klaviyo_warehouse_schema', 'klaviyo') }}"
    tables:"""
# Testing all rows of an event table would take minutes.
_UNIQUE_OF_LATE = """              - unique:
                  config:
                    where: "{} > now() - interval '7 days'\""""


def sources() -> str:
    """Return the file."""
    described: list[Table | View] = [*DATA, *(table for table in BOOKKEEPING if not table.internal), *STORED, *VIEWS]
    return "\n".join([_HEAD, *(line for each in described for line in _table(each))]) + "\n"


def _table(table: Table | View) -> Iterator[str]:
    yield f"      - name: {table.name}"
    yield f"        description: {_quoted(table.description)}"
    if isinstance(table, Table) and SYNCED_AT in table.columns:
        yield f"        config:\n          loaded_at_field: {SYNCED_AT.name}"
    yield "        columns:"
    for column in table.columns:
        yield f"          - name: {column.name}"
        yield f"            description: {_quoted(column.description)}"
        if isinstance(table, Table) and column.name in table.primary_key:
            yield from _tests(table, column)


def _tests(table: Table, column: Column) -> Iterator[str]:
    """Yield the tests of a column of the primary key. Of a key with several columns, one may be unique by itself."""
    yield "            data_tests:\n              - not_null"
    if table.identity == (column.name,):
        yield _UNIQUE_OF_LATE.format(table.ordered_by) if table.ordered_by else "              - unique"


def _quoted(text: str) -> str:
    """Return a string in double quotes, which YAML reads as JSON does."""
    return json.dumps(text, ensure_ascii=False)
