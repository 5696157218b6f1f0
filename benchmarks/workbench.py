"""What the benchmarks have in common: a place to work in, and a document to write what came of it into."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.comparing import write_section
from tests.driver import prefect_server


@contextmanager
def workplace() -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder, which Postgres can use as another user, and a Prefect server with the environment that leads to it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        home = folder / "prefect"
        home.mkdir()
        with prefect_server(home) as prefect:
            yield folder, prefect


def parser(described: str | None) -> argparse.ArgumentParser:
    """For the command of a benchmark that can write a document."""
    made = argparse.ArgumentParser(description=described)
    made.add_argument("--write", type=Path, help="the document to write the result into")
    return made


def written(document: Path | None, title: str, text: str) -> None:
    """Print a section, and put it into the document if there is one."""
    print(text)
    if document is not None:
        write_section(document, title, text)
