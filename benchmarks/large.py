"""`python -m benchmarks.large`: load an account with many people, and the same one with few, each of them twice.

The account is a large one of the sandbox. The first run loads everything into an empty database. The second one reads
all events again (`--since`), of which none has changed. Nothing but the loader, Postgres and the sandbox runs, and
there is no latency: the rates are those of this machine.
"""

from datetime import UTC, datetime

from benchmarks.comparison import table
from benchmarks.scale_runs import Bench, Cost, a_day_ago, history_days, per_event
from benchmarks.workbench import parser, readable_folder, report
from sandbox.launcher import running

_HEAD = (
    "people",
    "load",
    "run, s",
    "events/s of the run",
    "stages, s",
    "loader, µs of processor time an event",
    "Postgres, µs",
    "sandbox, µs",
    "WAL, bytes an event",
    "requests",
    "peak RSS, MB",
)


def main() -> None:
    """Measure and print the results."""
    made = parser(__doc__)
    made.add_argument("--events", type=int, default=2_000_000)
    made.add_argument("--members", type=int, default=1_000_000, help="people of the account with many")
    made.add_argument("--few", type=int, default=2_000, help="people of the account with few")
    made.add_argument("--properties", type=int, default=20, help="properties of each person")
    made.add_argument("--days", type=int, default=90, help="days of history")
    made.add_argument("--metrics", type=int, default=100)
    made.add_argument("--lists", type=int, default=30)
    options = made.parse_args()
    rows = []
    for members in (options.few, options.members):
        sizes = {name: getattr(options, name) for name in ("events", "properties", "days", "metrics", "lists")}
        rows += _measure({**sizes, "members": members})
    text = table(_HEAD, rows)
    report(
        options.write,
        "Accounts with many people",
        f"{options.events:,} events, {datetime.now(UTC):%Y-%m-%d}.\n\n{text}",
    )


def _measure(sizes: dict[str, int]) -> list[tuple[str, ...]]:
    """Return the rows of an account: its first load, and its second."""
    with readable_folder() as folder, running(large=True, until=a_day_ago(), **sizes) as box:
        since = datetime.fromisoformat(box.state()["since"])
        bench = Bench(box, folder, first_sync_days=history_days(since))
        first = bench.daily()
        again = bench.daily(since)
        return [_row(sizes, "first", first), _row(sizes, "again", again)]


def _row(sizes: dict[str, int], load: str, cost: Cost) -> tuple[str, ...]:
    events, loaded = sizes["events"], cost.loaded
    print(f"{sizes['members']:,} people, {load}: {loaded.state}, {loaded.changed}", flush=True)
    return (
        f"{sizes['members']:,}",
        load,
        f"{loaded.seconds:,.1f}",
        f"{events / loaded.seconds:,.0f}",
        ", ".join(f"{stage.title} {stage.seconds:,.1f}" for stage in loaded.stages),
        per_event(loaded.processor, events),
        per_event(cost.postgres, events),
        per_event(cost.sandbox, events),
        f"{cost.wal / events:,.0f}",
        f"{loaded.requests:,}",
        f"{loaded.rss:,.0f}",
    )


if __name__ == "__main__":
    main()
