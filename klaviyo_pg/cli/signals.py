"""Handlers of the signals that end a command. Importing it imports nothing else of the project: that takes time."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

_STOPPED = 130  # the exit code of klaviyo_pg.errors.Stopped
_SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"  # and clear the line: the display of a start hides the cursor


def exit_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal end the process at once, with one line.

    Meant for the start of a command: an exception in the middle of an import leaves tracebacks of libraries. What the
    command has started ends with it.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        stderr = sys.stderr.fileno()
        os.write(stderr, (_SHOW_CURSOR if os.isatty(stderr) else b"") + b"Stopped.\n")
        os._exit(_STOPPED)

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
