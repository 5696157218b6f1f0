"""`python -m benchmarks.ten_people --histories 1000`: play random histories of ten people, as its test does.

After each run of a history, the warehouse is compared with a model in plain Python. The first difference ends the
benchmark: it is printed with a shortened history and the seed, which `--seed` repeats. Each hundred histories get a
separate database, and a seed that follows that of the hundred before.
"""

import argparse
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

import psycopg
from hypothesis import HealthCheck, Phase, given, seed, settings
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from klaviyo_pg.postgres import schema
from tests.driver import postgres_server
from tests.histories import History, histories
from tests.play import SCHEMA, Difference, Stage

_TOGETHER = 100  # histories in one database; each is a separate account


def main() -> None:
    """Play histories. Exit with 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5, help="most runs in a history")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    options = parser.parse_args()
    began, runs = monotonic(), 0
    with TemporaryDirectory() as folder:
        server = postgres_server(Path(folder) / "server")
        for number, played in enumerate(range(0, options.histories, _TOGETHER)):
            part = _Part(options.seed + number, min(_TOGETHER, options.histories - played), options.runs)
            print(f"seed {part.seed}", flush=True)
            with _stage(server, Path(folder), f"ten_people_{number}") as stage:
                runs += _play_or_exit(stage, part)
            print(
                f"{played + part.histories:,} of {options.histories:,} histories, {runs:,} runs, "
                f"{monotonic() - began:,.0f} s",
                flush=True,
            )


class _Part(NamedTuple):
    """Histories that share a database."""

    seed: int
    histories: int
    most_runs: int


def _play_or_exit(stage: Stage, part: _Part) -> int:
    """Play histories and return the number of their runs. Exit with 1 at the first difference."""
    try:
        return _play(stage, part)
    except Difference as difference:
        print(f"{difference}\nseed {part.seed}")
        sys.exit(1)


def _play(stage: Stage, part: _Part) -> int:
    runs = 0

    @seed(part.seed)
    @settings(
        max_examples=part.histories,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(histories(part.most_runs))
    def play(history: History) -> None:
        nonlocal runs
        stage.play_shortened(history)
        runs += len(history.periods)

    play()
    return runs


@contextmanager
def _stage(server: str, folder: Path, name: str) -> Iterator[Stage]:
    """Yield a stage in a separate database."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    database = make_conninfo(server, dbname=name)
    with psycopg.connect(database) as connection:
        schema.upgrade(connection, SCHEMA)
    with psycopg.connect(database, autocommit=True) as connection:
        yield Stage.opened(connection, database, folder)


if __name__ == "__main__":
    main()
