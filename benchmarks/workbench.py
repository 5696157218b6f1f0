"""Shared by the benchmarks: temporary folders, a command-line parser, measurements, and the output of a result."""

import argparse
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.comparison import write_section
from tests.driver import prefect_server


@contextmanager
def readable_folder() -> Iterator[Path]:
    """Yield a temporary folder that other users can read: started by root, Postgres runs as another user."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def workspace() -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a temporary folder that other users can read, and the environment of a Prefect server."""
    with readable_folder() as folder:
        home = folder / "prefect"
        home.mkdir()
        with prefect_server(home) as prefect:
            yield folder, prefect


def wal_position(connection: psycopg.Connection) -> int:
    """Return how many bytes of WAL the server has written; the difference of two positions is what happened between."""
    [[position]] = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchall()
    return int(position)


def processor_seconds(whose: int = resource.RUSAGE_SELF) -> float:
    """Return the processor time of this process, or of its children that have ended."""
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def peak_memory_mb(whose: int = resource.RUSAGE_SELF) -> float:
    """Return the peak memory of this process, or of the largest of its children that have ended."""
    return resource.getrusage(whose).ru_maxrss / 1024


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a command-line parser for a benchmark that can write its result into a document."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--write", type=Path, help="document to write the result into")
    return made


def report(document: Path | None, title: str, text: str) -> None:
    """Print a section. Write it into the document too, if there is one."""
    print(text)
    if document is not None:
        write_section(document, title, text)
