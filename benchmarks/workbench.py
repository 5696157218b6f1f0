"""Shared by the benchmarks: a temporary workspace, a command-line parser, and the output of a result."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.comparison import write_section
from tests.driver import prefect_server


@contextmanager
def workspace() -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a temporary folder that other users can read, and the environment of a Prefect server."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # started by root, Postgres runs as another user
        home = folder / "prefect"
        home.mkdir()
        with prefect_server(home) as prefect:
            yield folder, prefect


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
