"""Measures how long the queries of docs/recipes.md take. They are read from the document.

Postgres has its default configuration, so that queries use parallel workers, except for `work_mem`. The median of
several runs counts. The processor time is that of the backend and of its parallel workers.
"""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psycopg
from psycopg.sql import SQL

from benchmarks.comparison import table
from benchmarks.filled import Size, cost, warehouse
from benchmarks.workbench import parser, report
from tests.driver import ROOT

_RECIPE = re.compile(r"^### (?P<title>\d+\. .*?)$.*?^```sql\n(?P<query>.*?);\n```$", re.DOTALL | re.MULTILINE)


def main() -> None:
    """Fill a warehouse, measure and print the results."""
    made = parser(__doc__)
    made.add_argument("--events", type=int, default=10_000_000)
    made.add_argument("--people", type=int, help="a tenth of the events, if not given")
    made.add_argument("--work-mem", default="64MB", help="memory of each sort and each table of hashes")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--only", type=int, nargs="*", help="numbers of recipes")
    made.add_argument("--folder", type=Path, help="folder to keep the warehouse in, so that it is filled once")
    options = made.parse_args()
    size = Size(options.events, options.people or options.events // 10)
    with warehouse(size, options.folder) as connection:
        connection.execute(SQL("SET work_mem = {}").format(options.work_mem))
        chosen = [each for number, each in enumerate(recipes(), 1) if not options.only or number in options.only]
        rows = [(title, *_measured(connection, title, query, options.repeats)) for title, query in chosen]
    text = f"{datetime.now(UTC):%Y-%m-%d}, {size}, work_mem {options.work_mem}."
    report(options.write, "Recipes", f"{text}\n\n{table(('recipe', 'rows', 's', 's of processor'), rows)}")


def recipes() -> list[tuple[str, str]]:
    """Return the title and the query of each recipe."""
    return _RECIPE.findall((ROOT / "docs" / "recipes.md").read_text("utf-8"))


def _measured(connection: psycopg.Connection, title: str, query: str, repeats: int) -> tuple[str, str, str]:
    costs = [cost(connection, lambda: len(connection.execute(query.encode()).fetchall())) for _ in range(repeats)]
    seconds, processor = (median(each[at] for each in costs) for at in (1, 2))
    print(f"{seconds:8.2f} s {processor:8.2f} s of processor  {title}", file=sys.stderr)
    return f"{costs[0].rows:,}", f"{seconds:.2f}", f"{processor:.2f}"


if __name__ == "__main__":
    main()
