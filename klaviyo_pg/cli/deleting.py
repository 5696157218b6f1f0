"""The dialog of the commands that delete rows: the confirmation, and the numbers of deleted rows."""

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.errors import BadSettings


def check_terminal(done: str) -> None:
    """Raise BadSettings, which says that nothing was `done`, if there is no terminal at which to ask a question."""
    if not sys.stdin.isatty():
        raise BadSettings(f"Nothing was {done}: confirmation needs a terminal. In a script, pass --yes.")


def answer(question: str) -> str:
    """Return what is typed, without blanks around it. Ctrl-D is no answer."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return ""


def print_rows(title: str, rows: Mapping[str, int]) -> None:
    """Print numbers of rows, by table."""
    table = Table("table", "rows", title=escape(title))
    for table_name, number in rows.items():
        table.add_row(table_name, f"{number:,}")
    Console().print(table)
