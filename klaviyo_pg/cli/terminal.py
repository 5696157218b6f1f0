"""Conventions of the command line: signals, error messages, exit codes. Knows no command."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from klaviyo_pg.errors import KlaviyoPgError, Stopped


def run(command: Callable[[], int]) -> NoReturn:
    """Run a command, and exit with the code that it returns. Its errors become one sentence each."""
    handle_signals()
    try:
        code = command()
    except KlaviyoPgError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        code = Stopped.exit_code
    sys.exit(code)


def handle_signals() -> None:
    """Let SIGTERM and a closed terminal mean what Ctrl-C means.

    Without this, the first process of a container ignores SIGTERM. Under nohup, SIGHUP stays ignored.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
