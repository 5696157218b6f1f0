"""Compares two loads of one account row by row, and a load with the account itself. Writes sections of a document."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from klaviyo_pg.catalogue import SPECIFIED, Merge, Table
from klaviyo_pg.catalogue import events as tables
from klaviyo_pg.postgres import schema as schemas
from sandbox.launcher import Sandbox

_INTEGRATION = "00000000-0000-4000-8000-000000000001"
_INTRODUCTION = """\
# Reliability

Each section of this page names the command that measured its figures and wrote it.
"""
_TIMES_OF_LOADS = (Merge.STAMP, Merge.KEEP)  # columns with the time at which a row was written first or last
_SEEN_AT, _SEEN = "deleted_at", "{} IS NULL"  # the time at which a run noticed it; placeholders have one


@dataclass(frozen=True)
class Difference:
    """The numbers of missing and of surplus rows. It is false if both are zero."""

    missing: int
    surplus: int

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus)


def prepare(connection: psycopg.Connection, *names: str) -> None:
    """Create empty schemas in which the account has the same id, so that rows of both get the same keys."""
    for name in names:
        schemas.upgrade(connection, name)
        connection.execute(
            SQL("INSERT INTO {} (name, esp_integration_id, created_at) VALUES ('default', {}, now())").format(
                Identifier(name, "integrations"), Literal(_INTEGRATION)
            )
        )


def _rows(schema: str, table: Table) -> Composed:
    compared = (column.name for column in table.columns if column.merge not in _TIMES_OF_LOADS)
    columns = (SQL(_SEEN if name == _SEEN_AT else "{}").format(Identifier(name)) for name in compared)
    return SQL("SELECT {} FROM {}").format(SQL(", ").join(columns), Identifier(schema, table.name))


def difference(connection: psycopg.Connection, reference: str, schema: str) -> Difference:
    """Compare all tables of the specification with those of a load that is known to be correct."""
    missing = surplus = 0
    for table in SPECIFIED:
        expected, actual = _rows(reference, table), _rows(schema, table)
        missing += _count_except(connection, expected, actual)
        surplus += _count_except(connection, actual, expected)
    return Difference(missing, surplus)


def _count_except(connection: psycopg.Connection, one: Composed, other: Composed) -> int:
    [[count]] = connection.execute(SQL("SELECT count(*) FROM ({} EXCEPT ALL {}) AS d").format(one, other)).fetchall()
    return int(count)


def events_difference(
    connection: psycopg.Connection, box: Sandbox, schema: str, before: float | None = None
) -> Difference:
    """Compare the stored events with those of the account, up to the Unix time `before` if there is one."""
    union = SQL(" UNION ALL ").join(
        SQL("SELECT id FROM {}").format(Identifier(schema, table.name)) for table in tables.EVENT_TABLES
    )
    stored = [row[0] for row in connection.execute(union).fetchall()]
    expected = {event["id"] for event in box.events() if before is None or event["timestamp"] < before}
    return Difference(len(expected - set(stored)), len(stored) - len(expected & set(stored)))


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_section(path: Path, title: str, text: str) -> None:
    """Replace the section with this title in a document, or add it."""
    before = path.read_text() if path.exists() else _INTRODUCTION
    first, *sections = before.split("\n## ")
    by_title = {section.partition("\n")[0]: section for section in sections}
    by_title[title] = f"{title}\n\n{text.strip()}\n"
    path.write_text("\n## ".join([first.rstrip() + "\n", *(section.rstrip() + "\n" for section in by_title.values())]))
