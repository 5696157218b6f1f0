"""`python -m benchmarks.people`: the cost of people. Processor time, WAL, requests and memory, whatever their number.

- `cost`: profiles with 20 properties that are new, unchanged, or changed in one property, per person.
- `kills`: requests beyond the minimum of a sweep of all profiles that is killed again and again.
- `windows`: eight readers against one, with a delay before each response.
- `events`: events of few and of many people, twice: rate and peak memory.

Everything runs on this machine, against a server that derives people from their numbers (benchmarks.people_server).
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import psycopg

from tests.driver import postgres_server
from tests.runs import Warehouse

_PEOPLE = ("members",)


@dataclass(frozen=True)
class _Account:
    """A running account server."""

    url: str

    def control(self, **values: object) -> dict[str, int]:
        query = "&".join(f"{name}={value}" for name, value in values.items())
        with urlopen(f"{self.url}/control?{query}") as answer:
            counts: dict[str, int] = json.load(answer)
        return counts


@contextmanager
def _account(people: int, events: int = 1_000, kind: str = "even") -> Iterator[_Account]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [str(port), str(people), "--events", str(events), "--kind", kind]
    with subprocess.Popen([sys.executable, "-m", "benchmarks.people_server", *arguments]) as process:
        account = _Account(f"http://127.0.0.1:{port}")
        try:
            while True:
                try:
                    account.control()
                    break
                except URLError:
                    time.sleep(0.1)
            yield account
        finally:
            process.terminate()


def _warehouse(url: str, account: _Account, folder: Path, **settings: object) -> Warehouse:
    values = {
        "database_url": url,
        "klaviyo_base_url": account.url,
        "klaviyo_api_key": "pk_none",
        "klaviyo_integration": "people",
        "data_dir": folder,
        "first_sync_days": 8,
        "rate_limit_share": 1.0,
        "membership_sweep_days": 0,
        "profile_sweep_days": 0,
        **settings,
    }
    return Warehouse(url, values)


class _Meter:
    """Measures processor time of this process and of the database's sessions, and WAL.

    Sessions are looked at ten times a second, because not every system adds up the times of processes that have ended.
    """

    def __init__(self, url: str) -> None:
        self._url, self._sessions, self._is_over = url, dict[int, float](), threading.Event()
        with psycopg.connect(url, autocommit=True) as connection:
            folder = connection.execute("SHOW data_directory").fetchone()
            connection.execute("CHECKPOINT")
        assert folder is not None
        self._server = int((Path(folder[0]) / "postmaster.pid").read_text().split("\n", 1)[0])
        self._look()
        self._before = sum(self._sessions.values())
        self._start = time.process_time(), time.monotonic(), self._wal()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _wal(self) -> int:
        with psycopg.connect(self._url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        assert row is not None
        return int(row[0])

    def _watch(self) -> None:
        while not self._is_over.wait(0.1):
            self._look()

    def _look(self) -> None:
        for child in psutil.Process(self._server).children():
            with suppress(psutil.NoSuchProcess):
                self._sessions[child.pid] = sum(child.cpu_times()[:2])

    def read(self) -> tuple[float, float, float, int]:
        """Return the processor seconds of this process and of the database, the seconds, and the bytes of WAL."""
        self._look()
        self._is_over.set()
        self._thread.join()
        loader, began, wal = self._start
        database = sum(self._sessions.values()) - self._before
        return time.process_time() - loader, database, time.monotonic() - began, self._wal() - wal


def cost(options: argparse.Namespace, folder: Path, url: str) -> None:
    """Print the cost of each person: new, unchanged, changed in one property."""
    print("| people | loader, µs | database, µs | WAL, bytes | s |\n|---|---:|---:|---:|---:|")
    with _account(options.people, 1) as account:
        warehouse = _warehouse(url, account, folder, concurrency=1)
        for title, version in (("new", 0), ("unchanged", 0), ("one property changed", 1)):
            account.control(version=version)
            if title != "new":
                warehouse.execute("DELETE FROM watermarks WHERE stream = 'profiles'")
            meter = _Meter(url)
            assert warehouse.daily(*_PEOPLE).exit_code == 0
            loader, database, seconds, wal = meter.read()
            per = [1e6 * loader / options.people, 1e6 * database / options.people, wal / options.people]
            print(f"| {title} | {per[0]:,.0f} | {per[1]:,.0f} | {per[2]:,.0f} | {seconds:.1f} |", flush=True)
        stored = warehouse.one("SELECT count(*) FROM member_attributes")
        assert stored == 20 * options.people, f"{stored} attributes are stored"


_PARTS: Mapping[str, Callable[[argparse.Namespace, Path, str], None]] = {"cost": cost}


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["cost"], help=f"any of {', '.join(_PARTS)}")
    parser.add_argument("--people", type=int, default=30_000)
    options = parser.parse_args()
    for part in options.parts:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            folder.chmod(0o755)  # started by root, Postgres runs as another user
            print(f"\n{part}: {options.people:,} people\n")
            _PARTS[part](options, folder, postgres_server(folder))


if __name__ == "__main__":
    main()
