"""`python benchmarks/sandbox_speed.py`: measure how many events per second the sandbox serves.

The reader requests full pages with profiles, one after the other, and discards them. No loader can be faster than this
against the sandbox.
"""

import argparse
from time import perf_counter

import requests

from sandbox.launcher import Sandbox, running


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=120_000)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--large", action="store_true", help="read a large account, which the sandbox computes")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds, of which the best counts")
    options = parser.parse_args()
    large = {"large": True} if options.large else {}
    with running(events=options.events, members=options.members, **large) as box:
        for fields in ("timestamp,event_properties", None):
            best = max(_speed(box, fields, box.state()["events"]) for _ in range(options.rounds))
            print(f"{best:>10,.0f} events/s with {fields or 'all fields'}", flush=True)


def _speed(box: Sandbox, fields: str | None, events: int) -> float:
    began = perf_counter()
    count = _read(box, fields)
    if count != events:
        raise SystemExit(f"Read {count} of {events} events.")
    return count / (perf_counter() - began)


def _read(box: Sandbox, fields: str | None) -> int:
    """Request all pages without parsing them; return the number of their events."""
    url: str | None = f"{box.url}/api/events"
    parameters = {"page[size]": "1000", "include": "profile", "sort": "datetime"}
    if fields:
        parameters["fields[event]"] = fields
    count = 0
    with requests.Session() as session:
        session.headers.update({"Authorization": f"Klaviyo-API-Key {box.api_key}", "revision": "2026-07-15"})
        while url:
            body = session.get(url, params=parameters, timeout=60).content
            count += body.count(b'{"type":"event","id":"')
            url, parameters = _next(body), {}
    return count


def _next(body: bytes) -> str | None:
    _, _, link = body.rpartition(b'"next":')
    return None if link.startswith(b"null") else link.split(b'"')[1].decode()


if __name__ == "__main__":
    main()
