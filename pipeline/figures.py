"""The rows that a run has counted, as people see them: a sentence, and a row for each table."""

from collections.abc import Iterator
from contextlib import suppress

import psycopg

from klaviyo_pg.catalogue import DATA, STORED
from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres.ledgers import run_ledger
from pipeline.outcome import RowCounts
from pipeline.runs import Run
from pipeline.session import Session

_FIGURES = {
    "inserted": "new",
    "updated": "changed",
    "unchanged": "unchanged",
    "rejected": "rejected",
    "replaced_values": "values replaced",
}
_SHOWN = ("rows_read", "inserted", "updated", "unchanged", "rejected")


def counts_of(session: Session, run: Run) -> RowCounts:
    """Return the rows of a run by table; none while the database is away."""
    with suppress(KlaviyoPgError, psycopg.Error), session.database.transaction(waits=False) as connection:
        return run_ledger.run_counts(run.account(connection), run.id)
    return {}


def rows_read(counts: RowCounts) -> int:
    """Return how many rows were read, over all tables."""
    return sum(numbers.get("rows_read", 0) for numbers in counts.values())


def figures(counts: RowCounts) -> str:
    """Return a sentence about rows: how many were read, and what became of them. What is 0 is left out, except rows."""
    parts = _parts(counts)
    return f"{rows_read(counts):,} rows read{': ' if parts else ''}{', '.join(parts)}."


def changes(counts: RowCounts) -> str:
    """Return the number of rows as a phrase, with what became of them in brackets."""
    rows, parts = rows_read(counts), _parts(counts)
    return counted(rows, "row") + (f" ({', '.join(parts)})" if parts else "")


def _parts(counts: RowCounts) -> list[str]:
    total = {name: sum(numbers.get(name, 0) for numbers in counts.values()) for name in _FIGURES}
    return [f"{number:,} {_FIGURES[name]}" for name, number in total.items() if number]


def rows_of(counts: RowCounts) -> Iterator[dict[str, object]]:
    """Yield a row of numbers for each table of which something was read, in the order of the catalogue."""
    for table in (*DATA, *STORED):
        if numbers := counts.get(table.name):
            yield {"table": table.name, **{name.replace("_", " "): numbers[name] for name in _SHOWN}}
