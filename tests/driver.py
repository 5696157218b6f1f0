"""Driving the project as its users do: its commands as processes, its results by SQL."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from sandbox.launcher import Sandbox

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """The summary that it printed: table -> read, inserted, updated, unchanged, rejected."""
        rows = [line.strip("│ ").split("│") for line in self.out.splitlines() if line.startswith("│")]
        return {name.strip(): tuple(int(text.replace(",", "")) for text in rest) for name, *rest in rows}


@dataclass(frozen=True)
class Warehouse:
    """A database, and the command that fills it."""

    url: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def sync(self, *arguments: str, **settings: str) -> Ran:
        """`python flows/daily.py` with these arguments and settings."""
        return self.run(["flows/daily.py", *arguments], settings)

    def run(self, command: Sequence[str], settings: Mapping[str, str]) -> Ran:
        """Any Python command of the project, in its environment."""
        environment = {**self.environment, "DATABASE_URL": self.url, **settings}
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query answers."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    def one(self, query: str, *values: Any) -> Any:
        """The only value that a query answers."""
        [[value]] = self.rows(query, *values)
        return value


def account(box: Sandbox, name: str = "default") -> dict[str, str]:
    """Settings that lead to a sandbox account."""
    return {"KLAVIYO_BASE_URL": box.url, "KLAVIYO_API_KEY": box.api_key, "KLAVIYO_INTEGRATION": name}
