"""`python -m benchmarks.daily_at_scale`: measure a daily run on a large warehouse in which little has changed.

A first run fills the warehouse from a large account of the sandbox. Then a day is added to the account: a thousandth of
everything is new or changes. The next run is measured: the time by stage, requests, WAL, memory, and the rows that each
table's sequential scans read. `--days` repeats the last step, because some work is due on some days only.
"""

from datetime import UTC, datetime

from benchmarks.comparison import table
from benchmarks.scale_runs import Bench, Cost, a_day_ago, history_days
from benchmarks.workbench import parser, readable_folder, report
from sandbox.launcher import running

_COUNTED = ("members", "member_attributes", "member_lists", "member_exclusions")
_SIZES = ("events", "members", "metrics", "lists", "properties", "history")


def main() -> None:
    """Measure and print the results."""
    made = parser(__doc__)
    made.add_argument("--events", type=int, default=10_000_000)
    made.add_argument("--members", type=int, default=1_000_000)
    made.add_argument("--metrics", type=int, default=500)
    made.add_argument("--lists", type=int, default=300, help="lists and segments")
    made.add_argument("--properties", type=int, default=25)
    made.add_argument("--history", type=int, default=365, help="days of history")
    made.add_argument("--days", type=int, default=1, help="days to add and to measure, one after the other")
    options = made.parse_args()
    sizes = {name.replace("history", "days"): getattr(options, name) for name in _SIZES}
    with readable_folder() as folder, running(large=True, until=a_day_ago(), **sizes) as box:
        since = datetime.fromisoformat(box.state()["since"])
        bench = Bench(box, folder, first_sync_days=history_days(since))
        parts = [_shown("First run", bench.daily(), bench)]
        for day in range(1, options.days + 1):
            box.add_days(1)
            bench.reset_statistics()
            parts.append(_shown(f"Day {day}", bench.daily(), bench))
    report(options.write, "A daily run at scale", "\n\n".join([f"{datetime.now(UTC):%Y-%m-%d}.", *parts]))


def _shown(title: str, cost: Cost, bench: Bench) -> str:
    """Return the figures of a run as Markdown."""
    loaded = cost.loaded
    figures = [
        ("state", loaded.state),
        ("seconds", f"{loaded.seconds:,.1f}"),
        *((f"seconds of “{stage.title}”", f"{stage.seconds:,.1f}") for stage in loaded.stages),
        ("loader, s of processor time", f"{loaded.processor:,.1f}"),
        ("Postgres, s", f"{cost.postgres:,.1f}"),
        ("sandbox, s", f"{cost.sandbox:,.1f}"),
        ("requests", f"{loaded.requests:,}"),
        ("WAL, MB", f"{cost.wal / 1e6:,.1f}"),
        ("peak RSS, MB", f"{loaded.rss:,.0f}"),
        *((f"rows of {name}", f"{rows:,}") for name, rows in bench.sizes(*_COUNTED).items()),
    ]
    head = ("table", "rows", "scans", "rows read by scans", "index scans", "inserted", "updated", "deleted")
    print(f"{title}: {loaded.state} after {loaded.seconds:,.1f} s", flush=True)
    return "\n\n".join([f"{title}:", table(("", ""), figures), table(head, bench.scans())])


if __name__ == "__main__":
    main()
