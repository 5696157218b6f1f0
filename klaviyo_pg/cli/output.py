"""The output of a command: lines of JSON for programs, and what happens if its reader is gone. Knows no command."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from typing import Any, TextIO, cast

from klaviyo_pg.errors import KlaviyoPgError

_LOGGER = "klaviyo_pg"
_UNNAMED = "default"  # the account of who has only one


def json_line(level: str, message: str, more: Mapping[str, object] | None = None, file: TextIO | None = None) -> None:
    """Print one JSON object on one line, like a line of the log; `file` is standard output by default."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": time, "level": level, "logger": _LOGGER, "message": message, **(more or {})}
    print(json.dumps(line, ensure_ascii=False, default=str), file=file or sys.stdout, flush=True)


def print_error(text: str, account: str | None = None) -> None:
    """Print an error to standard error, as the settings want it. Invalid settings want it as text.

    `account` is the name of the account that it concerns; None if it concerns no particular one.
    """
    if _is_json():
        json_line("error", text, _fields(account), file=sys.stderr)
    else:
        print(with_account(text, account), file=sys.stderr)


def print_warning(text: str, account: str | None = None) -> None:
    """Print a warning to standard error, as the settings want it. A line of JSON has the account that it concerns."""
    if _is_json():
        json_line("warning", text, _fields(account), file=sys.stderr)
    else:
        print(f"Warning: {text}", file=sys.stderr)


def with_account(text: str, account: str | None) -> str:
    """Return a text that begins with the name of its account, unless that has the default name."""
    return text if account in (None, _UNNAMED) else f"{account}: {text}"


def _fields(account: str | None) -> dict[str, object]:
    return {} if account is None else {"account": account}


def _is_json() -> bool:
    from klaviyo_pg.settings import load_settings  # imported late, because importing it takes time

    with suppress(KlaviyoPgError):
        return load_settings().log_format == "json"
    return False


class _Tolerant:
    """A text stream that discards what is written once its reader is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _discarding(self._stream):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _discarding(self._stream):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Discard what is printed once the reader of standard output is gone, instead of raising BrokenPipeError."""
    with redirect_stdout(cast(TextIO, _Tolerant(sys.stdout))):
        try:
            yield
        finally:
            sys.stdout.flush()


def discard_output() -> None:
    """Discard what is printed from here on, and what has not been flushed yet."""
    _discard(sys.stdout)


@contextmanager
def _discarding(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _discard(stream)


def _discard(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
