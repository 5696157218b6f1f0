"""Two loads of one account, row by row, and what the account itself says; results as sections of a document."""

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
_FIRST = """\
# Reliability

Everything here is measured by the commands named, and written by them; nothing by hand.
"""
_WHEN = (Merge.STAMP, Merge.KEEP)  # of columns that tell when a row was written, or first was


@dataclass(frozen=True)
class Difference:
    """Rows that should be there and are not, and rows that are there and should not be; none, it is false."""

    lost: int
    other: int

    def __bool__(self) -> bool:
        return bool(self.lost or self.other)


def prepare(connection: psycopg.Connection, *names: str) -> None:
    """Empty schemas whose accounts have the same id, so that their rows get the same keys."""
    for name in names:
        schemas.upgrade(connection, name)
        connection.execute(
            SQL("INSERT INTO {} (name, esp_integration_id, created_at) VALUES ('default', {}, now())").format(
                Identifier(name, "integrations"), Literal(_INTEGRATION)
            )
        )


def _rows(schema: str, table: Table) -> Composed:
    columns = (Identifier(column.name) for column in table.columns if column.merge not in _WHEN)
    return SQL("SELECT {} FROM {}").format(SQL(", ").join(columns), Identifier(schema, table.name))


def difference(connection: psycopg.Connection, right: str, schema: str) -> Difference:
    """All tables of the specification, against those of a load that is known to be right."""
    lost = other = 0
    for each in SPECIFIED:
        one, two = _rows(right, each), _rows(schema, each)
        lost += _count(connection, one, two)
        other += _count(connection, two, one)
    return Difference(lost, other)


def _count(connection: psycopg.Connection, one: Composed, two: Composed) -> int:
    [[count]] = connection.execute(SQL("SELECT count(*) FROM ({} EXCEPT ALL {}) AS d").format(one, two)).fetchall()
    return int(count)


def events_difference(
    connection: psycopg.Connection, box: Sandbox, schema: str, before: float | None = None
) -> Difference:
    """The events that are stored, against those that the account has."""
    union = SQL(" UNION ALL ").join(
        SQL("SELECT id FROM {}").format(Identifier(schema, table.name)) for table in tables.EVENT_TABLES
    )
    stored = [row[0] for row in connection.execute(union).fetchall()]
    known = {event["id"] for event in box.events() if before is None or event["timestamp"] < before}
    return Difference(len(known - set(stored)), len(stored) - len(known & set(stored)))


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A table of Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_section(path: Path, title: str, text: str) -> None:
    """Put a section of this title into a document, in place of the one that is there."""
    before = path.read_text() if path.exists() else _FIRST
    first, *sections = before.split("\n## ")
    found = {section.partition("\n")[0]: section for section in sections}
    found[title] = f"{title}\n\n{text.strip()}\n"
    path.write_text("\n## ".join([first.rstrip() + "\n", *(section.rstrip() + "\n" for section in found.values())]))
