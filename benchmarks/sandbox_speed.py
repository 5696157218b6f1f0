"""`python benchmarks/sandbox_speed.py`: how many events a second the sandbox hands to a reader that only reads.

The reader asks for full pages with the profiles included, one after the other, and keeps nothing. Any loader is at
most this fast against the sandbox.
"""

import argparse
from time import perf_counter

import requests

from sandbox.launcher import Sandbox, running


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=120_000)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5, help="the best of so many counts")
    asked = parser.parse_args()
    with running(events=asked.events, members=asked.members) as box:
        for fields in ("timestamp,event_properties", None):
            best = max(_speed(box, fields, asked.events) for _ in range(asked.rounds))
            print(f"{best:>10,.0f} events/s with {fields or 'all fields'}", flush=True)


def _speed(box: Sandbox, fields: str | None, events: int) -> float:
    began = perf_counter()
    found = _read(box, fields)
    if found != events:
        raise SystemExit(f"Read {found} of {events} events.")
    return found / (perf_counter() - began)


def _read(box: Sandbox, fields: str | None) -> int:
    """Walk all pages without parsing them; how many events they hold."""
    url: str | None = f"{box.url}/api/events"
    parameters = {"page[size]": "1000", "include": "profile", "sort": "datetime"}
    if fields:
        parameters["fields[event]"] = fields
    found = 0
    with requests.Session() as session:
        session.headers.update({"Authorization": f"Klaviyo-API-Key {box.api_key}", "revision": "2026-07-15"})
        while url:
            body = session.get(url, params=parameters, timeout=60).content
            found += body.count(b'{"type":"event","id":"')
            url, parameters = _next(body), {}
    return found


def _next(body: bytes) -> str | None:
    _, _, link = body.rpartition(b'"next":')
    return None if link.startswith(b"null") else link.split(b'"')[1].decode()


if __name__ == "__main__":
    main()
