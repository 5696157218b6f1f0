"""The dialog of the commands that delete rows: the confirmation, the progress, and the numbers of deleted rows."""

import sys
from collections.abc import Mapping
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.errors import BadSettings

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Prints how far a command has got, from time to time."""

    def __init__(self) -> None:
        self._step, self._began, self._printed = "", 0.0, monotonic()

    def report(self, step: str, done: int, total: int) -> None:
        """Print how much of a step is done, and the time left, unless a line was printed a moment ago."""
        now = monotonic()
        if step != self._step:
            self._step, self._began = step, now
        if now - self._printed < _SECONDS_BETWEEN_LINES or not total:
            return
        left = f", about {(now - self._began) * (total - done) / done:.0f} s left" if done else ""
        print(f"{step}: {100 * done / total:.0f} %{left}", file=sys.stderr, flush=True)
        self._printed = now


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
