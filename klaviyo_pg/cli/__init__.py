"""The command line: `klaviyo-pg`, and each flow file as a command. Importing it imports nothing that takes time."""

import sys
from collections.abc import Sequence
from time import monotonic
from typing import NoReturn

from klaviyo_pg.cli.signals import exit_on_signals


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command, and exit with its exit code.

    Args:
        command: its name, if the program is this command alone. Default: the first argument names it.
        arguments: the program's arguments. Default: those of the process.
    """
    exit_on_signals()
    began = monotonic()
    from klaviyo_pg.cli import terminal
    from klaviyo_pg.cli.arguments import account_of, parse

    parsed = parse(command, sys.argv[1:] if arguments is None else arguments)
    parsed.began = began
    terminal.run(lambda: parsed.command.function()(parsed), lambda: account_of(parsed))
