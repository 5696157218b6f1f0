"""`python -m benchmarks.fuzz --minutes 10`: decode damaged pages of events with the code that decodes all pages.

Each round has a seed and takes a page of events in either dialect. It changes, duplicates, removes or replaces records
or bytes. The page must be read with every record accounted for, or be refused as a whole. The seed of each failure is
printed; `--seed` repeats it.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from random import Random
from time import monotonic
from typing import Any
from urllib.request import Request, urlopen

from klaviyo_pg.errors import BadAnswer
from sandbox.launcher import Sandbox, running
from tests.any_page import check, stored_events

_RECORDS = 12  # per page, so that a round takes milliseconds
_DAMAGE = (
    b"NaN",
    b"1e400",
    rb'"\ud800"',
    b'"\xff"',
    rb'"\u0000"',
    b"null",
    b"[]",
    b"{}",
    b"5",
    b'""',
    b"[" * 2000 + b"]" * 2000,
)
_BYTES = b'{}[]",:\\\x00\xff\xed0e-.n'
Page = tuple[list[bytes], list[bytes]]


def main() -> None:
    """Fuzz for some minutes. Exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="repeat only this round")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    options = parser.parse_args()
    with running(events=2_000, members=200) as box:
        pages = {"current": _current(box), "legacy": _legacy(box)}
    seeds = [options.seed] if options.seed is not None else None
    ends, seed, failed, refused = monotonic() + options.minutes * 60, options.first, 0, 0
    while seeds or (options.seed is None and monotonic() < ends):
        seed = seeds.pop() if seeds else seed + 1
        try:
            refused += not _round(Random(seed), pages)
        except Exception:
            failed += 1
            print(f"seed {seed}:", traceback.format_exc(), flush=True)
    print(f"{seed - options.first:,} pages, {refused:,} refused, {failed} failed")
    sys.exit(failed > 0)


def _current(box: Sandbox) -> Page:
    query = "api/events?include=profile&fields[event]=timestamp,event_properties"
    headers = {"Authorization": f"Klaviyo-API-Key {box.api_key}", "revision": "2026-07-15"}
    answer = _get(box, query, headers)
    return _records(answer["data"]), _records(answer["included"])


def _legacy(box: Sandbox) -> Page:
    return _records(_get(box, f"api/v1/metrics/timeline?api_key={box.api_key}&count=100", {})["data"]), []


def _get(box: Sandbox, path: str, headers: dict[str, str]) -> Any:
    with urlopen(Request(f"{box.url}/{path}", headers=headers)) as answer:
        return json.load(answer)


def _records(rows: list[Any]) -> list[bytes]:
    return [json.dumps(row, separators=(",", ":")).encode() for row in rows]


def _round(random: Random, pages: dict[str, Page]) -> bool:
    """Return whether the page was read. Raise AssertionError if a record is neither stored nor rejected."""
    dialect = random.choice(sorted(pages))
    events, people = (
        [random.choice(records) for _ in range(random.randint(0, _RECORDS))] if records else []
        for records in pages[dialect]
    )
    damage = random.choice((_replaced, _flipped))
    if damage is _replaced:
        events, people = ([_replaced(random, each) for each in records] for records in (events, people))
    body = b'{"data":[%b],"included":[%b],"links":{"next":null}}' % (b",".join(events), b",".join(people))
    if damage is _flipped:
        for _ in range(random.randint(1, 4)):
            body = _flipped(random, body)
    try:
        stored, accounted = stored_events(dialect, body)
    except BadAnswer:
        assert damage is _flipped, "a page of records is never refused"
        return False
    check(stored)
    if damage is _replaced:
        is_complete = (accounted == len(events) + len(people)) if dialect == "current" else accounted >= len(events)
        assert is_complete, f"{accounted} records accounted for, of {len(events)} events and {len(people)} people"
    return True


def _replaced(random: Random, record: bytes) -> bytes:
    """Return a record in which, half of the time, one value is replaced, missing or duplicated."""
    if random.random() < 0.5:
        return record
    return _damaged(random, json.loads(record))


def _damaged(random: Random, value: Any) -> bytes:
    """Return a value as JSON with a change at one random place."""
    if not isinstance(value, dict) or not value or random.random() < 0.2:
        return random.choice(_DAMAGE)
    chosen = random.choice(sorted(value))
    members = [
        (json.dumps(name).encode(), json.dumps(member).encode()) for name, member in value.items() if name != chosen
    ]
    damaged = (json.dumps(chosen).encode(), _damaged(random, value[chosen]))
    members += random.choice(([damaged], [damaged], [damaged], [], [damaged, damaged]))
    return b"{" + b",".join(name + b":" + member for name, member in members) + b"}"


def _flipped(random: Random, body: bytes) -> bytes:
    """Return a body in which some bytes are changed, removed or duplicated. An empty body is replaced."""
    if not body:
        return random.choice(_DAMAGE)
    at = random.randrange(len(body))
    size = random.choice((1, 1, 1, 2, 8, 200))
    change: Callable[[], bytes] = random.choice(
        (
            lambda: bytes([random.choice(_BYTES)]),
            lambda: bytes([body[at] ^ 1 << random.randrange(8)]),
            lambda: b"",
            lambda: body[at : at + size] * 2,
            lambda: random.choice(_DAMAGE),
        )
    )
    return body[:at] + change() + body[at + size :]


if __name__ == "__main__":
    main()
