"""Conventions of the command line: signals, error messages, exit codes, printable names. Knows no command."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from traceback import format_exception
from typing import NoReturn

from klaviyo_pg.errors import KlaviyoPgError, Stopped
from klaviyo_pg.redaction import redacted


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
    except Exception as error:
        print(_traceback(error), file=sys.stderr)
        code = 1
    sys.exit(code)


def _traceback(error: Exception) -> str:
    """Return the traceback of an unexpected error, without the secrets of the settings."""
    from klaviyo_pg.settings import load_settings  # imported late, because importing it takes time
    from pipeline.secrets import secrets_of

    secrets: list[str] = []
    with suppress(KlaviyoPgError):
        secrets = secrets_of(load_settings())
    return redacted("".join(format_exception(error)).rstrip(), secrets)


def printable(name: str) -> str:
    """Return a name that came from the account without line breaks and control characters."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name)


def handle_signals() -> None:
    """Let SIGTERM and a closed terminal mean what Ctrl-C means.

    Without this, the first process of a container ignores SIGTERM. Under nohup, SIGHUP stays ignored.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
