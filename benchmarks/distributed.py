"""`python -m benchmarks.distributed`: a backfill read by several workers, some of them killed, beside one process.

A Prefect server, a process pool, workers, the sandbox with the published rate limits and 150 ms an answer. Measured:
seconds of one process and of all workers, contents, and the requests that the account saw in each second and minute.
`--processors 0.4` holds the one process, and each worker with what it runs, to that share of a processor, as a
container's limit does; it needs root and control groups.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from benchmarks.backfill_soak import Bench
from benchmarks.workbench import workplace
from klaviyo_pg.postgres import embedded
from sandbox.launcher import Sandbox, running

_ROOT = Path(__file__).resolve().parent.parent
_BURST, _STEADY = 350, 3500  # published for GET /api/events


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument(
        "--days", type=int, default=1825, help="of history; a year of a metric is a question for counts"
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--latency", type=int, default=150, help="milliseconds an answer")
    parser.add_argument("--limits", choices=["published", "off"], default="published", help="of the account")
    parser.add_argument("--page", type=int, default=1_000, help="events on a page, at most")
    parser.add_argument("--processors", type=float, help="of the one process, and of each worker")
    given = parser.parse_args()
    options = {"events": given.events, "days": given.days, "members": 20_000, "latency_ms": given.latency}
    start = f"{datetime.now(UTC) - timedelta(days=given.days + 5):%Y-%m-%d}"  # with a margin
    with workplace() as (folder, prefect), running(**options, limits=given.limits) as box:
        box.set_server(most_events=given.page)
        url = embedded.url(folder)
        bench = Bench(box, url, prefect, start)
        child = bench.start("alone", DATA_DIR=str(folder / "alone"))
        _hold(child.pid, given.processors)
        alone, _ = bench.ended(child, "alone")
        truth = bench.truth()
        assert bench.contents("alone") == truth
        print(
            f"{given.events:,} events, {given.page:,} on a page, {given.latency} ms an answer:"
            f" one process {alone:.1f} s",
            flush=True,
        )
        environment = {
            **prefect,
            "KLAVIYO_BASE_URL": box.url,
            "KLAVIYO_API_KEY": box.api_key,
            "DATABASE_URL": url,
            "WAREHOUSE_SCHEMA": "shared",
            "PROJECT_DIR": str(_ROOT),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }
        _prefect(environment, "--no-prompt", "work-pool", "create", "klaviyo", "--type", "process")
        _prefect(environment, "--no-prompt", "deploy", "--all")
        killed = _distributed(bench, environment, folder, given, start, alone)
        assert bench.contents("shared") == truth
        [(seconds, requests)] = bench.rows(
            "SELECT extract(epoch FROM finished_at - started_at)::float, requests FROM shared.runs"
        )
        print(f"{given.workers} workers, {killed} of them killed: {seconds:.1f} s, {requests} requests, same contents")
        _limits(box)


def _prefect(environment: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "prefect", *arguments], cwd=_ROOT, env=environment, check=True)


def _hold(pid: int, processors: float | None) -> None:
    """Hold a process, and those that it starts, to a share of a processor (None: all that there is)."""
    if processors is None:
        return
    first = Path("/sys/fs/cgroup/cpu")  # control groups of version 1; else those of version 2
    group = (first if first.exists() else first.parent) / f"klaviyo-pg-{pid}"
    group.mkdir()
    quota = round(processors * 100_000)  # microseconds of each tenth of a second
    if first.exists():
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} 100000")
    (group / "cgroup.procs").write_text(str(pid))


def _distributed(
    bench: Bench, environment: dict[str, str], folder: Path, given: argparse.Namespace, start: str, took: float
) -> int:
    """Start workers and the backfill, kill some of the workers with all that they run, wait for the end."""
    rng, killed = random.Random(3), 0
    with ExitStack() as stack, (folder / "workers.log").open("w") as log:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "klaviyo", "--limit", "1"]
        children = [
            subprocess.Popen(
                command, cwd=folder, env={**environment, "DATA_DIR": str(folder / f"w{number}")}, stdout=log, stderr=log
            )
            for number in range(given.workers)
        ]
        for child in children:
            stack.callback(_end, child)
            _hold(child.pid, given.processors)
        backfill = [sys.executable, "flows/backfill.py", "--start", start, "--distribute"]
        parent = subprocess.Popen(backfill, cwd=_ROOT, env=environment, stdout=log, stderr=log)
        _hold(parent.pid, given.processors)
        while parent.poll() is None and not _has_begun(bench):
            time.sleep(0.2)
        for child in children[: given.kills]:
            time.sleep(rng.uniform(0.1, 0.4) * took / max(1, given.kills))
            killed += parent.poll() is None
            _kill(child)
        code = parent.wait()
        assert code == 0, (folder / "workers.log").read_text()[-5000:]
    return killed


def _has_begun(bench: Bench) -> bool:
    if bench.rows("SELECT to_regclass('shared.backfill_chunks')") == [(None,)]:
        return False
    return bench.rows("SELECT coalesce(sum(loaded), 0) > 0 FROM shared.backfill_chunks") == [(True,)]


def _kill(worker: "subprocess.Popen[bytes]") -> None:
    """The worker and the runs that it has started, as a machine that loses its power."""
    for process in [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]:
        os.kill(process.pid, signal.SIGKILL)


def _end(worker: "subprocess.Popen[bytes]") -> None:
    if worker.poll() is None:
        _kill(worker)
    worker.wait()


def _limits(box: Sandbox) -> None:
    traffic = box.traffic()["GET /api/events"]
    seconds = {int(second): count for second, count in traffic["seconds"].items()}
    minutes: dict[int, int] = {}
    for second, count in seconds.items():
        minutes[second // 60] = minutes.get(second // 60, 0) + count
    print(
        f"most requests in a second {max(seconds.values())} of {_BURST}, in a minute {max(minutes.values())} of"
        f" {_STEADY}; answers 429: {traffic['throttled']}"
    )


if __name__ == "__main__":
    main()
