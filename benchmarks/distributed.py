"""`python -m benchmarks.distributed`: compare a backfill by several workers with a single process.

Uses a Prefect server, a process pool, workers of which some are killed, and the sandbox with the published rate
limits and 150 ms per response. It measures the seconds of the single process and of all workers, compares the
contents, and counts the requests that the account received per second and minute. `--processors 0.4` limits the
single process, and each worker with its children, to that share of a processor, as a container does; it needs root
and control groups.
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
from benchmarks.workbench import workspace
from klaviyo_pg.postgres.server import embedded
from sandbox.launcher import Sandbox, running

_ROOT = Path(__file__).resolve().parent.parent
_BURST, _STEADY = 350, 3500  # published for GET /api/events


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--days", type=int, default=1825, help="length of the history")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--latency", type=int, default=150, help="milliseconds per response")
    parser.add_argument(
        "--limits", choices=["published", "off"], default="published", help="rate limits of the account"
    )
    parser.add_argument("--page", type=int, default=1_000, help="largest number of events per page")
    parser.add_argument("--processors", type=float, help="processors of the single process, and of each worker")
    options = parser.parse_args()
    account = {"events": options.events, "days": options.days, "members": 20_000, "latency_ms": options.latency}
    start = f"{datetime.now(UTC) - timedelta(days=options.days + 5):%Y-%m-%d}"  # before the first event
    with workspace() as (folder, prefect), running(**account, limits=options.limits) as box:
        box.set_server(most_events=options.page)
        url = embedded.url(folder)
        bench = Bench(box, url, prefect, start)
        child = bench.start("alone", DATA_DIR=str(folder / "alone"))
        _limit(child.pid, options.processors)
        alone, _ = bench.wait(child, "alone")
        truth = bench.truth()
        assert bench.contents("alone") == truth
        print(
            f"{options.events:,} events, {options.page:,} per page, {options.latency} ms per response:"
            f" single process {alone:.1f} s",
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
        killed = _distributed(bench, environment, folder, options, start, alone)
        assert bench.contents("shared") == truth
        [(seconds, requests)] = bench.rows(
            "SELECT extract(epoch FROM finished_at - started_at)::float, requests FROM shared.runs"
        )
        workers = f"{options.workers} workers, {killed} of these killed"
        print(f"{workers}: {seconds:.1f} s, {requests} requests, same contents")
        _print_traffic(box)


def _prefect(environment: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "prefect", *arguments], cwd=_ROOT, env=environment, check=True)


def _limit(pid: int, processors: float | None) -> None:
    """Limit a process and its children to a share of a processor. None means no limit."""
    if processors is None:
        return
    first = Path("/sys/fs/cgroup/cpu")  # control groups version 1; without it, version 2
    group = (first if first.exists() else first.parent) / f"klaviyo-pg-{pid}"
    group.mkdir()
    quota = round(processors * 100_000)  # microseconds per tenth of a second
    if first.exists():
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} 100000")
    (group / "cgroup.procs").write_text(str(pid))


def _distributed(
    bench: Bench, environment: dict[str, str], folder: Path, options: argparse.Namespace, start: str, took: float
) -> int:
    """Run the backfill with several workers, and kill some of them; return how many were killed in time."""
    rng, killed = random.Random(3), 0
    with ExitStack() as stack, (folder / "workers.log").open("w") as log:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "klaviyo", "--limit", "1"]
        children = [
            subprocess.Popen(
                command, cwd=folder, env={**environment, "DATA_DIR": str(folder / f"w{number}")}, stdout=log, stderr=log
            )
            for number in range(options.workers)
        ]
        for child in children:
            stack.callback(_stop, child)
            _limit(child.pid, options.processors)
        backfill = [sys.executable, "flows/backfill.py", "--start", start, "--distribute"]
        parent = subprocess.Popen(backfill, cwd=_ROOT, env=environment, stdout=log, stderr=log)
        _limit(parent.pid, options.processors)
        while parent.poll() is None and not _has_begun(bench):
            time.sleep(0.2)
        for child in children[: options.kills]:
            time.sleep(rng.uniform(0.1, 0.4) * took / max(1, options.kills))
            killed += parent.poll() is None
            _kill(child)
        code = parent.wait()
        assert code == 0, (folder / "workers.log").read_text()[-5000:]
    return killed


def _has_begun(bench: Bench) -> bool:
    if bench.rows("SELECT to_regclass('shared_internal.backfill_chunks')") == [(None,)]:
        return False
    return bench.rows("SELECT coalesce(sum(loaded), 0) > 0 FROM shared_internal.backfill_chunks") == [(True,)]


def _kill(worker: "subprocess.Popen[bytes]") -> None:
    """Kill a worker and the runs that it has started, as a power loss would."""
    for process in [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]:
        os.kill(process.pid, signal.SIGKILL)


def _stop(worker: "subprocess.Popen[bytes]") -> None:
    if worker.poll() is None:
        _kill(worker)
    worker.wait()


def _print_traffic(box: Sandbox) -> None:
    traffic = box.traffic()["GET /api/events"]
    seconds = {int(second): count for second, count in traffic["seconds"].items()}
    minutes: dict[int, int] = {}
    for second, count in seconds.items():
        minutes[second // 60] = minutes.get(second // 60, 0) + count
    print(
        f"at most {max(seconds.values())} requests in a second (limit {_BURST}) and {max(minutes.values())} in a minute"
        f" (limit {_STEADY}); 429 responses: {traffic['throttled']}"
    )


if __name__ == "__main__":
    main()
