"""`python -m benchmarks.ten_people --histories 1000`: play random histories of ten people, as its test does.

After each run of a history, the warehouse is compared with a model in plain Python. The first difference ends the
benchmark: it is printed with a shortened history and the seed, which `--seed` repeats.
"""

import argparse
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import psycopg
from hypothesis import HealthCheck, Phase, given, seed, settings
from psycopg.conninfo import make_conninfo

from klaviyo_pg.postgres import schema
from tests.driver import postgres_server
from tests.histories import History, histories
from tests.play import SCHEMA, Difference, Stage

_PROGRESS = 20  # histories between two lines


def main() -> None:
    """Play histories. Exit with 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5, help="most runs in a history")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with TemporaryDirectory() as folder, _stage(Path(folder)) as stage:
        try:
            _play(stage, options.histories, options.runs, options.seed)
        except Difference as difference:
            print(f"{difference}\nseed {options.seed}")
            sys.exit(1)


def _play(stage: Stage, number: int, most_runs: int, chosen: int) -> None:
    began, played, runs = monotonic(), 0, 0

    @seed(chosen)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(histories(most_runs))
    def play(history: History) -> None:
        nonlocal played, runs
        stage.play_shortened(history)
        played, runs = played + 1, runs + len(history.periods)
        if played % _PROGRESS == 0 or played == number:
            print(f"{played:,} of {number:,} histories, {runs:,} runs, {monotonic() - began:,.0f} s", flush=True)

    play()


@contextmanager
def _stage(folder: Path) -> Iterator[Stage]:
    """Yield a stage in a separate database."""
    server = postgres_server(folder / "server")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE ten_people")
    database = make_conninfo(server, dbname="ten_people")
    with psycopg.connect(database) as connection:
        schema.upgrade(connection, SCHEMA)
    with psycopg.connect(database, autocommit=True) as connection:
        yield Stage.opened(connection, database, folder)


if __name__ == "__main__":
    main()
