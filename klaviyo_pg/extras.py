"""The command that installs an optional dependency, as messages name it."""

from typing import Literal


def command(extra: Literal["embedded", "pictures"]) -> str:
    """Return the command that installs an extra, to be run in the folder of the clone. It removes no other extra."""
    return f".venv/bin/pip install -c constraints.txt -e '.[{extra}]'"
