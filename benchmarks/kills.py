"""`python -m benchmarks.kills --moments 5`: kill each command at random moments, and look for processes that survive.

Each command has its own data folder and Prefect home. A kill counts as clean if no process that the command has started
runs after ten seconds. Nothing of the command itself can clean up, since it is killed with SIGKILL.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import processes
from tests.driver import ROOT
from tests.processes import Marked

_LIMIT = 10.0  # seconds
_COMMANDS = {
    "daily": ["flows/daily.py", "--sandbox"],
    "backfill": ["flows/backfill.py", "--sandbox", "--start=2026-10-01"],
    "reconcile": ["flows/reconcile.py", "--sandbox"],
    "status": ["-m", "klaviyo_pg", "status"],
    "psql": ["-m", "klaviyo_pg", "psql", "-c", "SELECT pg_sleep(2)"],
    "erase": ["-m", "klaviyo_pg", "erase", "--integration=sandbox", "--id=no-such-person", "--yes"],
    "save-blocks": ["-m", "tasks.save_blocks", "--klaviyo=killed"],
}
_SETTINGS = {"save-blocks": {"KLAVIYO_API_KEY": "pk_of_no_account"}}


def _command(name: str) -> list[str]:
    return [str(ROOT / part) if part.endswith(".py") else part for part in _COMMANDS[name]]


def _start(name: str, folder: Path, environment: Mapping[str, str]) -> Marked:
    return processes.start(_command(name), folder, {**environment, **_SETTINGS.get(name, {})})


def _duration(name: str, folder: Path, environment: Mapping[str, str]) -> float:
    """Run a command to its end, twice since the first run sets things up, and return how long the second took."""
    for _ in range(2):
        began = time.monotonic()
        code = _start(name, folder, environment).process.wait()
        if code != 0:
            sys.exit(f"{name} failed with exit code {code}.")
    return time.monotonic() - began


def _kill(name: str, moment: float, folder: Path, environment: Mapping[str, str]) -> bool:
    """Kill a command after some seconds. Prints what it left, and returns whether that was nothing."""
    command = _start(name, folder, environment)
    time.sleep(moment)
    running = len(command.descendants())
    command.kill()
    seconds = command.seconds_until_alone(_LIMIT)
    left = [" ".join(each.cmdline())[:80] for each in command.descendants()] if seconds is None else []
    result = f"nothing left after {seconds:.1f} s" if seconds is not None else f"LEFT: {left}"
    print(f"{name:11} killed after {moment:5.1f} s with {running} processes: {result}", flush=True)
    return seconds is not None


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill every command at several moments. Exits with 1 if a process survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=5, help="kills of each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", choices=_COMMANDS, action="append", help="only this command")
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # started by root, Postgres runs as another user
        environment = {**processes.bare_environment(), "DATA_DIR": name, "PREFECT_HOME": str(folder / "prefect")}
        _duration("daily", folder, environment)
        clean = []
        for command in options.command or _COMMANDS:
            duration = _duration(command, folder, environment)
            share = duration / options.moments  # one kill in each share, to include every phase
            moments = [share * (number + chance.random()) for number in range(options.moments)]
            clean += [_kill(command, moment, folder, environment) for moment in moments]
    print(f"{sum(clean)} of {len(clean)} kills left nothing running.")
    sys.exit(0 if all(clean) else 1)


if __name__ == "__main__":
    main()
