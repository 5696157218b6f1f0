"""The output of a command for programs: lines of JSON, in the form of the log. Knows no command."""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

from klaviyo_pg.errors import KlaviyoPgError

_LOGGER = "klaviyo_pg"


def json_line(level: str, message: str, more: Mapping[str, object] | None = None, file: TextIO | None = None) -> None:
    """Print one JSON object on one line, like a line of the log; `file` is standard output by default."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": time, "level": level, "logger": _LOGGER, "message": message, **(more or {})}
    print(json.dumps(line, ensure_ascii=False, default=str), file=file or sys.stdout, flush=True)


def print_error(text: str) -> None:
    """Print an error to standard error, as the settings want it. Invalid settings want it as text."""
    if _is_json():
        json_line("error", text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


def print_warning(text: str) -> None:
    """Print a warning to standard error, as the settings want it."""
    if _is_json():
        json_line("warning", text, file=sys.stderr)
    else:
        print(f"Warning: {text}", file=sys.stderr)


def _is_json() -> bool:
    from klaviyo_pg.settings import load_settings  # imported late, because importing it takes time

    with suppress(KlaviyoPgError):
        return load_settings().log_format == "json"
    return False
