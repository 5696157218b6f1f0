"""`python -m benchmarks.reliability --write docs/reliability.md`: measure what each fault does to a daily run.

Each fault gets a separate schema. The stored events are compared with those of the account, and all 18 tables with
those of an undisturbed run.
"""

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import database_faults
from benchmarks.comparison import table
from benchmarks.faulty_runs import EVENTS, Bench, Row
from benchmarks.workbench import parser, report, workspace
from sandbox.faults.kinds import KINDS
from sandbox.launcher import running
from tests.driver import StoppablePostgres

_LATENCY_MS = 40  # makes runs long enough to be disturbed
_KINDS = {
    "reset": "connection reset",
    "truncated": "connection lost in the middle of a response",
    "undecodable": "response that cannot be decompressed",
    "timeout": "no response in time",
    "slow": "response that trickles in",
    "429": "429 with Retry-After",
    "429_bare": "429 without Retry-After",
    "html_200": "web page with status 200",
    "not_json": "truncated JSON",
    "not_jsonapi": "JSON that is not a page",
    "empty_body": "200 with an empty body",
    "empty_page": "page without rows that links to a next page",
    "repeated_cursor": "link to a page that has been read",
    "foreign_link": "link to another host",
    "other_metric": "events of a metric that was not requested",
    "redirect": "redirect to another host",
    "bomb": "response that is too large when decompressed",
}
_PERMANENT = ("repeated_cursor", "foreign_link", "other_metric", "redirect")  # a retry cannot overcome them
_MANY = {"timeout": 20, "bomb": 20}  # only a smaller page avoids these, after two of them on one page
_PATIENCE = {"timeout": {"REQUEST_TIMEOUT_SECONDS": "1"}, "slow": {"REQUEST_TIMEOUT_SECONDS": "1"}}
_ONE_METRIC = {"other_metric": ["--metrics", "Received Email"]}


def _api(bench: Bench, kind: str) -> Row:
    """Inject a fault into the pages of events, and once into every other endpoint that a run reads."""
    schema = f"api_{kind}"
    bench.prepare(schema)
    before = sum(bench.box.state()["chaos"].values())
    read = [name for name in bench.box.state()["requests"] if name.startswith("GET")]
    endpoints = [EVENTS] if kind in _PERMANENT else read
    faults = [
        {"endpoint": name, "kind": kind, "times": 10**9 if kind in _PERMANENT else _MANY.get(kind, 3), "after": 1}
        if name == EVENTS
        else {"endpoint": name, "kind": kind}
        for name in endpoints
    ]
    bench.box.set_faults(*({**fault, "seconds": 2.0, "retry_after": 1} for fault in faults))
    ran = bench.run(schema, *_ONE_METRIC.get(kind, []), settings=_PATIENCE.get(kind))
    injected = sum(bench.box.state()["chaos"].values()) - before
    bench.box.set_faults()
    if kind in _ONE_METRIC and ran.code == 0:
        ran = bench.run(schema)
    where = "events" if kind in _PERMANENT else "all endpoints"
    return bench.row(f"{_KINDS.get(kind, f'status {kind}')} ({where})", injected, schema, ran)


_TITLE = "Every fault"
_TEXT = """\
`python -m benchmarks.reliability`, {when}: daily runs of an account with {events:,} events, with one fault
each. Faults of the API hit pages of events three times (20 times if only smaller pages avoid the fault), and
the first response of every other endpoint once. Faults that a retry cannot overcome hit all pages of events
except the first. Faults of Postgres occurred while events were being stored. *Injected* is the number that the
sandbox, or the log of Postgres, counted.

*Rows lost* are events of the account that are not in the warehouse, or rows of any of the 18 tables that an
undisturbed run has. *Extra rows* are all rows that should not be there. *More requests* are requests for
smaller pages, or for pages without rows. A run that failed was rerun without the fault, and the tables were
compared after that. An undisturbed run took {seconds:.1f} s and {requests} requests. *Extra seconds* includes
the rerun.

{table}
"""
_HEAD = ("fault", "injected", "outcome", "rows lost", "extra rows", "extra seconds")


def _all(bench: Bench, folder: Path, only: str) -> Iterator[Row]:
    for kind in KINDS:
        if re.search(only, kind):
            yield _api(bench, kind)
    yield from database_faults.rows(bench, folder / "small", only)


def main() -> None:
    """Measure every fault, then print and write the table."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=20_000)
    arguments.add_argument("--only", default="", help="measure only faults whose name matches this regular expression")
    options = arguments.parse_args()
    with workspace() as (folder, prefect), StoppablePostgres(folder) as postgres:
        with running(events=options.events, members=1_000, latency_ms=_LATENCY_MS) as box:
            bench = Bench(box, postgres, folder, prefect)
            bench.undisturbed()
            print(f"undisturbed: {bench.seconds:.1f} s, {bench.requests} requests", flush=True)
            rows = []
            for row in _all(bench, folder, options.only):
                print(" | ".join(row.cells), flush=True)
                rows.append(row)
        text = _TEXT.format(
            events=options.events,
            when=f"{datetime.now(UTC):%Y-%m-%d}",
            seconds=bench.seconds,
            requests=bench.requests,
            table=table(_HEAD, [row.cells for row in rows]),
        )
        report(options.write, _TITLE, text)
        if bad := [
            row.fault for row in rows if row.difference or (row.difference is None and row.injected != "not injected")
        ]:
            sys.exit(f"Rows lost or extra rows: {', '.join(bad)}.")
        if absent := [row.fault for row in rows if row.injected == 0]:
            sys.exit(f"These faults did not occur: {', '.join(absent)}.")


if __name__ == "__main__":
    main()
