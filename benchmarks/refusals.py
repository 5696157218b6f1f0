"""The time to each of 15 refusals of a command, and its line. Exits with 1 if one is slow or says more."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

import psycopg

from klaviyo_pg.postgres import accounts, claims, schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.server import embedded
from sandbox.api.keys import key_of
from sandbox.launcher import running

_MOST_SECONDS = 3.0
_ROOT = Path(__file__).resolve().parent.parent
_SCHEMA = "klaviyo"
_ACCOUNT = "SANDBX"  # of the sandbox, by default


class Case(NamedTuple):
    """A mistake: the arguments of `klaviyo-pg`, changed settings, and lines of .env."""

    name: str
    arguments: Sequence[str]
    settings: Mapping[str, str] = {}
    env_file: str = ""


class Refusal(NamedTuple):
    """The result of a refused command."""

    seconds: float
    code: int
    output: str

    @property
    def is_good(self) -> bool:
        """True if the refusal was fast, and one line."""
        return self.seconds < _MOST_SECONDS and self.code in (1, 2) and len(self.output.splitlines()) == 1


CASES = (
    Case("unknown flag", ["daily", "--tab", "sends"]),
    Case("unknown table", ["daily", "--tables", "send"]),
    Case("malformed date", ["daily", "--since", "31.01.2026"]),
    Case("no day to load", ["backfill", "--start", "today"]),
    Case("malformed METRICS", ["daily"], {"METRICS": "["}),
    Case("malformed DESTINATIONS", ["daily"], {"DESTINATIONS": "x"}),
    Case("misspelled name in .env", ["daily"], {}, "PERSONAL_DATE=hash\n"),
    Case("no API key", ["daily"], {"KLAVIYO_API_KEY": ""}),
    Case("no database for a real account", ["daily"], {"DATABASE_URL": "", "KLAVIYO_BASE_URL": ""}),
    Case("database that is not there", ["daily"], {"DATABASE_URL": "postgresql://127.0.0.1:9/none"}),
    Case("wrong API key", ["daily"], {"KLAVIYO_API_KEY": "pk_wrong"}),
    Case("unresolvable host", ["backfill", "--start", "7d", "--plan"], {"KLAVIYO_BASE_URL": "https://x.invalid"}),
    Case("unknown metric", ["daily", "--metrics", "Recieved Email"]),
    Case("second name of an account", ["daily", "--integration", "second"]),
    Case("another run in progress", ["daily", "--integration", "busy"], {"KLAVIYO_API_KEY": key_of("busy")}),
)


def main() -> int:
    """Print the time and the line of each refusal, and return the exit code."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        box = stack.enter_context(running(members=20, events=50, days=5))
        url = embedded.url(Path(folder) / "data")
        holder = stack.enter_context(psycopg.connect(url, autocommit=True))
        _fill(holder)
        settings = {"KLAVIYO_BASE_URL": box.url, "KLAVIYO_API_KEY": box.api_key, "DATABASE_URL": url}
        refusals = [_refuse(case, settings, Path(folder)) for case in CASES]
    for case, refusal in zip(CASES, refusals, strict=True):
        verdict = "ok " if refusal.is_good else "BAD"
        print(f"{verdict} {refusal.seconds:4.1f} s  code {refusal.code}  {case.name}: {refusal.output.strip()}")
    return 0 if all(refusal.is_good for refusal in refusals) else 1


def _fill(connection: psycopg.Connection) -> None:
    """Register the account, and another one of which a daily run seems to be in progress."""
    schema.upgrade(connection, _SCHEMA)
    accounts.register(connection, _SCHEMA, "default", _ACCOUNT)
    busy = accounts.register(connection, _SCHEMA, "busy", "busy")
    assert claims.try_claim(Account(connection, _SCHEMA, busy.integration_id), "daily")


def _refuse(case: Case, settings: Mapping[str, str], folder: Path) -> Refusal:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KLAVIYO_", "PREFECT_"))}
    changed = {name: value for name, value in {**settings, **case.settings}.items() if value}
    unset = {name: "" for name in ("KLAVIYO_API_KEY", "DATABASE_URL") if name not in changed}
    environment = {**inherited, "PYTHONPATH": str(_ROOT), "PREFECT_HOME": str(folder / "prefect"), **changed, **unset}
    (folder / ".env").write_text(case.env_file)
    began = monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "klaviyo_pg", *case.arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Refusal(monotonic() - began, ran.returncode, ran.stdout + ran.stderr)


if __name__ == "__main__":
    sys.exit(main())
