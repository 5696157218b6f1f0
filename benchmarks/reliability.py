"""`python -m benchmarks.reliability --write docs/reliability.md`: each fault in a daily run, and what comes of it.

Each fault gets a schema of its own. What is stored in the end is compared with what the account says it has, and all 18
tables with those of an undisturbed run.
"""

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import database_faults
from benchmarks.comparing import table
from benchmarks.faulty_runs import EVENTS, Place, Row
from benchmarks.workbench import parser, workplace, written
from sandbox.chaos import KINDS
from sandbox.launcher import running
from tests.driver import StoppablePostgres

_LATENCY_MS = 40  # so that there is a middle of a run
_KINDS = {
    "reset": "connection reset",
    "truncated": "connection broken in the middle of an answer",
    "undecodable": "answer that cannot be decompressed",
    "timeout": "no answer in time",
    "slow": "answer that comes in drops",
    "429": "429 with Retry-After",
    "429_bare": "429 without Retry-After",
    "html_200": "a web page with status 200",
    "not_json": "half an answer, as JSON",
    "not_jsonapi": "JSON that is no page",
    "empty_body": "200 with nothing in it",
    "empty_page": "a page without rows that leads on",
    "repeated_cursor": "a link to a page that has been read",
    "foreign_link": "a link to another host",
    "other_metric": "events of another metric than was asked for",
    "redirect": "a redirect to another host",
    "bomb": "an answer that unpacks to more than fits",
}
_NOT_MENDED = ("repeated_cursor", "foreign_link", "other_metric", "redirect")  # by asking again
_MANY = {"timeout": 20, "bomb": 20}  # of faults that only a smaller page mends, if one page meets two of them
_PATIENCE = {"timeout": {"REQUEST_TIMEOUT_SECONDS": "1"}, "slow": {"REQUEST_TIMEOUT_SECONDS": "1"}}
_ONE_METRIC = {"other_metric": ["--metrics", "Received Email"]}


def _api(place: Place, kind: str) -> Row:
    """The fault in the events, thrice, and once at every other endpoint that a run asks."""
    schema = f"api_{kind}"
    place.prepare(schema)
    before = sum(place.box.state()["chaos"].values())
    asked = [EVENTS] if kind in _NOT_MENDED else [name for name in place.box.state()["requests"] if name[:3] == "GET"]
    faults = [
        {"endpoint": name, "kind": kind, "times": 10**9 if kind in _NOT_MENDED else _MANY.get(kind, 3), "after": 1}
        if name == EVENTS
        else {"endpoint": name, "kind": kind}
        for name in asked
    ]
    place.box.set_faults(*({**fault, "seconds": 2.0, "retry_after": 1} for fault in faults))
    ran = place.run(schema, *_ONE_METRIC.get(kind, []), **_PATIENCE.get(kind, {}))
    injected = sum(place.box.state()["chaos"].values()) - before
    place.box.set_faults()
    if kind in _ONE_METRIC and ran.code == 0:
        ran = place.run(schema)
    where = "events" if kind in _NOT_MENDED else "all endpoints"
    return place.row(f"{_KINDS.get(kind, f'status {kind}')} ({where})", injected, schema, ran)


_TITLE = "Every fault"
_TEXT = """\
`python -m benchmarks.reliability` put each of these into a daily run of an account of {events:,} events, {when}:
those of the API three times into the pages of events (20 times what only smaller pages mend) and once into the first
answer of every other endpoint; those that no retry can mend into all pages of events but the first; those of Postgres
while events were being stored. *Injected* is what the sandbox, or Postgres' log, counted.

*Rows lost* are events that the account has and the warehouse has not, or rows of any of the 18 tables that an
undisturbed run has; *rows twice or other* are all that should not be there. *More requests* are those of smaller pages,
or of pages without rows. Where a run ended, it was run again without the fault, and what is compared is what was there
then. An undisturbed run took {seconds:.1f} s and {requests} requests; *seconds more* holds both runs where there were
two.

{table}
"""
_HEAD = ("fault", "injected", "what became of it", "rows lost", "rows twice or other", "seconds more")


def _all(place: Place, folder: Path, only: str) -> Iterator[Row]:
    for kind in KINDS:
        if re.search(only, kind):
            yield _api(place, kind)
    yield from database_faults.rows(place, folder / "small", only)


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=20_000)
    arguments.add_argument("--only", default="", help="a regular expression on names of faults")
    given = arguments.parse_args()
    with workplace() as (folder, prefect), StoppablePostgres(folder) as postgres:
        with running(events=given.events, members=1_000, latency_ms=_LATENCY_MS) as box:
            place = Place(box, postgres, folder, prefect)
            place.undisturbed()
            print(f"undisturbed: {place.seconds:.1f} s, {place.requests} requests", flush=True)
            rows = []
            for row in _all(place, folder, given.only):
                print(" | ".join(row.cells), flush=True)
                rows.append(row)
        text = _TEXT.format(
            events=given.events,
            when=f"{datetime.now(UTC):%Y-%m-%d}",
            seconds=place.seconds,
            requests=place.requests,
            table=table(_HEAD, [row.cells for row in rows]),
        )
        written(given.write, _TITLE, text)
        if bad := [
            row.fault for row in rows if row.difference or (row.difference is None and row.injected != "not injected")
        ]:
            sys.exit(f"Not as it should be: {', '.join(bad)}.")


if __name__ == "__main__":
    main()
