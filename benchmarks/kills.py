"""`python -m benchmarks.kills --moments 5`: kill each command at random moments, and look for processes that survive.

With `--load daily`, one load is killed twenty times instead, from its first second on, and then run to its end: each
kill that came after a page had been read must leave more in the warehouse, and at the end every row must be there once.

Each command has its own data folder and Prefect home. A kill counts as clean if no process that the command has started
runs after ten seconds. Nothing of the command itself can clean up, since it is killed with SIGKILL.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from klaviyo_pg.catalogue.events import EVENT_TABLES
from pipeline.spool import SpooledChunk
from sandbox.launcher import Sandbox, running
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
    "save-blocks": ["-m", "tasks.save_blocks", "--klaviyo=killed", "--no-check"],
}
_LOADS = {"daily": ["flows/daily.py"], "backfill": ["flows/backfill.py", "--start=2026-08-01"]}
_PAGES = "GET /api/events 200"
_LATENCY_SECONDS = 1.0  # of each answer
_STORE_SECONDS = 3.0  # between the answer to a request and the commit of its page, on a busy machine
_EVENTS = " UNION ALL ".join(f"SELECT id FROM klaviyo.{table.name}" for table in EVENT_TABLES)
_LISTED = "klaviyo.stg_member_lists"
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


@dataclass(frozen=True)
class _Load:
    """A load of an account into an embedded Postgres, by a command that is killed and started again."""

    command: Sequence[str]
    box: Sandbox
    folder: Path
    environment: Mapping[str, str]

    def start(self) -> Marked:
        """Start the command."""
        return processes.start(self.command, self.folder, self.environment)

    def kill_at_once(self, command: Marked) -> float | None:
        """Kill the command; return the seconds until it has left nothing, or None if it left something.

        What it has requested is still answered, and would be taken for pages of the next command.
        """
        command.kill()
        seconds = command.seconds_until_alone(_LIMIT)
        time.sleep(2 * _LATENCY_SECONDS)
        return seconds

    def answered(self) -> int:
        """Return the number of pages of events that the account has answered with so far."""
        answers: dict[str, int] = self.box.state()["answers"]
        return answers.get(_PAGES, 0)

    def column(self, query: str) -> list[str]:
        """Return the values of a query's only column, as text. The first run creates the tables."""
        psql = [sys.executable, "-m", "klaviyo_pg", "psql", "-Atc", query]
        run = subprocess.run(
            psql, cwd=self.folder, env=dict(self.environment), capture_output=True, text=True, check=False
        )
        return run.stdout.split() if run.returncode == 0 else []

    def stored(self) -> int:
        """Return a number that grows with everything that is stored: rows, and spooled events."""
        rows = f"{_EVENTS} UNION ALL SELECT id FROM klaviyo.members UNION ALL SELECT member_id FROM {_LISTED}"
        in_spool = sum(SpooledChunk(chunk).events for chunk in (self.folder / "spool").glob("*/*"))
        return sum(map(int, self.column(f"SELECT count(*) FROM ({rows}) AS stored"))) + in_spool

    def kill(self, number: int, moment: float) -> bool:
        """Kill the command after some seconds. Prints what it left, and returns whether all of that is right."""
        before, read_before = self.stored(), self.answered()
        command = self.start()
        with suppress(subprocess.TimeoutExpired):
            command.process.wait(max(0.0, moment - _STORE_SECONDS))
        read = self.answered() - read_before
        with suppress(subprocess.TimeoutExpired):
            command.process.wait(min(moment, _STORE_SECONDS))
        had_ended = command.process.poll() is not None
        seconds = self.kill_at_once(command)
        gained = self.stored() - before
        is_right = seconds is not None and (gained > 0 or read == 0 or had_ended)
        left = "PROCESSES LEFT" if seconds is None else f"nothing left after {seconds:.1f} s"
        what = "had ended" if had_ended else f"killed after {moment:4.1f} s, {_STORE_SECONDS:.0f} s after page {read}"
        print(f"{number:2} {what}: {gained:,} more stored, {left}{'' if is_right else '  WRONG'}", flush=True)
        return is_right

    def finish(self) -> bool:
        """Run the command to its end; return whether every row is there once and nothing is left over."""
        command = self.start()
        code = command.process.wait()
        events, people = self.column(_EVENTS), self.column("SELECT id FROM klaviyo.members")
        expected = sorted(str(each["id"]) for each in self.box.events())
        has_events, has_people = sorted(events) == expected, len(people) == len(set(people)) >= len(self.box.profiles())
        spool = [path for path in (self.folder / "spool").rglob("*") if path.is_file()]
        print(
            f"Run to its end: exit code {code}, {len(events):,} of {len(expected):,} events, each once: {has_events}; "
            f"{len(people):,} people: {has_people}; {len(spool)} files in the spool.",
            flush=True,
        )
        is_alone = command.seconds_until_alone(_LIMIT) is not None
        return code == 0 and has_events and (has_people or "backfill" in self.command[0]) and not spool and is_alone


def _start_seconds(load: _Load) -> float:
    """Return how long a start takes until the first page is requested, and kill the command then."""
    began, before = time.monotonic(), load.answered()
    command = load.start()
    while load.answered() == before and command.process.poll() is None:
        time.sleep(0.1)
    seconds = time.monotonic() - began
    load.kill_at_once(command)
    return seconds


def _kill_load(name: str, kills: int, chance: random.Random) -> bool:
    """Kill one load at random moments from the first second on, then run it to its end. Return whether all is right."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path,
        running(events=60_000, members=2_000, days=100, latency_ms=int(1_000 * _LATENCY_SECONDS)) as box,
    ):
        box.set_server(most_events=100)
        folder = Path(path)
        folder.chmod(0o755)  # started by root, Postgres runs as another user
        settings = {
            "DATA_DIR": path,
            "PREFECT_HOME": str(folder / "prefect"),
            "KLAVIYO_BASE_URL": box.url,
            "KLAVIYO_API_KEY": box.api_key,
            "FIRST_SYNC_DAYS": "400",
        }
        command = [str(ROOT / _LOADS[name][0]), *_LOADS[name][1:]]
        load = _Load(command, box, folder, {**processes.bare_environment(), **settings})
        start = min(_start_seconds(load) for _ in range(2))  # the first one sets things up
        print(f"{name}: the first page after {start:.1f} s", flush=True)
        right = [load.kill(number, chance.uniform(1, 2 * start + 5)) for number in range(1, kills + 1)]
        print(f"{sum(right)} of {kills} kills left nothing running, and more in the warehouse if a page had been read.")
        return load.finish() and all(right)


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill every command at several moments. Exits with 1 if a process survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=5, help="kills of each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", choices=_COMMANDS, action="append", help="only this command")
    parser.add_argument("--load", choices=_LOADS, help="kill one load again and again instead")
    parser.add_argument("--kills", type=int, default=20, help="kills of the load")
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    if options.load:
        sys.exit(0 if _kill_load(options.load, options.kills, chance) else 1)
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
