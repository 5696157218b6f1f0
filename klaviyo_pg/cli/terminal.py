"""Conventions of the command line: signals, error messages, exit codes. Knows no command."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from traceback import format_exception
from types import FrameType
from typing import NoReturn

from klaviyo_pg.errors import KlaviyoPgError, Stopped
from klaviyo_pg.redaction import redacted


def run(command: Callable[[], int]) -> NoReturn:
    """Run a command, and exit with the code that it returns. Its errors become one sentence each."""
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


def exit_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal end the process at once, with one line.

    Meant for the start of a command: an exception in the middle of an import leaves tracebacks of libraries. What the
    command has started ends with it.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        os.write(sys.stderr.fileno(), b"Stopped.\n")
        os._exit(Stopped.exit_code)

    _handle_signals(end)


def handle_signals() -> None:
    """Let SIGTERM and a closed terminal mean what Ctrl-C means: a KeyboardInterrupt.

    Without this, the first process of a container ignores SIGTERM.
    """
    _handle_signals(signal.default_int_handler)


def _handle_signals(handler: Callable[[int, FrameType | None], NoReturn]) -> None:
    """Handle the signals that end a command. Under nohup, SIGHUP stays ignored."""
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)
