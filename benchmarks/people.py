"""`python -m benchmarks.people`: the cost of people. Processor time, WAL and requests, whatever their number.

- `cost`: profiles with 20 properties that are new, unchanged, or changed in one property, per person.
- `floor`: the same properties copied into an empty table and nothing else, per person.
- `kills`: requests beyond the minimum of a sweep of all profiles that is killed again and again.
- `windows`: eight readers against one, with a delay before each response.

Everything runs on this machine, against a server that derives people from their numbers (benchmarks.people_server).
"""

import argparse
import json
import signal
import socket
import subprocess
import sys
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

from benchmarks.workbench import readable_folder, wal_position
from tests.driver import postgres_server
from tests.runs import Warehouse

_PEOPLE = ("members",)
_COPIES = {
    "with its primary key": "LIKE klaviyo.member_attributes INCLUDING INDEXES",
    "without an index": "LIKE klaviyo.member_attributes",
}
"""Copies of the table of properties, by what is said of them."""


@dataclass(frozen=True)
class Account:
    """A running account server."""

    url: str

    def control(self, **values: object) -> dict[str, int]:
        """Set the version of the data or the latency, or reset the counts. Return the requests so far, by endpoint."""
        query = "&".join(f"{name}={value}" for name, value in values.items())
        with urlopen(f"{self.url}/control?{query}") as answer:
            counts: dict[str, int] = json.load(answer)
        return counts


@contextmanager
def _account(people: int, kind: str = "even") -> Iterator[Account]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [str(port), str(people), "--events", "1", "--kind", kind]
    with subprocess.Popen([sys.executable, "-m", "benchmarks.people_server", *arguments]) as process:
        account = Account(f"http://127.0.0.1:{port}")
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


def warehouse(url: str, account: Account, folder: Path, **settings: object) -> Warehouse:
    """Return a warehouse that loads an account in this process."""
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
            return wal_position(connection)

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
    with _account(options.people) as account:
        loaded = warehouse(url, account, folder, concurrency=1)
        for title, version in (("new", 0), ("unchanged", 0), ("one property changed", 1)):
            account.control(version=version)
            if title != "new":
                loaded.execute("DELETE FROM watermarks WHERE stream = 'profiles'")
            meter = _Meter(url)
            assert loaded.daily(*_PEOPLE).exit_code == 0
            loader, database, seconds, wal = meter.read()
            per = [1e6 * loader / options.people, 1e6 * database / options.people, wal / options.people]
            print(f"| {title} | {per[0]:,.0f} | {per[1]:,.0f} | {per[2]:,.0f} | {seconds:.1f} |", flush=True)
        stored = loaded.one("SELECT count(*) FROM member_attributes")
        assert stored == 20 * options.people, f"{stored} attributes are stored"


def floor(options: argparse.Namespace, folder: Path, url: str) -> None:
    """Print what it costs the database at least to store a person's properties: COPY of rows that are text already."""
    print("| table | database, µs | WAL, bytes |\n|---|---:|---:|")
    with _account(options.people) as account:
        assert warehouse(url, account, folder, concurrency=1).daily(*_PEOPLE).exit_code == 0
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY klaviyo.member_attributes TO STDOUT") as stored:
            text = b"".join(stored)
        for title, table in _COPIES.items():
            connection.execute(f"DROP TABLE IF EXISTS copied; CREATE TABLE copied ({table})")
            meter = _Meter(url)
            with cursor.copy("COPY copied FROM STDIN") as copy:
                copy.write(text)
            _, database, _, wal = meter.read()
            print(f"| {title} | {1e6 * database / options.people:,.0f} | {wal / options.people:,.0f} |", flush=True)


_READ = """
import sys
from pathlib import Path
from benchmarks.people import Account, warehouse
url, account, folder, readers = sys.argv[1:]
print(warehouse(url, Account(account), Path(folder), concurrency=int(readers)).daily("members").exit_code)
"""


def _reader(url: str, account: Account, folder: Path, readers: int) -> "subprocess.Popen[str]":
    """Start a process that reads all profiles."""
    arguments = [sys.executable, "-c", _READ, url, account.url, str(folder), str(readers)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def _forget(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS klaviyo, klaviyo_internal CASCADE")


def kills(options: argparse.Namespace, folder: Path, url: str) -> None:
    """Print the requests of a sweep that is killed again and again, beyond those of one that is not."""
    with _account(options.people, options.kind) as account:
        with _reader(url, account, folder, options.readers) as process:
            process.wait()
        least = account.control(reset=1)["api/profiles"]
        _forget(url)
        done = 0
        for number in range(options.kills):
            goal = least * (number + 1) // (options.kills + 1)
            with _reader(url, account, folder, options.readers) as process:
                while process.poll() is None and account.control().get("api/profiles", 0) < goal:
                    time.sleep(0.02)
                done += process.poll() is None
                process.send_signal(signal.SIGKILL)
        with _reader(url, account, folder, options.readers) as process:
            code = process.communicate()[0].strip()
        asked = account.control()["api/profiles"]
        with psycopg.connect(url) as connection:
            stored = connection.execute("SELECT count(*) FROM klaviyo.members WHERE created_at IS NOT NULL").fetchone()
    print("| kills | readers | exit code | people stored | requests undisturbed | requests | more per kill |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    more = (asked - least) / max(1, done)
    print(f"| {done} | {options.readers} | {code} | {stored and stored[0]:,} | {least:,} | {asked:,} | {more:.1f} |")


def windows(options: argparse.Namespace, folder: Path, url: str) -> None:
    """Print how long one and eight readers take for all profiles, with a delay before each response."""
    print("| times of change | readers | s | requests |\n|---|---:|---:|---:|")
    for kind in options.kinds:
        with _account(options.people, kind) as account:
            for readers in options.side_by_side:
                _forget(url)
                account.control(reset=1, latency=options.latency)
                began = time.monotonic()
                assert warehouse(url, account, folder, concurrency=readers).daily("members").exit_code == 0
                seconds, requests = time.monotonic() - began, account.control()["api/profiles"]
                print(f"| {kind} | {readers} | {seconds:.1f} | {requests:,} |", flush=True)


_PARTS: Mapping[str, Callable[[argparse.Namespace, Path, str], None]] = {
    "cost": cost,
    "floor": floor,
    "kills": kills,
    "windows": windows,
}


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["cost"], help=f"any of {', '.join(_PARTS)}")
    parser.add_argument("--people", type=int, default=30_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--side-by-side", nargs="*", type=int, default=[1, 8], help="readers, for `windows`")
    parser.add_argument("--kind", default="even", help="how the times of change are spread, for `kills`")
    parser.add_argument("--kinds", nargs="*", default=["even", "burst"], help="the same for `windows`")
    parser.add_argument("--latency", type=float, default=0.15, help="seconds before each response, for `windows`")
    options = parser.parse_args()
    for part in options.parts:
        with readable_folder() as folder:
            print(f"\n{part}: {options.people:,} people\n")
            _PARTS[part](options, folder, postgres_server(folder))


if __name__ == "__main__":
    main()
