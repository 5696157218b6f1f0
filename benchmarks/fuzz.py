"""`python -m benchmarks.fuzz --minutes 10`: damaged pages of a sandbox account, through the path of every other page.

Each round is one seed: a page of events, of either dialect, in which records or bytes are changed, doubled, removed or
exchanged. It has to be read with all its records accounted for, or refused as no page. Prints the seed of each failure;
`--seed` repeats one.
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

_RECORDS = 12  # of a page: enough to stand beside each other, few enough for thousands of rounds
_LOST = (
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
    """Fuzz until the time is over; ends with 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="repeat this one only")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    given = parser.parse_args()
    with running(events=2_000, members=200) as box:
        pages = {"current": _current(box), "legacy": _legacy(box)}
    seeds = [given.seed] if given.seed is not None else None
    ends, seed, failed, refused = monotonic() + given.minutes * 60, given.first, 0, 0
    while seeds or (given.seed is None and monotonic() < ends):
        seed = seeds.pop() if seeds else seed + 1
        try:
            refused += not _round(Random(seed), pages)
        except Exception:
            failed += 1
            print(f"seed {seed}:", traceback.format_exc(), flush=True)
    print(f"{seed - given.first:,} pages, {refused:,} refused, {failed} failed")
    sys.exit(failed > 0)


def _current(box: Sandbox) -> Page:
    query = "api/events?include=profile&fields[event]=timestamp,event_properties"
    headers = {"Authorization": f"Klaviyo-API-Key {box.api_key}", "revision": "2026-07-15"}
    answer = _asked(box, query, headers)
    return _records(answer["data"]), _records(answer["included"])


def _legacy(box: Sandbox) -> Page:
    return _records(_asked(box, f"api/v1/metrics/timeline?api_key={box.api_key}&count=100", {})["data"]), []


def _asked(box: Sandbox, path: str, headers: dict[str, str]) -> Any:
    with urlopen(Request(f"{box.url}/{path}", headers=headers)) as answer:
        return json.load(answer)


def _records(found: list[Any]) -> list[bytes]:
    return [json.dumps(each, separators=(",", ":")).encode() for each in found]


def _round(random: Random, pages: dict[str, Page]) -> bool:
    """Whether the page was read; raises AssertionError where a record is neither stored nor set aside."""
    dialect = random.choice(sorted(pages))
    events, people = (
        [random.choice(found) for _ in range(random.randint(0, _RECORDS))] if found else [] for found in pages[dialect]
    )
    damage = random.choice((_exchanged, _flipped))
    if damage is _exchanged:
        events, people = ([_exchanged(random, each) for each in found] for found in (events, people))
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
    if damage is _exchanged:
        sums = (accounted == len(events) + len(people)) if dialect == "current" else accounted >= len(events)
        assert sums, f"{accounted} records accounted for, {len(events)} events and {len(people)} people on the page"
    return True


def _exchanged(random: Random, record: bytes) -> bytes:
    """A record in which, half of the time, one value is something else, or is not there, or is there twice."""
    if random.random() < 0.5:
        return record
    return _any(random, json.loads(record))


def _any(random: Random, value: Any) -> bytes:
    """One place on one path through a value is changed."""
    if not isinstance(value, dict) or not value or random.random() < 0.2:
        return random.choice(_LOST)
    chosen = random.choice(sorted(value))
    members = [
        (json.dumps(name).encode(), json.dumps(found).encode()) for name, found in value.items() if name != chosen
    ]
    again = (json.dumps(chosen).encode(), _any(random, value[chosen]))
    members += random.choice(([again], [again], [again], [], [again, again]))
    return b"{" + b",".join(name + b":" + found for name, found in members) + b"}"


def _flipped(random: Random, body: bytes) -> bytes:
    """Some bytes at any place are changed, removed or doubled; of a body without any, something stands there."""
    if not body:
        return random.choice(_LOST)
    at = random.randrange(len(body))
    size = random.choice((1, 1, 1, 2, 8, 200))
    change: Callable[[], bytes] = random.choice(
        (
            lambda: bytes([random.choice(_BYTES)]),
            lambda: bytes([body[at] ^ 1 << random.randrange(8)]),
            lambda: b"",
            lambda: body[at : at + size] * 2,
            lambda: random.choice(_LOST),
        )
    )
    return body[:at] + change() + body[at + size :]


if __name__ == "__main__":
    main()
